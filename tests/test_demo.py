"""The demo: the whole road, three accuracies, and files to go on with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import onnx
import pytest

from hccs_onnx import Calibration, demo
from hccs_onnx.cli import main
from hccs_onnx.errors import HccsError, ModelError

FILES = {
    "calibration.npz",
    "test.npz",
    "test_labels.npy",
    *(
        f"digits_{export}{suffix}"
        for export in ("torchscript", "dynamo")
        for suffix in (".onnx", ".data-free.onnx", ".hccs.onnx", ".hccs.json")
    ),
}


def test_demo_prints_three_accuracies_and_leaves_its_files(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "there" / "demo"  # is made, with its parents
    assert main(["demo", "-o", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert {path.name for path in folder.iterdir()} == FILES
    rows = [line for line in out.splitlines() if line.startswith("torch ")]
    assert [row.split()[1] for row in rows] == ["TorchScript", "dynamo"]
    for row in rows:
        assert "2 of 2" in row
        floats, free, calibrated = (float(share) for share in re.findall(r"([\d.]+)%", row))
        assert floats > 95
        assert calibrated >= free > 90
        assert calibrated > 95
    assert f"{folder}/" in out

    contents = {name: (folder / name).read_bytes() for name in FILES}
    assert main(["demo", "-o", str(folder)]) == 0  # a second time, into the same folder
    assert capsys.readouterr().out == out
    assert {name: (folder / name).read_bytes() for name in FILES} == contents

    for line in out.splitlines():  # what it suggests to try works
        if line.startswith("  python -m hccs_onnx "):
            assert main(line.split()[3:]) == 0


def test_walk_tells_what_it_did(tmp_path: Path) -> None:
    demo.prepare(tmp_path)
    result = demo.walk(tmp_path, "dynamo")
    assert [item.reason for item in result.found] == [None, None]
    assert result.float_accuracy > 0.95
    assert result.float_accuracy >= result.calibrated_accuracy >= result.data_free_accuracy > 0.9
    assert result.calibration == Calibration.load(tmp_path / "digits_dynamo.hccs.json")
    assert result.verification.samples == 450
    assert result.verification.outputs[0].mean_cosine > 0.97
    assert onnx.load(tmp_path / "digits_dynamo.hccs.onnx").functions[0].name == "HCCS"


def test_bundled_files_are_the_repositorys() -> None:
    assert {path.name for path in demo.bundled_models().iterdir()} >= {
        "digits_torchscript.onnx",
        "digits_dynamo.onnx",
        "calibration.npz",
        "test.npz",
        "test_labels.npy",
    }
    assert sum(path.stat().st_size for path in demo.bundled_models().glob("*.onnx")) < 500_000


def test_demo_fails_with_a_remedy_when_its_model_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "hccs_onnx" / "demo.py"))
    monkeypatch.setattr(demo.resources, "files", lambda _: tmp_path)
    with pytest.raises(HccsError, match=r"the bundled model is missing\. Install hccs-onnx again"):
        demo.bundled_models()


def test_demo_uses_the_installed_model_before_the_source_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(demo.bundled_models(), tmp_path / "models" / "digits")
    monkeypatch.setattr(demo.resources, "files", lambda _: tmp_path)
    assert demo.bundled_models() == tmp_path / "models" / "digits"


@pytest.mark.parametrize("below", [False, True])
def test_demo_is_refused_when_its_folder_is_a_file(tmp_path: Path, below: bool) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelError, match=r"is a file, not a folder|cannot be written"):
        demo.prepare(tmp_path / "file" / "demo" if below else tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
