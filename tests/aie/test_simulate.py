"""Written projects on this machine: what simulate computes, what it notices, and what it says."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DIGITS

from aie.conftest import Rewrite
from hccs_onnx import workflow
from hccs_onnx.aie.devices import TARGETS
from hccs_onnx.aie.project import write_project
from hccs_onnx.cli import main
from hccs_onnx.errors import CodegenError
from hccs_onnx.params import OutputType, Reciprocal

SHAPES = {"pixels": (1, 64)}

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")), reason="no C++ compiler"
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@needs_compiler
def test_project_of_digits_computes_what_the_reference_does(
    digits: Rewrite, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "aie"
    monkeypatch.setenv("AIE_EMULATION_OUTPUT_DIR", str(tmp_path / "elsewhere"))  # for graphs of one's own, not for ours
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

    # A kernel that rounds down where it should round to nearest: off by one, in some codes of every head.
    edit(folder / "kernels" / "hccs_kernel.h", "rounding_mode::positive_inf", "rounding_mode::floor")
    assert main(["simulate", str(folder)]) == 3
    out, err = capsys.readouterr()
    assert out.endswith("FAILED\n")
    for head, tile in ((0, 0), (1, 0), (2, 1), (3, 1)):
        (found,) = re.findall(rf"^{re.escape(name)} +{head} +{tile} +16 +512 +(\d+)$", out, re.MULTILINE)
        assert 0 < int(found) < 256
        where = rf"{re.escape(name)}, head {head}, tile {tile} at column {5 + tile}, row 0"
        code, needs = re.findall(rf"^{where}: row \d+, column \d+: (\d+), needs (\d+)$", out, re.MULTILINE)[0]
        assert int(code) == int(needs) - 1
    assert err.endswith("note: kernels/hccs_kernel.h is not as codegen wrote it\n")
    with pytest.raises(CodegenError, match=r"kernels/hccs_kernel\.h"):  # what a user changed is not lost
        write_project(digits(), folder, "vek280", shapes=SHAPES)


@needs_compiler
@pytest.mark.slow
def test_simulate_notices_other_parameters(digits: Rewrite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES)
    header = report.folder / report.nodes[1].folder / "parameters.h"
    offset = report.nodes[1].node.params.heads[0].B
    edit(header, f"{{{offset}, ", f"{{{offset // 2}, ")
    assert main(["simulate", str(report.folder)]) == 3
    out, err = capsys.readouterr()
    assert [line.split(" head ")[1][:9] for line in out.splitlines() if ", needs " in line] == ["0, tile 0"]
    assert f"note: {header.relative_to(report.folder)} is not as codegen wrote it" in err


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no signals")
def test_simulate_says_which_signal_stopped_a_kernel(
    digits: Rewrite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES)
    source = report.folder / report.nodes[0].folder / "kernels.cc"
    edit(source, "  hccs::softmax", "  __builtin_trap();\n  hccs::softmax")
    assert main(["simulate", str(report.folder)]) == 3
    assert f"error: node '{report.nodes[0].node.name}': was stopped by SIG" in capsys.readouterr().err


@needs_compiler
@pytest.mark.slow
def test_simulate_says_where_a_kernel_does_not_compile(
    digits: Rewrite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (name, *_) = [node.name for node in onnx.load(digits()).graph.node if node.op_type == "HCCS"]
    report = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES, nodes=[name])
    edit(report.folder / "kernels" / "hccs_normalise.h", "255 << 15", "255 << sixteen")
    assert main(["simulate", str(report.folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"error: \S+/kernels\.cc: does not compile: \S+/kernels/hccs_normalise\.h:\d+:", line)
    assert "sixteen" in line


@pytest.mark.skipif(os.name == "nt", reason="no signals")
@pytest.mark.parametrize("which", ["compiler", "part of it"])
def test_simulate_tells_a_stopped_compiler_from_wrong_sources(
    digits: Rewrite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    folder = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES).folder
    program = tmp_path / "cc1plus"  # what g++ starts to do the work
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    if which == "part of it" and shutil.which("g++") is None:
        pytest.skip("needs g++")
    monkeypatch.setenv("CXX", str(program) if which == "compiler" else f"g++ -B{tmp_path}/")
    assert main(["simulate", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    found = "SIGKILL" if which == "compiler" else "g++: fatal error: Killed signal terminated program cc1plus"
    assert f": was stopped before it could compile {folder}/" in line and f"({found})" in line
    assert "does not compile" not in line and "memory" in line


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["fast", "reference"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("output", "reciprocal"), [("uint8", "norm"), ("uint8", "div"), ("uint8", "clb"), ("int16", "norm")]
)
def test_project_of_digits_computes_what_the_reference_does_on_every_target(
    digits: Rewrite, tmp_path: Path, target: str, output: OutputType, reciprocal: Reciprocal, kernel: str
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


@needs_compiler
@pytest.mark.slow
def test_layer_of_minilm_with_int16_computes_what_the_reference_does(
    minilm_l6: Path, sentences: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [{name: value[row : row + 1] for name, value in sentences.items()} for row in range(8)]
    calibration = workflow.calibrate(minilm_l6, data, to="int16")
    model = workflow.rewrite(minilm_l6, tmp_path / "l6.onnx", calibration=calibration).output
    names = [node.name for node in onnx.load(model).graph.node if node.op_type == "HCCS"]
    shapes = dict.fromkeys(sentences, (1, 128))
    report = write_project(model, tmp_path / "aie", "vek280", shapes=shapes, nodes=[names[3]])
    (project,) = report.nodes
    assert (project.node.output, project.node.params.masked, project.plan.work.n) == ("int16", True, 128)
    assert main(["simulate", str(tmp_path / "aie")]) == 0
    assert capsys.readouterr().out.count(f" {128 * 128}  ") == 12  # codes of each head


def test_simulate_says_that_there_is_no_compiler(
    digits: Rewrite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
    digits: Rewrite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES)
    (report.folder / report.nodes[0].folder / "graph.h").unlink()
    assert main(["simulate", str(report.folder)]) == 1
    assert "graph.h: is missing. Write the project again" in capsys.readouterr().err
