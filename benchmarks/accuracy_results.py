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
_QUANTILES = (0.1, 0.9)


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
    """A JSON file: key -> row -> test accuracy; of each key, too, what calibrations found, and the machine.

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
        self._calibrations: dict[str, dict[str, Any]] = {}
        self._environments: dict[str, dict[str, Any]] = {}
        self._here = _environment(device)
        if path.exists():
            document = json.loads(path.read_text())
            self._values, self._environments = document["results"], document["environments"]
            self._calibrations = document["calibrations"]

    def get(self, key: Key, row: str) -> float | None:
        """Test accuracy, if measured."""
        return self._values.get(str(key), {}).get(row)

    def put(self, key: Key, row: str, value: float) -> None:
        """Keep a result, in the file too."""
        self._values.setdefault(str(key), {})[row] = value
        self._environments[str(key)] = self._here
        self._save()

    def note_calibrations(self, key: Key, paths: Iterable[Path]) -> None:
        """Keep what calibrations found: the mean KL over heads, and 10 and 90 % of their clip ranges, in nats."""
        for path in paths:
            heads = [head for softmax in Calibration.load(path).softmaxes for head in softmax.heads]
            clip_ranges = np.quantile([head.params.clip_range for head in heads], _QUANTILES)
            found = {"kl": float(np.mean([head.kl for head in heads])), "clip_ranges": clip_ranges.tolist()}
            self._calibrations.setdefault(str(key), {})[path.stem] = found
        self._save()

    def calibrations(self, model: str, title: str) -> list[dict[str, Any]]:
        """What calibrations of a title found, of each data set and seed where it was kept."""
        kept = self._calibrations.items()
        return [titles[title] for key, titles in kept if key.split()[0] == model and title in titles]

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

    def _save(self) -> None:
        document = {
            "calibrations": self._calibrations, "environments": self._environments, "results": self._values,
        }  # fmt: skip
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        part.replace(self._path)


def _environment(device: str) -> dict[str, Any]:
    here = environment(_PACKAGES)
    if torch.device(device).type == "cuda":
        here["machine"] += f"; training on {torch.cuda.get_device_name(device)}"
    return here
