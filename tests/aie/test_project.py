"""From a rewritten model to a project, and from the project to results on this machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DIGITS

from hccs_onnx import workflow
from hccs_onnx.aie import manifest
from hccs_onnx.aie.devices import TARGETS
from hccs_onnx.aie.project import write_project
from hccs_onnx.aie.vectors import from_text
from hccs_onnx.cli import main
from hccs_onnx.errors import CodegenError
from hccs_onnx.params import OutputType, Reciprocal
from hccs_onnx.reference import hccs

Digits = Callable[..., Path]
SHAPES = {"pixels": (1, 64)}

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")), reason="no C++ compiler"
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, digits_data: list[dict[str, np.ndarray]]) -> Digits:
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


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@needs_compiler
def test_project_of_digits_computes_what_the_reference_does(
    digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "aie"
    command = ["codegen", str(digits()), "-o", str(folder), "--target", "vek280", "--shape", "pixels=1,64"]
    (name, *_) = [node.name for node in onnx.load(digits()).graph.node if node.op_type == "HCCS"]
    assert main([*command, "--node", name]) == 0
    assert "2 x 16" in capsys.readouterr().out
    before = contents(folder)
    assert main(["simulate", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.count(" 512 ") == 4  # heads of 16 rows of 32 codes
    assert out.endswith("passed: every code equals the reference\n")
    assert contents(folder) == before

    header = folder / next(name for name in before if name.endswith("parameters.h"))
    text = header.read_text()
    first = text[text.index("    {") + 5 : text.index(",", text.index("    {"))]
    header.write_text(text.replace(first, str(int(first) // 2), 1))
    assert main(["simulate", str(folder)]) == 3
    out, err = capsys.readouterr()
    assert "FAILED" in out and ", needs " in out
    assert f"note: {header.relative_to(folder)} is not as codegen wrote it" in err
    with pytest.raises(CodegenError, match=r"parameters\.h"):  # what a user changed is not lost
        write_project(digits(), folder, "vek280", shapes=SHAPES)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["fast", "reference"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("output", "reciprocal"), [("uint8", "norm"), ("uint8", "div"), ("uint8", "clb"), ("int16", "norm")]
)
def test_project_of_digits_computes_what_the_reference_does_on_every_target(
    digits: Digits, tmp_path: Path, target: str, output: OutputType, reciprocal: Reciprocal, kernel: str
) -> None:
    data = [{"pixels": np.load(DIGITS / "test.npz")["pixels"][:1]}]
    model = digits(output, reciprocal)
    write_project(model, tmp_path / "aie", target, shapes=SHAPES, tiles=3, data=data, kernel=kernel)
    assert main(["simulate", str(tmp_path / "aie")]) == 0


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_project_of_minilm_computes_what_the_reference_does(
    minilm_l6: Path, sentences: dict[str, np.ndarray], tmp_path: Path, target: str
) -> None:
    data = [{name: value[row : row + 1] for name, value in sentences.items()} for row in range(8)]
    calibration = workflow.calibrate(minilm_l6, data, to="uint8")
    model = workflow.rewrite(minilm_l6, tmp_path / "l6.onnx", calibration=calibration).output
    report = write_project(model, tmp_path / "aie", target, shapes=dict.fromkeys(sentences, (1, 128)))
    assert [project.node.params.masked for project in report.nodes] == [True] * 6
    assert main(["simulate", str(tmp_path / "aie")]) == 0


def test_vectors_are_what_the_model_computes_on_the_data(digits: Digits, tmp_path: Path) -> None:
    data = [{"pixels": np.load(DIGITS / "test.npz")["pixels"][:1]}]
    report = write_project(digits(), tmp_path / "aie", "vek385", data=data, tiles=2)
    project = report.nodes[0]
    plan = project.plan
    for tile, place in enumerate(plan.tiles):
        folder = tmp_path / "aie" / project.folder / "data"
        shape = (plan.iterations, plan.slots, plan.rows, plan.work.columns)
        x = from_text((folder / f"x_{tile}.txt").read_text(), "uint8").astype(np.int8).reshape(shape)
        golden = from_text((folder / f"golden_{tile}.txt").read_text(), "uint8").reshape(shape)
        for number, slot in enumerate(place.slots):
            head = project.node.params.heads[slot.head]
            codes = x[:, number, :, : plan.work.n]
            assert np.ptp(codes.astype(int)) > 10
            y = hccs(codes, np.uint8, B=[head.B], S=[head.S], Dmax=[head.Dmax], reciprocal="norm")
            np.testing.assert_array_equal(golden[:, number, :, : plan.work.n], y)
            assert not golden[:, number, :, plan.work.n :].any()


def test_project_is_the_same_bytes_again_and_replaces_itself(digits: Digits, tmp_path: Path) -> None:
    first = contents(write_project(digits(), tmp_path / "a", "vek280", shapes=SHAPES).folder)
    second = contents(write_project(digits(), tmp_path / "b", "vek280", shapes=SHAPES).folder)
    assert first == second
    assert contents(write_project(digits(), tmp_path / "a", "vek280", shapes=SHAPES).folder) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_manifest_is_valid_and_lists_every_file(digits: Digits, tmp_path: Path) -> None:
    folder = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES).folder
    written = manifest.read(folder)
    assert set(written.files) == set(contents(folder)) - {"manifest.json"}
    assert written.changed(folder) == []
    content = json.loads((folder / "manifest.json").read_text())
    assert content["nodes"][0]["shape"] == [1, 4, 16, 16]
    assert [len(node["heads"]) for node in content["nodes"]] == [4, 4]
    assert [node["estimate"]["kind"] for node in content["nodes"]] == ["modelled", "modelled"]
    content["nodes"][0]["heads"][0]["B"] = 0
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CodegenError, match="Write the project again"):
        manifest.read(folder)


@pytest.mark.parametrize("present", ["notes.txt", "manifest.json"])
def test_folder_that_is_not_a_project_is_left_alone(digits: Digits, tmp_path: Path, present: str) -> None:
    folder = tmp_path / "aie"
    folder.mkdir()
    (folder / present).write_text("{}")
    with pytest.raises(CodegenError):
        write_project(digits(), folder, "vek280", shapes=SHAPES)
    assert contents(folder) == {present: b"{}"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": None}, "shape is not static (input 'pixels' is [batch, 64]). Bind it, as in --shape pixels=1,64"),
        ({"shapes": {"image": (1, 64)}}, "--shape image: is no input of the model (needs one of pixels)."),
        ({"shapes": {"pixels": (1, 65)}}, "--shape pixels: does not fit the input"),
        ({"target": "vek281"}, "vek281"),
        ({"tiles": 1000}, "--tiles out of range (1000, needs 1.."),
        ({"nodes": ["nothing"]}, "nothing"),
        ({"kernel": "other"}, "--kernel: unknown (other, needs one of fast, reference)."),
    ],
)
def test_codegen_says_what_is_wrong(digits: Digits, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    options = {"target": "vek280", "shapes": SHAPES, **changes}
    with pytest.raises(CodegenError) as caught:
        write_project(digits(), tmp_path / "aie", **options)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert not (tmp_path / "aie").exists()


def test_codegen_refuses_float_attention_with_the_way_to_integers(tmp_path: Path) -> None:
    model = workflow.rewrite(DIGITS / "digits_torchscript.onnx", tmp_path / "float.onnx").output
    with pytest.raises(CodegenError, match="--to uint8"):
        write_project(model, tmp_path / "aie", "vek280", shapes=SHAPES)


def test_codegen_refuses_a_model_without_hccs(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="HCCS"):
        write_project(DIGITS / "digits_torchscript.onnx", tmp_path / "aie", "vek280", shapes=SHAPES)


def test_simulate_says_that_there_is_no_compiler(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES).folder
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["simulate", str(folder)]) == 1
    err = capsys.readouterr().err
    assert "no C++ compiler was found" in err and "apt install g++" in err


@pytest.mark.parametrize("folder", ["none", "."])
def test_simulate_refuses_a_folder_that_is_no_project(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", str(tmp_path / folder)]) == 1
    assert "is no project" in capsys.readouterr().err


def test_simulate_refuses_a_project_that_lacks_a_file(
    digits: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES)
    (report.folder / report.nodes[0].folder / "graph.h").unlink()
    assert main(["simulate", str(report.folder)]) == 1
    assert "graph.h: is missing. Write the project again" in capsys.readouterr().err
