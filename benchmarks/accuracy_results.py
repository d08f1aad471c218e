"""Measured accuracies, kept after every run, so that a table of hours survives interruptions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import environment

_PACKAGES = ("torch", "transformers")


@dataclass(frozen=True, order=True)
class Key:
    """Which fine-tuned model."""

    model: str
    data: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model} {self.data} {self.seed}"


@dataclass(frozen=True)
class Cell:
    """Accuracy of a row on a data set, over seeds."""

    mean: float
    spread: float
    seeds: int


class Results:
    """A JSON file: key -> row -> test accuracy.

    Parameters
    ----------
    path : pathlib.Path
        File; made by the first result.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values: dict[str, dict[str, float]] = {}
        self.about = environment(_PACKAGES)
        if path.exists():
            self._values = json.loads(path.read_text())["results"]

    def get(self, key: Key, row: str) -> float | None:
        """Test accuracy, if measured."""
        return self._values.get(str(key), {}).get(row)

    def put(self, key: Key, row: str, value: float) -> None:
        """Keep a result, in the file too."""
        self._values.setdefault(str(key), {})[row] = value
        document = {**self.about, "results": self._values}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        part.replace(self._path)

    def has(self, model: str) -> bool:
        """Whether anything was measured with a model."""
        return any(name.split()[0] == model for name in self._values)

    def values(self, model: str, row: str, minus: str | None = None, data: str | None = None) -> list[float]:
        """Test accuracy of each data set and seed, or of one data set's seeds; its difference to another row's."""
        found = []
        for name, measured in self._values.items():
            if name.split()[0] == model and data in (None, name.split()[1]) and row in measured:
                if minus is None:
                    found.append(measured[row])
                elif minus in measured:
                    found.append(measured[row] - measured[minus])
        return found

    def cell(self, model: str, data: str, row: str, minus: str | None = None) -> Cell | None:
        """Mean and largest minus smallest over seeds; of the difference to another row if one is given."""
        values = self.values(model, row, minus, data)
        return Cell(float(np.mean(values)), float(np.ptp(values)), len(values)) if values else None
