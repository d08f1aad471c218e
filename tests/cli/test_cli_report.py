"""`report`: a page on disk, a summary on stdout, and one line for each mistake."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hccs_onnx import calibrate, rewrite
from hccs_onnx.cli import main
from hccs_onnx.demo import bundled_models

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@dataclass(frozen=True)
class Files:
    """What a report is made from: model, calibration, data, labels."""

    model: str
    calibration: str
    data: str
    labels: str

    @property
    def command(self) -> list[str]:
        return ["report", self.model, "--calibration", self.calibration]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    model = Path(shutil.copy(bundled_models() / "digits_dynamo.onnx", tmp_path / "digits.onnx"))
    with np.load(bundled_models() / "test.npz") as arrays:
        np.savez(tmp_path / "data.npz", pixels=arrays["pixels"][:6])
    np.save(tmp_path / "labels.npy", np.load(bundled_models() / "test_labels.npy")[:6])
    calibrate(model, tmp_path / "data.npz").save(tmp_path / "c.json")
    return Files(*(str(tmp_path / name) for name in ("digits.onnx", "c.json", "data.npz", "labels.npy")))


def test_report_is_written_beside_the_model_and_summed_up(files: Files, capsys: pytest.CaptureFixture) -> None:
    assert main([*files.command, "--data", files.data, "--labels", files.labels]) == 0
    out, err = capsys.readouterr()
    target = Path(files.model).with_name("digits.report.html")
    header, *lines = out.splitlines()
    assert header.split("  ")[0] == "Softmax"
    assert "mean KL (nats)" in header
    assert [line.split()[1] for line in lines] == ["4", "4"]
    assert err == f"wrote {target}\n"
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_report_of_a_given_model_is_the_same_every_time(files: Files, tmp_path: Path) -> None:
    from hccs_onnx import Calibration

    calibration = Calibration.load(Path(files.calibration))
    rewritten = rewrite(files.model, tmp_path / "r.onnx", calibration=calibration).output
    command = [*files.command, "--data", files.data]
    assert main([*command, "--rewritten", str(rewritten), "-o", str(tmp_path / "a.html")]) == 0
    assert main([*command, "-o", str(tmp_path / "b.html")]) == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_report_without_data_needs_no_samples(files: Files, tmp_path: Path) -> None:
    assert main([*files.command, "-o", str(tmp_path / "r.html")]) == 0
    assert "Run the report with --data" in (tmp_path / "r.html").read_text(encoding="utf-8")


def fails(command: list[str], capsys: pytest.CaptureFixture, status: int = 1) -> str:
    assert main(command) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    return str(err)


def test_labels_without_data_are_refused(files: Files, capsys: pytest.CaptureFixture) -> None:
    err = fails([*files.command, "--labels", files.labels], capsys, 2)
    assert err == "error: --labels: there are no samples that they belong to. Add --data DATA.\n"


def test_shapes_without_a_target_are_refused(files: Files, capsys: pytest.CaptureFixture) -> None:
    err = fails([*files.command, "--shape", "pixels=1,64"], capsys, 2)
    assert err == "error: --shape: there is nothing to estimate. Add --target, or leave it out.\n"


@pytest.mark.parametrize("number", ["0", "3"])
def test_sample_without_data_is_refused(files: Files, capsys: pytest.CaptureFixture, number: str) -> None:
    err = fails([*files.command, "--sample", number], capsys, 2)
    assert err == "error: --sample: there are no samples to choose from. Add --data DATA.\n"


def test_target_of_a_float_calibration_is_refused(files: Files, capsys: pytest.CaptureFixture) -> None:
    err = fails([*files.command, "--target", "vek280"], capsys)
    assert "--target: estimates are for integer output (a calibration for float). Calibrate with --to uint8" in err


def test_calibration_of_another_model_is_refused(files: Files, capsys: pytest.CaptureFixture) -> None:
    other = str(bundled_models() / "digits_torchscript.onnx")
    err = fails(["report", other, "--calibration", files.calibration, "-o", files.model + ".html"], capsys)
    assert "calibration is for another model" in err


def test_model_rewritten_with_another_calibration_is_refused(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rewritten = rewrite(files.model, tmp_path / "r.onnx").output
    err = fails([*files.command, "--data", files.data, "--rewritten", str(rewritten)], capsys)
    assert f"{rewritten}: was rewritten with another calibration." in err


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.zeros(5, np.int64), "holds a wrong number of labels (5, needs at least 6)"),
        (np.zeros(7, np.int64), "holds a wrong number of labels (7, needs 6, as many as there are samples)"),
        (np.full(6, 10), "labels are no classes of the model (10 to 10, needs 0..9)"),
        (np.zeros(6), "holds no labels (float64 [6], needs integers of shape [samples])"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    files: Files, capsys: pytest.CaptureFixture, labels: np.ndarray, problem: str
) -> None:
    np.save(files.labels, labels)
    assert f"{files.labels}: {problem}" in fails(
        [*files.command, "--data", files.data, "--labels", files.labels], capsys
    )


def test_sample_that_is_not_there_is_refused(files: Files, capsys: pytest.CaptureFixture) -> None:
    err = fails([*files.command, "--data", files.data, "--sample", "6"], capsys)
    assert f"{files.data}: has no sample 6" in err


def test_output_that_is_an_input_is_refused(files: Files, capsys: pytest.CaptureFixture) -> None:
    before = Path(files.data).read_bytes()
    folder = Path(files.data).parent
    for data in (files.data, str(folder), str(folder / "d*.npz")):
        assert "output is an input file" in fails([*files.command, "--data", data, "-o", files.data], capsys)
    assert Path(files.data).read_bytes() == before


def test_missing_packages_are_named_with_the_extra(
    files: Files, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    err = fails(files.command, capsys)
    assert err == "error: report: needs the package jinja2. Install the extra: pip install 'hccs-onnx[report]'.\n"
