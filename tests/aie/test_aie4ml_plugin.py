"""The handler for HCCS nodes, in the real aie4ml."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from aie.aie4ml_oracle import structs
from aie.made_up_block import make_block
from hccs_onnx.aie import aie4ml_plugin
from hccs_onnx.aie.aie4ml_config import configuration, platform_of, split_layers
from hccs_onnx.aie.aie4ml_graph import build_graph
from hccs_onnx.aie.aie4ml_quantize import quantize
from hccs_onnx.errors import CodegenError
from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.schema import is_hccs, make_node
from hccs_onnx.params import HccsParams, HeadParams, OutputType, Reciprocal

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def aie4ml() -> Any:
    module = pytest.importorskip("aie4ml")
    aie4ml_plugin.register()
    return module


def make_model(
    output: OutputType = "uint8", reciprocal: Reciprocal = "clb", **sizes: Any
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A block of one head, and its configuration."""
    block = make_block(output=output, reciprocal=reciprocal, **sizes)
    integers, platform = quantize(block), platform_of("vek280")
    splits = split_layers("block", integers, block.rows, output, platform)
    return build_graph(block, integers, "block"), configuration(splits, platform)


def hccs_node(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if is_hccs(node))


def set_attribute(model: onnx.ModelProto, name: str, value: Any) -> None:
    attribute = next(each for each in hccs_node(model).attribute if each.name == name)
    attribute.CopyFrom(helper.make_attribute(name, value))


def set_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    present = [tensor for tensor in model.graph.initializer if tensor.name == name]
    tensor = present[0] if present else model.graph.initializer.add()
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def as_softmax(model: onnx.ModelProto) -> dict[str, Any]:
    """Put aie4ml's own form in the place of HCCS: a Softmax on floats, with LayerDirectives."""
    node = hccs_node(model)
    params = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    nodes = {output: each for each in model.graph.node for output in each.output}
    codes, zero = nodes[node.input[0]], node.input[1]
    behind = next(each for each in model.graph.node if node.output[0] in each.input)
    floats = helper.make_node("DequantizeLinear", [codes.output[0], *codes.input[1:]], ["logits_again"], name="again")
    softmax = helper.make_node("Softmax", ["logits_again"], [node.output[0]], name=node.name, axis=-1)
    back = helper.make_node("QuantizeLinear", [node.output[0], behind.input[1], zero], ["weights"], name="back")
    behind.input[0] = "weights"
    position = list(model.graph.node).index(node)
    made = [*model.graph.node[:position], floats, softmax, back, *model.graph.node[position + 1 :]]
    kept = [onnx.NodeProto.FromString(each.SerializeToString()) for each in made]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    hccs = {name: params[name][0] for name in ("B", "S", "Dmax")}
    return {"approximation": "hccs", "hccs": {**hccs, "use_clb": params["reciprocal"] == b"clb"}}


@pytest.mark.parametrize(("output", "reciprocal"), [("uint8", "clb"), ("int16", "div")])
def test_handler_gives_the_firmware_of_directives(
    output: OutputType, reciprocal: Reciprocal, aie4ml: Any, tmp_path: Path
) -> None:
    model, config = make_model(output, reciprocal)
    aie4ml.from_onnx(model, config, output_dir=tmp_path / "node", project_name="block").write()
    config["LayerDirectives"]["head0_hccs"] |= as_softmax(model)
    aie4ml.from_onnx(model, config, output_dir=tmp_path / "directives", project_name="block").write()
    files = [path.relative_to(tmp_path / "node") for path in (tmp_path / "node").rglob("*") if path.is_file()]
    assert Path("src/parameters.h") in files
    names = [str(file) for file in files if file.name != "aie_pipeline.json"]  # which names the source operator
    assert filecmp.cmpfiles(tmp_path / "node", tmp_path / "directives", names, shallow=False) == (names, [], [])


def test_handler_writes_the_attributes_into_the_parameters(aie4ml: Any, tmp_path: Path) -> None:
    model, config = make_model()
    for name, value in (("B", 700), ("S", 5), ("Dmax", 99)):
        set_attribute(model, name, [value])
    aie4ml.from_onnx(model, config, output_dir=tmp_path, project_name="block").write()
    struct = structs(tmp_path)["head0_hccs"]
    assert [struct.values(name) for name in ("B", "S", "Dmax")] == [[700], [5], [99]]


def add_mask(model: onnx.ModelProto) -> None:
    """A constant that is added to the logits."""
    set_constant(model, "mask", np.zeros(32, np.float32))
    codes = next(node for node in model.graph.node if node.output[0] == "head0_codes")
    position = list(model.graph.node).index(codes)
    codes.input[0] = "masked"
    add = helper.make_node("Add", ["head0_logits", "mask"], ["masked"], name="mask_add")
    made = [onnx.NodeProto.FromString(each.SerializeToString()) for each in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*made[:position], add, *made[position:]])


def refine_logits(model: onnx.ModelProto) -> None:
    """A scale of the logits below that of the products of queries and keys."""
    set_constant(model, "fine", np.float32(2.0**-20))
    next(node for node in model.graph.node if node.output[0] == "head0_codes").input[1] = "fine"


def read_floats(model: onnx.ModelProto) -> None:
    hccs_node(model).input[0] = "head0_logits"


def put_out_floats(model: onnx.ModelProto) -> None:
    set_constant(model, "zero_uint8", np.float32(0))


