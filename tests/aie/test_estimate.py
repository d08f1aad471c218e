"""The cycle model: what it says of the published kernel, of ours, and of models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hccs_onnx.aie.devices import TARGETS, device
from hccs_onnx.aie.estimate import PUBLISHED, kernel_estimate, published_estimate
from hccs_onnx.cli import main
from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.schema import DOMAIN, VERSION, make_node
from hccs_onnx.params import HccsParams, HeadParams

ROOT = Path(__file__).parents[2]
VEK280 = device("vek280")
TABLE = ROOT / "hccs_onnx" / "aie" / "operation_counts.json"


@pytest.mark.parametrize("n", [32, 64])
@pytest.mark.parametrize("kind", ["uint8 clb", "int16 div"])
def test_model_reproduces_published_throughput(kind: str, n: int) -> None:
    modelled = published_estimate(VEK280, kind, n).elements_per_second(VEK280)
    assert modelled == pytest.approx(PUBLISHED["AIE-ML", kind][n], rel=0.2)


@pytest.mark.parametrize(("n", "times"), [(32, 1.8), (64, 2.0), (128, 2.8)])
def test_kernel_takes_fewer_modelled_cycles_than_published(n: int, times: float) -> None:
    ours = kernel_estimate(VEK280, "uint8", "clb", n).cycles
    assert published_estimate(VEK280, "uint8 clb", n).cycles >= times * ours
    assert published_estimate(VEK280, "int16 div", n).cycles >= 4 * kernel_estimate(VEK280, "int16", "div", n).cycles


@pytest.mark.parametrize("target", TARGETS)
def test_cycles_grow_with_row_length_and_stay_above_floors(target: str) -> None:
    for output, reciprocal in (("uint8", "norm"), ("uint8", "clb"), ("int16", "div")):
        estimates = [kernel_estimate(device(target), output, reciprocal, n) for n in (31, 32, 64, 128, 256, 1000)]  # type: ignore[arg-type]
        cycles = [estimate.cycles for estimate in estimates]
        assert cycles[1:] == sorted(cycles[1:])
        assert cycles[0] > cycles[1]  # padding costs
        for estimate in estimates:
            assert estimate.cycles > max(estimate.floors["load"], estimate.floors["store"])
            assert estimate.with_streams >= estimate.floors["stream"]


def save_model(path: Path, output: str = "uint8") -> None:
    """One masked HCCS node, its batch size and row length symbolic."""
    params = HccsParams((HeadParams(16259, 127, 127),), masked=True)
    code = TensorProto.FLOAT if output == "float" else TensorProto.INT8
    x = helper.make_tensor_value_info("x", code, ["batch", 12, "n", "n"])
    y = helper.make_tensor_value_info(
        "y", helper.np_dtype_to_tensor_dtype(np.dtype(output + "32" * (output == "float"))), None
    )
    zero = numpy_helper.from_array(np.zeros((), output + "32" * (output == "float")), "zero")
    graph = helper.make_graph([make_node(params, "x", "zero", "y", name="attention")], "g", [x], [y], [zero])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, VERSION)]
    body = function_body(output, "norm", 17)  # type: ignore[arg-type]
    onnx.save(helper.make_model(graph, opset_imports=imports, functions=[body], ir_version=8), path)


def test_estimate_lists_each_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.onnx"
    save_model(model)
    command = ["estimate", str(model), "--target", "vek280", "--shape", "x=2,12,128,128"]
    assert main([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    (node,) = content["nodes"]
    assert content["kind"] == "modelled"
    assert (node["node"], node["n"], node["rows"], node["tiles"]) == ("attention", 128, 3072, 96)
    kernel = kernel_estimate(VEK280, "uint8", "norm", 128, masked=True, wide=True)
    assert node["cycles_a_row"] == kernel.cycles
    assert node["microseconds"] == pytest.approx(32 * kernel.with_streams / 1250)
    assert main([*command, "--tiles", "168"]) == 0
    out, err = capsys.readouterr()
    assert "modelled" in out
    assert "in all" in out and "on all tiles of the node" in err
    assert "codegen" not in err
    assert main([*command, "--tiles", "169"]) == 0
    assert "codegen takes at most 168 tiles for a node: vek280 has ports" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: node 'attention': row length is not static. Bind the inputs' shapes"),
        (["--shape", "z=1"], "error: --shape z: is no input of the model (needs one of x)."),
        (["--shape", "x=2,13,4,4"], "error: --shape x: does not fit the input ([2, 13, 4, 4], needs [batch, 12, "),
        (["--tiles", "305"], "error: --tiles: does not fit vek280 (305, needs 1..304)."),
    ],
)
def test_estimate_says_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "m.onnx")
    assert main(["estimate", str(tmp_path / "m.onnx"), "--target", "vek280", *arguments]) == 1
    assert capsys.readouterr().err.startswith(message)


def test_estimate_refuses_float_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path / "m.onnx", "float")
    assert main(["estimate", str(tmp_path / "m.onnx"), "--target", "vek280", "--shape", "x=1,12,8,8"]) == 1
    assert "holds no HCCS node with int8 logits" in capsys.readouterr().err


@pytest.mark.slow
def test_operation_counts_are_what_the_emulation_counts(tmp_path: Path) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("needs g++, or CXX")
    again = tmp_path / "counts.json"
    script = ROOT / "benchmarks" / "aie" / "measure_counts.py"
    subprocess.run([sys.executable, script, "-o", again], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert json.loads(again.read_text()) == json.loads(TABLE.read_text())
