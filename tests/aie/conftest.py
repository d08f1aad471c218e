"""The digits transformer, rewritten to integers, as it is by default and in aie4ml's profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import DIGITS

from hccs_onnx import workflow
from hccs_onnx.params import OutputType, Reciprocal

Rewrite = Callable[..., Path]


@pytest.fixture(scope="session")
def digits_data() -> list[dict[str, np.ndarray]]:
    """A few images, one a feed."""
    with np.load(DIGITS / "calibration.npz") as data:
        return [{"pixels": pixels[None]} for pixels in data["pixels"][:24]]


@pytest.fixture(scope="session")
def paper_digits(tmp_path_factory: pytest.TempPathFactory, digits_data: list[dict[str, np.ndarray]]) -> Rewrite:
    """The digits transformer, rewritten: `paper_digits("uint8", "clb", exporter="dynamo")`, made once each."""
    made: dict[tuple[str, ...], Path] = {}

    def rewritten(output: OutputType = "uint8", reciprocal: Reciprocal = "clb", exporter: str = "dynamo") -> Path:
        key = (output, reciprocal, exporter)
        if key not in made:
            model = DIGITS / f"digits_{exporter}.onnx"
            calibration = workflow.calibrate(model, digits_data, to=output, reciprocal=reciprocal, profile="paper")
            path = tmp_path_factory.mktemp("paper") / f"digits_{output}_{reciprocal}.onnx"
            made[key] = workflow.rewrite(model, path, calibration=calibration).output
        return made[key]

    return rewritten


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory, digits_data: list[dict[str, np.ndarray]]) -> Rewrite:
    """The digits transformer, rewritten to integers; made once each."""
    made: dict[tuple[str, str], Path] = {}

    def rewritten(output: OutputType = "uint8", reciprocal: Reciprocal = "norm") -> Path:
        if (output, reciprocal) not in made:
            model = DIGITS / "digits_torchscript.onnx"
            calibration = workflow.calibrate(model, digits_data, to=output, reciprocal=reciprocal)
            path = tmp_path_factory.mktemp("digits") / f"{output}_{reciprocal}.onnx"
            made[output, reciprocal] = workflow.rewrite(model, path, calibration=calibration).output
        return made[output, reciprocal]

    return rewritten