def move_to_another_domain(model: onnx.ModelProto) -> None:
    hccs_node(model).domain = "elsewhere"
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))


def drop_zero_point(model: onnx.ModelProto) -> None:
    hccs_node(model).input.pop()


def change(name: str, value: Any) -> Change:
    return lambda model: set_attribute(model, name, value)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        pytest.param(change("B", [700, 701]), "several heads", id="several-heads"),
        pytest.param(change("masked", 1), "has no mask", id="masked"),
        pytest.param(change("reciprocal", "norm"), "has no reciprocal 'norm'", id="norm"),
        pytest.param(change("B", [5000]), "row sum overflows int16", id="row-sum-too-large"),
        pytest.param(change("Dmax", [128]), "Dmax out of range", id="clip-distance-too-large"),
        pytest.param(add_mask, "added to the logits, which aie4ml would drop", id="additive-mask"),
        pytest.param(refine_logits, "quantised finer than the product", id="logits-too-fine"),
        pytest.param(read_floats, "not made by QuantizeLinear", id="float-logits"),
        pytest.param(put_out_floats, "puts out floats", id="float-output"),
        pytest.param(move_to_another_domain, "another domain", id="domain"),
        pytest.param(drop_zero_point, "y_zero_point is not an initializer", id="no-output-type"),
    ],
)
def test_handler_refuses(spoil: Change, text: str, aie4ml: Any, tmp_path: Path) -> None:
    model, config = make_model()
    spoil(model)
    with pytest.raises(CodegenError, match=text) as raised:
        aie4ml.from_onnx(model, config, output_dir=tmp_path, project_name="block")
    assert str(raised.value).startswith("node 'head0_hccs': ")
    assert not list(tmp_path.iterdir())


def test_handler_refuses_parameters_in_directives(aie4ml: Any, tmp_path: Path) -> None:
    model, config = make_model()
    config["LayerDirectives"]["head0_hccs"]["approximation"] = "exp"
    with pytest.raises(CodegenError, match="LayerDirectives too"):
        aie4ml.from_onnx(model, config, output_dir=tmp_path, project_name="block")


@pytest.mark.parametrize(
    ("scale", "zero_point", "text"),
    [(0.3, 0, "not a power of two"), (1.0, 3, "zero_point must be 0")],
)
def test_aie4ml_itself_refuses_other_quantisation(
    scale: float, zero_point: int, text: str, aie4ml: Any, tmp_path: Path
) -> None:
    model, config = make_model()
    set_constant(model, "other_scale", np.float32(scale))
    set_constant(model, "other_zero", np.int8(zero_point))
    codes = next(node for node in model.graph.node if node.output[0] == "head0_codes")
    codes.input[1], codes.input[2] = "other_scale", "other_zero"
    with pytest.raises(ValueError, match=text):
        aie4ml.from_onnx(model, config, output_dir=tmp_path, project_name="block")


def one_node(n: int, head: HeadParams) -> onnx.ModelProto:
    """HCCS on a quantised graph input, and nothing else."""
    constants = {
        "unit": np.float32(0.125), "zero": np.int8(0), "y_zero": np.uint8(0), "y_unit": np.float32(2.0**-8)
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "unit", "zero"], ["codes"], name="codes"),
        make_node(HccsParams((head,), reciprocal="div"), "codes", "y_zero", "scores", "sm"),
        helper.make_node("DequantizeLinear", ["scores", "y_unit", "y_zero"], ["y"], name="y"),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [16, n]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return helper.make_model(
        helper.make_graph(nodes, "one", ends[:1], ends[1:], tensors),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("hccs", 1)],
        functions=[function_body("uint8", "div", 17)],
        ir_version=8,
    )


def test_handler_takes_a_node_alone(aie4ml: Any, tmp_path: Path) -> None:
    config = {"Part": "xilinx_vek280_base", "AIEConfig": {"Iterations": 1}}
    aie4ml.from_onnx(one_node(24, HeadParams(900, 8, 100)), config, output_dir=tmp_path, project_name="one").write()
    struct = structs(tmp_path)["sm"]
    assert [struct.values(name) for name in ("B", "S", "Dmax")] == [[900], [8], [100]]
    assert struct.constant("COLS") == 24


def test_aie4ml_itself_refuses_rows_that_fill_no_microtiles(aie4ml: Any, tmp_path: Path) -> None:
    config = {"Part": "xilinx_vek280_base", "AIEConfig": {"Iterations": 1}}
    model = aie4ml.from_onnx(one_node(20, HeadParams(900, 8, 100)), config, output_dir=tmp_path, project_name="one")
    with pytest.raises(ValueError, match="whole number of 8-wide microtiles"):
        model.write()


def test_register_does_nothing_the_second_time(aie4ml: Any) -> None:
    aie4ml_plugin.register()


def test_register_refuses_a_foreign_handler(aie4ml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from aie4ml.frontends.onnx.registry import ONNX_HANDLERS

    monkeypatch.setitem(ONNX_HANDLERS, "HCCS", print)
    with pytest.raises(CodegenError, match="already has a handler for HCCS"):
        aie4ml_plugin.register()


def test_register_says_how_to_install_when_aie4ml_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(CodegenError, match=r"pip install 'hccs-onnx\[aie4ml\]'"):
        aie4ml_plugin.register()


def test_register_refuses_another_version(aie4ml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "0.3.0")
    with pytest.raises(CodegenError, match=r"another version \(0\.3\.0, needs 0\.2\.1\)"):
        aie4ml_plugin.register()
