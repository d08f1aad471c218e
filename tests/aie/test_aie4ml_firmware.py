"""Firmware that the real aie4ml writes for blocks of real models, and what its kernels compute."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import needs_ir_version_10

from aie.aie4ml_oracle import fraction, run_block, structs
from aie.conftest import Rewrite
from aie.emulation.compiling import compile_program, run_program
from aie.made_up_block import make_block
from hccs_onnx import workflow
from hccs_onnx.aie import aie4ml_export
from hccs_onnx.aie.aie4ml_block import read_blocks
from hccs_onnx.aie.aie4ml_config import platform_of
from hccs_onnx.aie.aie4ml_cut import find_cuts
from hccs_onnx.aie.aie4ml_export import ExportedBlock, WrittenBlock
from hccs_onnx.aie.aie4ml_flow import write_project
from hccs_onnx.aie.aie4ml_script import write_firmware
from hccs_onnx.calibration.data import Feed, Samples, input_specs
from hccs_onnx.errors import CodegenError

ARCH = {"vek280": 20, "vek385": 22}
PROGRAM = """// Runs HCCS kernels of an aie4ml project on its own parameters: kernels STRUCT
#include <cstring>
#include <memory>
#include <string>

#include "parameters.h"
//
#include "softmax.cpp"
#include "softmax_graph.h"

template <class Config>
class top_graph : public adf::graph {{
 public:
  top_graph() {{
    for (int i = 0; i < Config::CAS_NUM; ++i) {{
      const std::string number = std::to_string(i);
      in_[i] = adf::input_plio::create("in" + number, adf::plio_128_bits, "in" + number + ".txt");
      out_[i] = adf::output_plio::create("out" + number, adf::plio_128_bits, "out" + number + ".txt");
      adf::connect<>(in_[i].out[0], softmax_.in1[i]);
      adf::connect<>(softmax_.out1[i], out_[i].in[0]);
    }}
    softmax_.place_graph(3, 1);
  }}

 private:
  adf::input_plio in_[Config::CAS_NUM];
  adf::output_plio out_[Config::CAS_NUM];
  softmax_hccs_graph<Config> softmax_;
}};

template <class Config>
bool run(const char* name, const char* wanted) {{
  if (std::strcmp(name, wanted) != 0) return false;
  const auto graph = std::make_unique<top_graph<Config>>();
  graph->init();
  graph->run(1);
  graph->end();
  return true;
}}

int main(int, char** arguments) {{
  bool found = false;
{runs}
  return found ? 0 : 2;
}}
"""


def blocks(values: np.ndarray, outer: int, inner: int) -> np.ndarray:
    """Rows in the order of a buffer of microtiles; as they are where it has none."""
    if outer == 0:
        return values.reshape(-1)
    rows, columns = values.shape
    return values.reshape(rows // outer, outer, columns // inner, inner).swapaxes(1, 2).reshape(-1)


def check_parameters(folder: Path, block: str) -> None:
    """B, S and Dmax of every head in parameters.h, and every other constant of the kernel."""
    entry = next(
        each for each in json.loads((folder / "manifest.json").read_text())["blocks"] if each["folder"] == block
    )
    found = structs(folder / block / "firmware")
    assert len([name for name in found if name.endswith("hccs")]) == len(entry["heads"])
    for head, params in enumerate(entry["heads"]):
        struct = found[f"head{head}_hccs"]
        for name in ("B", "S", "Dmax"):
            assert set(struct.values(name)) == {params[name]}
        assert struct.constant("INV_SHIFT") == 15
        assert struct.constant("USE_CLB") == (entry["reciprocal"] == "clb")
        assert struct.constant("APPROX_EXP") == 0
        assert struct.constant("COLS") == entry["positions"]


def check_kernels(firmware: Path, samples: list[tuple[np.ndarray, np.ndarray]], folder: Path, target: str) -> None:
    """aie4ml's kernels on the parameters of this firmware, in emulation: codes and what HCCS makes of them, by head."""
    found = structs(firmware)
    scores = [found[f"head{head}_hccs"] for head in range(len(samples[0][0]))]
    source = folder / "kernels.cpp"
    source.write_text(
        PROGRAM.format(runs="\n".join(f'  found = found || run<{s.name}>("{s.name}", arguments[1]);' for s in scores))
    )
    includes = [firmware / "src", firmware / "src" / "kernels" / "softmax"]
    flags = [part for include in includes for part in ("-iquote", include)]
    program = compile_program(source, folder / "kernels", ARCH[target], "-w", *flags)
    cases = [case for by_head in samples for case in zip(scores, *by_head, strict=True)]
    for struct, codes, expected in cases:
        microtile = struct.constant("MICROTILE_OUTER"), struct.constant("MICROTILE_INNER")
        count = struct.constant("CAS_NUM")
        for index, part in enumerate(np.split(codes, count)):
            np.savetxt(folder / f"in{index}.txt", blocks(part, *microtile).reshape(-1, 16), fmt="%d")
        run_program(program, struct.name, folder=folder)
        for index, part in enumerate(np.split(expected, count)):
            y = np.loadtxt(folder / "x86simulator_output" / f"out{index}.txt", dtype=np.int64).reshape(-1)
            np.testing.assert_array_equal(y, blocks(part, *microtile))


