"""The rows of the accuracy table: what takes Softmax's place, how it is set, and whether it is trained with."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import accuracy_onnx
from accuracy_data import Dataset
from accuracy_models import AGAIN, Classifier, accuracy, train
from accuracy_surrogates import SURROGATES, use_softmax

from hccs_onnx import Calibration, calibrate, rewrite
from hccs_onnx.torch import swap

Group = Literal["float", "paper", "ours", "others"]
FLOAT, FLOAT_AGAIN = "float", "float, one more epoch"
_OUTPUTS: dict[str, dict[str, Any]] = {
    "float output": {"to": "float"},
    "uint8 norm": {"to": "uint8", "reciprocal": "norm"},
    "uint8 clb": {"to": "uint8", "reciprocal": "clb"},
}
_SQUARES = {"to": "float", "objective": "squares"}
GRANULARITIES = {"global": "one for all", "layer": "per layer", "head": "per head"}
PAPER_OUTPUTS = ("uint8 div", "int16 div")


class Setting:
    """One fine-tuned float model, and what its rows are measured on.

    Parameters
    ----------
    title : str
        For progress.
    model : str
        Shape of the model.
    seed : int
        Of its training.
    classifier : Classifier
        The float model. Rows work on copies.
    data : Dataset
        Official splits.
    folder : pathlib.Path
        For its export and calibrations, which rows of several processes share.
    """

    def __init__(self, title: str, model: str, seed: int, classifier: Classifier, data: Dataset, folder: Path) -> None:
        self._title, self._model, self._seed = title, model, seed
        self._classifier, self._data, self._folder = classifier, data, folder
        self._feeds = accuracy_onnx.calibration_feeds(data.train)

    def padded(self) -> Setting:
        """The same, with all texts padded to one length."""
        data = self._data.padded()
        return Setting(self._title, self._model, self._seed, self._classifier, data, self._folder)

    def calibration(self, title: str, options: dict[str, Any]) -> Calibration:
        """Calibrated on training texts, by `hccs_onnx.calibrate`, unless an earlier run has left it."""
        path = self._folder / f"{title}.json"
        if not path.exists():
            calibrate(self._exported(), self._feeds, **options).save(path)
        return Calibration.load(path)

    def rewritten(self, calibration: Calibration | None, correct: str = "none") -> float:
        """Test accuracy of the model that `hccs_onnx.rewrite` writes."""
        correction: dict[str, Any] = {} if correct == "none" else {"correct": correct, "data": self._feeds}
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            output = Path(folder, "rewritten.onnx")
            rewrite(self._exported(), output, calibration=calibration, **correction)
            return accuracy_onnx.accuracy(output, self._data.test)

    def swapped(self, change: Callable[[Classifier], object], train_as: str | None = None) -> float:
        """Test accuracy of the torch model after a change, and after one more epoch if there is a title for it."""
        classifier = copy.deepcopy(self._classifier)
        change(classifier)
        if train_as is not None:
            title = f"{self._title}: {train_as}"
            train(classifier, self._data.train, AGAIN[self._model], self._seed + 1, title)
        return accuracy(classifier, self._data.test)

    def _exported(self) -> Path:
        path = self._folder / "float.onnx"
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                accuracy_onnx.export(copy.deepcopy(self._classifier), Path(folder, path.name)).replace(path)
        return path


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Parameters
    ----------
    name : str
        What is in the place of Softmax and how it was set; what results are stored under.
    group : {'float', 'paper', 'ours', 'others'}
        Part of the table.
    retrained : bool
        Trained for one more epoch, as the float row of that name was.
    measure : callable
        Test accuracy in a setting.
    """

    name: str
    group: Group
    retrained: bool
    measure: Callable[[Setting], float]


def rows() -> tuple[Row, ...]:
    """All rows, in the order of the table."""
    return (*_float_rows(), *_paper_rows(), *_our_rows(), *_other_rows())


def _float_rows() -> list[Row]:
    return [
        Row(FLOAT, "float", False, partial(Setting.swapped, change=_nothing)),
        Row(FLOAT_AGAIN, "float", True, partial(Setting.swapped, change=_nothing, train_as=FLOAT_AGAIN)),
    ]


def _paper_rows() -> list[Row]:
    """The paper's operator: int8 logits, its arithmetic, masked keys at the floor score; so rows of one length."""
    found = []
    for output in PAPER_OUTPUTS:
        to, reciprocal = output.split()
        for granularity, name in GRANULARITIES.items():
            options = {"to": to, "reciprocal": reciprocal, "profile": "paper", "granularity": granularity}
            title = f"{output}, {name}"
            found += [_calibrated(title, "paper", options), _retrained(title, "paper", options)]
    return found


def _our_rows() -> list[Row]:
    found = [Row("float output, data-free", "ours", False, partial(Setting.rewritten, calibration=None))]
    found += [
        _calibrated("float output, by squares", "ours", _SQUARES, correct) for correct in ("none", "least-squares")
    ]
    for title, options in _OUTPUTS.items():
        found += [_calibrated(title, "ours", options, correct) for correct in ("none", "bias", "least-squares")]
        found.append(_retrained(title, "ours", options))
    return found


def _other_rows() -> list[Row]:
    found = []
    for name, function in SURROGATES.items():
        change = partial(use_softmax, function=function)
        again = f"{name}, retrained"
        found.append(Row(name, "others", False, partial(Setting.swapped, change=change)))
        found.append(Row(again, "others", True, partial(Setting.swapped, change=change, train_as=again)))
    return found


def _calibrated(title: str, group: Group, options: dict[str, Any], correct: str = "none") -> Row:
    def measure(setting: Setting) -> float:
        setting = setting.padded() if group == "paper" else setting
        return setting.rewritten(setting.calibration(title, options), correct)

    return Row(f"{title}, calibrated" + f", {correct}" * (correct != "none"), group, False, measure)


def _retrained(title: str, group: Group, options: dict[str, Any]) -> Row:
    name = f"{title}, calibrated, retrained"

    def measure(setting: Setting) -> float:
        setting = setting.padded() if group == "paper" else setting
        change = partial(swap, calibration=setting.calibration(title, options))
        return setting.swapped(change, name)

    return Row(name, group, True, measure)


def _nothing(_: Classifier) -> None:
    """Leave Softmax where it is."""
