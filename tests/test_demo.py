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
    "hccs_demo.json",
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


@pytest.mark.parametrize(
    "name", ["test.npz", "calibration.npz", "digits_dynamo.hccs.json", "digits_torchscript.hccs.onnx", "hccs_demo.json"]
)
def test_demo_replaces_no_file_that_is_not_its_own(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / name).write_text("mine")
    assert main(["demo", "-o", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"error: {tmp_path / name}: is not as the demo writes it, and would be replaced. "
        "Choose another folder with -o, or move the file away.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_demo_leaves_alone_what_has_another_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    demo.prepare(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_demo_replaces_what_it_made_until_that_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.prepare(tmp_path)
    demo.walk(tmp_path, "dynamo")
    monkeypatch.setattr(demo.workflow, "calibrate", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        demo.walk(tmp_path, "TorchScript")  # what was finished counts as made by the demo
    demo.prepare(tmp_path)
    with (tmp_path / "digits_dynamo.hccs.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ModelError, match=r"digits_dynamo\.hccs\.json: is not as the demo writes it"):
        demo.prepare(tmp_path)


def test_demo_replaces_no_edited_script(tmp_path: Path) -> None:
    demo.prepare(tmp_path, retrain=True)
    (tmp_path / "retrain.py").write_text("mine")
    demo.prepare(tmp_path)
    with pytest.raises(ModelError, match=r"retrain\.py: is not as the demo writes it"):
        demo.prepare(tmp_path, retrain=True)
    assert (tmp_path / "retrain.py").read_text() == "mine"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("below", [False, True])
def test_demo_is_refused_when_its_folder_is_a_file(tmp_path: Path, below: bool) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelError, match=r"is a file, not a folder|cannot be written"):
        demo.prepare(tmp_path / "file" / "demo" if below else tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