def check_arithmetic(folder: Path, golden: dict[str, np.ndarray]) -> None:
    """The block's golden integers, by the weights of the graph and the shifts of the firmware."""
    graph, firmware = onnx.load(folder / "model.onnx"), folder / "firmware"
    x = np.clip(np.rint(np.ldexp(golden["x"].astype(np.float64), fraction(graph, "x_codes"))), -128, 127)
    integers = run_block(graph, firmware, x.astype(np.int64))
    for head, (codes, y) in enumerate(zip(golden["codes"], golden["hccs"], strict=True)):
        np.testing.assert_array_equal(integers[f"head{head}_codes"], codes)
        np.testing.assert_array_equal(integers[f"head{head}_hccs"], y)
    y_codes = np.ldexp(golden["y"].astype(np.float64), fraction(graph, "output_sum_codes"))
    np.testing.assert_array_equal(integers["y"], y_codes)


def check_weights(folder: Path) -> None:
    """The firmware holds weights and biases of the graph, in an order of its own, filled up with zeros."""
    arrays = 0
    for tensor in onnx.load(folder / "model.onnx").graph.initializer:
        named = re.fullmatch(r"(\w+)_(weight|bias)_codes", tensor.name)
        if named is None:
            continue
        name = f"{ {'weight': 'weights', 'bias': 'bias'}[named[2]] }_{named[1]}_aie"
        text = (folder / "firmware" / "src" / "weights" / f"{name}.h").read_text()
        bodies = re.findall(rf"int\d+_t {name}\w*\[\d+\] = \{{(.*?)\}};", text, re.DOTALL)
        stored = np.array([int(value) for body in bodies for value in body.split(",") if value.strip()])
        values = onnx.numpy_helper.to_array(tensor)
        np.testing.assert_array_equal(np.sort(stored[stored != 0]), np.sort(values[values != 0]))
        arrays += 1
    assert arrays % 2 == 0 and arrays >= 8


def check_block(project: Path, written: WrittenBlock, model: Path, feed: Feed, scratch: Path, target: str) -> None:
    """The firmware of a block of `model`, in every respect."""
    folder = project / written.folder
    with np.load(folder / "golden.npz") as archive:
        golden = dict(archive)
    check_parameters(project, written.folder)
    check_weights(folder)
    check_arithmetic(folder, golden)
    proto = onnx.load(model)
    [block] = read_blocks(proto, model, find_cuts(proto, model, [written.node]), Samples([feed], input_specs(proto)))
    in_model = (block.codes[0], block.probabilities[0])  # of the rewritten model itself, computed by its own HCCS node
    check_kernels(folder / "firmware", [(golden["codes"], golden["hccs"]), in_model], scratch, target)


