"""The cycle model: what it says of the published kernel, of ours, and of models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aie.made_up_node import save_model
from hccs_onnx.aie import estimate
from hccs_onnx.aie.devices import TARGETS, device
from hccs_onnx.aie.estimate import PUBLISHED, kernel_estimate, published_estimate
from hccs_onnx.aie.kernels import band_rows
from hccs_onnx.cli import main

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
        cycles = [item.cycles for item in estimates]
        assert cycles[1:] == sorted(cycles[1:])
        assert cycles[0] > cycles[1]  # padding costs
        for item in estimates:
            assert item.cycles > max(item.floors["load"], item.floors["store"])
            assert item.with_streams >= item.floors["stream"]


@pytest.mark.parametrize(
    ("n", "rows", "fills"),
    [
        (128, 32, 3 / 32),  # clb: maxima, sums and normalise are loops, a band each
        (300, 16, 3 / 16),  # the kernel halves its band until it fits: 32 rows do not, 25 are no band
        (600, 8, 3),  # long rows: each has loops of its own
    ],
)
def test_cautious_estimate_fills_the_pipeline_as_often_as_the_kernel_loops(
    n: int, rows: int, fills: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert band_rows(n) == rows
    filled = kernel_estimate(VEK280, "uint8", "clb", n).phased
    monkeypatch.setattr(estimate, "FILL_CYCLES", 0)
    assert filled - kernel_estimate(VEK280, "uint8", "clb", n).phased == pytest.approx(20 * fills)


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
    assert main([*command, "--tiles", "112"]) == 0
    out, err = capsys.readouterr()
    assert "modelled" in out
    assert "in all" in out and "on all tiles of the node" in err
    assert "codegen" not in err
    assert main([*command, "--tiles", "113"]) == 0
    assert "codegen takes at most 112 tiles for a node: vek280 has ports" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: node 'attention': row length is not static. Bind the inputs' shapes"),
        (["--shape", "z=1"], "error: --shape z: is no input of the model (needs one of x)."),
        (["--shape", "x=2,13,4,4"], "error: --shape x: does not fit the input ([2, 13, 4, 4], needs [batch, 12, "),
        (
            ["--shape", "x=1,12,20000,20000"],
            "error: node 'attention': a row does not fit into a tile of vek280 (n = 20000,",
        ),
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
