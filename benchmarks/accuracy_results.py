"""Measured accuracies, kept after every run, so that a table of hours survives interruptions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment

from hccs_onnx import Calibration

_PACKAGES = ("torch", "transformers")


@dataclass(frozen=True, order=True)
class Key:
    """Which fine-tuned model."""

    model: str
    data: str
    seed: int

    def __str__(self) -> str:
        return f"{self.model} {self.data} {self.seed}"

    def folder(self, work: Path) -> Path:
        """Where its model and what rows share is kept."""
        return work / str(self).replace(" ", "-")


@dataclass(frozen=True)
class Cell:
    """Accuracy of a row on a data set, over seeds."""

    mean: float
    spread: float
    seeds: int


class Results:
    """A JSON file: key -> row -> test accuracy, key -> calibration -> mean KL, key -> where its last row was measured.

    Parameters
    ----------
    path : pathlib.Path
        File; made by the first result.
    device : str
        torch device of training, told with the machine.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._path = path
        self._values: dict[str, dict[str, float]] = {}
        self._divergences: dict[str, dict[str, float]] = {}
        self._environments: dict[str, dict[str, Any]] = {}
        self._here = _environment(device)
        if path.exists():
            document = json.loads(path.read_text())
            self._values, self._environments = document["results"], document["environments"]
            self._divergences = document["kl"]

    def get(self, key: Key, row: str) -> float | None:
        """Test accuracy, if measured."""
        return self._values.get(str(key), {}).get(row)

    def put(self, key: Key, row: str, value: float) -> None:
        """Keep a result, in the file too."""
        self._values.setdefault(str(key), {})[row] = value
        self._environments[str(key)] = self._here
        self._save()

    def note_divergences(self, key: Key, calibrations: Iterable[Path]) -> None:
        """Keep the mean KL over heads, in nats, that calibrations report."""
        for path in calibrations:
            heads = [head.kl for softmax in Calibration.load(path).softmaxes for head in softmax.heads]
            self._divergences.setdefault(str(key), {})[path.stem] = float(np.mean(heads))
        self._save()

    def divergences(self, model: str, calibration: str) -> list[float]:
        """Mean KL of each data set and seed, in nats, where it was kept."""
        found = [(key.split()[0], titles.get(calibration)) for key, titles in self._divergences.items()]
        return [value for name, value in found if name == model and value is not None]

    def _save(self) -> None:
        document = {"environments": self._environments, "kl": self._divergences, "results": self._values}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        part.replace(self._path)

    def environments(self) -> dict[str, dict[str, Any]]:
        """Versions and machine by the keys that were measured there, as text."""
        keys: dict[str, list[str]] = {}
        for key, where in self._environments.items():
            keys.setdefault(json.dumps(where), []).append(key)
        return {", ".join(names): json.loads(where) for where, names in keys.items()}

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


def _environment(device: str) -> dict[str, Any]:
    here = environment(_PACKAGES)
    if torch.device(device).type == "cuda":
        here["machine"] += f"; training on {torch.cuda.get_device_name(device)}"
    return here