@pytest.mark.parametrize(
    ("output", "reciprocal", "target", "blocks"),
    [
        ("uint8", "clb", "vek280", 1),
        pytest.param("int16", "div", "vek385", 2, marks=pytest.mark.slow),
        pytest.param("uint8", "div", "vek385", 2, marks=pytest.mark.slow),
        pytest.param("int16", "clb", "vek280", 2, marks=pytest.mark.slow),
    ],
)
def test_firmware_of_digits_computes_the_block(
    output: str,
    reciprocal: str,
    target: str,
    blocks: int,
    paper_digits: Rewrite,
    digits_data: list[dict[str, np.ndarray]],
    tmp_path: Path,
) -> None:
    pytest.importorskip("aie4ml")
    if output == "int16":
        needs_ir_version_10()
    model = paper_digits(output, reciprocal)
    report = write_project(model, tmp_path / "project", target, data=digits_data)
    assert [block.heads for block in report.blocks] == [4, 4]
    for block in report.blocks[:blocks]:
        write_firmware(report.folder / block.folder)
        check_block(report.folder, block, model, digits_data[0], tmp_path, target)


@pytest.mark.slow
@pytest.mark.parametrize(("output", "reciprocal"), [("uint8", "clb"), ("int16", "div")])
def test_firmware_of_minilm_computes_the_block(
    output: str, reciprocal: str, minilm_l6: Path, sentences: dict[str, np.ndarray], tmp_path: Path
) -> None:
    pytest.importorskip("aie4ml")
    if output == "int16":
        needs_ir_version_10()
    length = 128 if output == "uint8" else 64
    tokens = sentences["input_ids"][sentences["attention_mask"] == 1]
    ids = tokens[: len(tokens) // length * length].reshape(-1, 1, length)
    data = [
        {"input_ids": each, "attention_mask": np.ones_like(each), "token_type_ids": np.zeros_like(each)} for each in ids
    ]
    calibration = workflow.calibrate(minilm_l6, data, to=output, reciprocal=reciprocal, profile="paper")  # type: ignore[arg-type]
    model = workflow.rewrite(minilm_l6, tmp_path / "minilm.onnx", calibration=calibration).output
    report = write_project(model, tmp_path / "project", "vek280", data=data, assume_unmasked=True)
    assert [(block.heads, block.positions) for block in report.blocks] == [(12, length)] * 6
    block = report.blocks[3]
    write_firmware(report.folder / block.folder)
    check_block(report.folder, block, model, data[0], tmp_path, "vek280")


@pytest.mark.parametrize(("width", "n", "takes"), [(8, 16, True), (24, 32, True), (20, 32, False), (40, 48, False)])
def test_widths_are_refused_where_aie4ml_refuses_them(
    width: int, n: int, takes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aie4ml")
    block = make_block(n, width)
    with nullcontext() if takes else pytest.raises(CodegenError, match="rows of so many numbers"):
        ExportedBlock.make(block, "block", platform_of("vek280"))
    monkeypatch.setattr(aie4ml_export, "check_width", lambda *_: None)
    for name, content in ExportedBlock.make(block, "block", platform_of("vek280")).files().items():
        (tmp_path / "block").mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with nullcontext() if takes else pytest.raises(Exception, match="BDs from a memory tile"):
        write_firmware(tmp_path / "block")
    assert (tmp_path / "block" / "firmware" / "Makefile").is_file() == takes


def test_firmware_is_written_where_the_input_is_cut_for_several_tiles(tmp_path: Path) -> None:
    pytest.importorskip("aie4ml")
    exported = ExportedBlock.make(make_block(256, 80), "block", platform_of("vek280"))
    assert exported.splits["head0_query"].length == 5
    (tmp_path / "block").mkdir()
    for name, content in exported.files().items():
        (tmp_path / name).write_bytes(content)
    assert (write_firmware(tmp_path / "block") / "Makefile").is_file()


def test_script_writes_the_firmware_of_the_blocks_named(
    paper_digits: Rewrite, digits_data: list[dict[str, np.ndarray]], tmp_path: Path
) -> None:
    pytest.importorskip("aie4ml")
    report = write_project(paper_digits(), tmp_path / "project", "vek385", data=digits_data[:2])
    wanted, other = (report.folder / block.folder for block in report.blocks)
    command = [sys.executable, report.folder / "write_firmware.py", wanted.name]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (wanted / "firmware" / "Makefile").is_file()
    assert any((wanted / "firmware" / "data").iterdir())
    assert not (other / "firmware").exists()
