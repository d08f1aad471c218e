"""Reports to look into: of the digits transformer, made once, and of a made-up model of any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import DIGITS

from hccs_onnx import Calibration, calibrate

MODEL = DIGITS / "digits_dynamo.onnx"
SAMPLES = 40


@dataclass(frozen=True)
class Made:
    """A report, and what it was made from."""

    folder: Path
    calibration: Calibration
    content: object
    html: str

    @property
    def path(self) -> Path:
        return self.folder / "report.html"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Digits in integers, with data, labels and target."""
    for package in ("jinja2", "matplotlib"):
        pytest.importorskip(package)
    from hccs_onnx.report.gather import Request
    from hccs_onnx.report.write import write_report

    folder = tmp_path_factory.mktemp("report")
    with np.load(DIGITS / "test.npz") as arrays:
        np.savez(folder / "test.npz", pixels=arrays["pixels"][:SAMPLES])
    np.save(folder / "labels.npy", np.load(DIGITS / "test_labels.npy")[:SAMPLES])
    with np.load(DIGITS / "calibration.npz") as arrays:
        calibration = calibrate(MODEL, [{"pixels": image[None]} for image in arrays["pixels"][:32]], to="uint8")
    calibration.save(folder / "calibration.json")
    request = Request(folder / "test.npz", labels=folder / "labels.npy", target="vek280", sample=3)
    content = write_report(str(MODEL), folder / "calibration.json", str(folder / "report.html"), request)
    return Made(folder, calibration, content, (folder / "report.html").read_text(encoding="utf-8"))
