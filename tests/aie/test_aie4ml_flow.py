"""What the flow aie4ml writes, and what it refuses with reason and remedy. Nothing here needs aie4ml."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DIGITS, Run
from onnx import helper

from aie.conftest import Rewrite
from aie.made_up_block import make_block
from hccs_onnx import workflow
from hccs_onnx.aie.aie4ml_block import Projection, read_blocks
from hccs_onnx.aie.aie4ml_config import check_rows, check_width, configuration, platform_of, split_layers
from hccs_onnx.aie.aie4ml_cut import find_cuts
from hccs_onnx.aie.aie4ml_export import ExportedBlock
from hccs_onnx.aie.aie4ml_flow import write_project
from hccs_onnx.aie.aie4ml_graph import build_graph
from hccs_onnx.aie.aie4ml_quantize import best_fraction, quantize
from hccs_onnx.calibration.data import Feed, Samples, input_specs
from hccs_onnx.errors import CodegenError
from hccs_onnx.operator.schema import is_hccs, read_attributes


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_project_holds_a_graph_a_head_for_every_block(
    exporter: str, paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path
) -> None:
    model = paper_digits(exporter=exporter)
    report = write_project(model, tmp_path / "aie", "vek280", data=digits_data)
    written = [node for node in onnx.load(model).graph.node if is_hccs(node)]
    assert [block.node for block in report.blocks] == [node.name for node in written]
    for block, node in zip(report.blocks, written, strict=True):
        graph = onnx.load(tmp_path / "aie" / block.folder / "model.onnx").graph
        heads = [each for each in graph.node if is_hccs(each)]
        assert [read_attributes(each).heads for each in heads] == [(head,) for head in read_attributes(node).heads]
        assert {len(info.type.tensor_type.shape.dim) for info in graph.value_info if "weight" in info.name} == {2}
        layers = json.loads((tmp_path / "aie" / block.folder / "config.json").read_text())["LayerDirectives"]
        named = {each.name for each in graph.node if each.op_type in ("MatMul", "HCCS")}
        assert set(layers) == named
        assert block.fidelity.relative_error < 0.2
        assert block.fidelity.mean_code_difference < 1
        assert block.fidelity.equal_probabilities > 0.6


def test_graph_quantises_in_powers_of_two_around_zero(
    paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path
) -> None:
    report = write_project(paper_digits(), tmp_path / "aie", "vek280", data=digits_data)
    graph = onnx.load(tmp_path / "aie" / report.blocks[0].folder / "model.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 40
    for node in pairs:
        assert len(node.input) == 3
        assert np.log2(constants[node.input[1]]) % 1 == 0
        assert constants[node.input[2]] == 0


def test_golden_output_is_what_onnxruntime_computes(
    paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path, run: Run
) -> None:
    report = write_project(paper_digits(), tmp_path / "aie", "vek280", data=digits_data)
    folder = tmp_path / "aie" / report.blocks[1].folder
    with np.load(folder / "golden.npz") as golden:
        np.testing.assert_array_equal(run(folder / "model.onnx", {"x": golden["x"]}, optimize=False)[0], golden["y"])


def test_blocks_of_a_batch_are_those_of_its_samples(
    paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path
) -> None:
    pixels = np.concatenate([feed["pixels"] for feed in digits_data[:4]])
    for name, data in (("alone", digits_data[:4]), ("batch", [{"pixels": pixels[:2]}, {"pixels": pixels[2:]}])):
        write_project(paper_digits(), tmp_path / name, "vek280", data=data)
    for block in ("alone", "batch"):
        assert len(list((tmp_path / block).glob("*/model.onnx"))) == 2
    alone, batch = (
        json.loads((tmp_path / name / "manifest.json").read_text())["blocks"] for name in ("alone", "batch")
    )
    assert [block["samples"] for block in batch] == [4, 4]
    assert [block["fractions"] for block in batch] == [block["fractions"] for block in alone]
    assert batch[0]["fidelity"]["relative_error"] == pytest.approx(alone[0]["fidelity"]["relative_error"], rel=0.05)


def test_block_may_be_the_whole_model(paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path) -> None:
    whole = onnx.load(paper_digits())
    cut = find_cuts(whole, paper_digits())[0]
    [inside] = read_blocks(whole, paper_digits(), [cut], Samples(digits_data, input_specs(whole)))
    onnx.utils.extract_model(str(paper_digits()), str(tmp_path / "block.onnx"), [cut.source], [cut.result])
    data = [{cut.source: x[None]} for x in inside.x]
    report = write_project(tmp_path / "block.onnx", tmp_path / "aie", "vek280", data=data)
    of_whole = write_project(paper_digits(), tmp_path / "whole", "vek280", data=digits_data)
    assert report.blocks[0].fidelity == of_whole.blocks[0].fidelity


def test_project_of_one_node_has_one_block(paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path) -> None:
    model = paper_digits()
    node = [node.name for node in onnx.load(model).graph.node if is_hccs(node)][1]
    report = write_project(model, tmp_path / "aie", "vek385", nodes=[node], data=digits_data)
    assert [block.node for block in report.blocks] == [node]
    manifest = json.loads((tmp_path / "aie" / "manifest.json").read_text())
    assert sorted([*manifest["files"], "manifest.json"]) == names(tmp_path / "aie")
    assert manifest["part"] == "vek385_base"
    assert manifest["outside"]["operators"]["LayerNormalization"] == 5
    assert manifest["outside"]["operators"]["HCCS"] == 1  # the other block's
    assert not manifest["assumed_unmasked"]


def test_project_is_the_same_bytes_again(paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_project(paper_digits(), tmp_path / name, "vek280", data=digits_data[:2])
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_project_replaces_its_own_folder_unless_something_was_added(
    paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path
) -> None:
    target = tmp_path / "aie"
    for _ in range(2):
        write_project(paper_digits(), target, "vek280", data=digits_data[:2])
    (target / "notes.txt").write_text("mine")
    with pytest.raises(CodegenError, match=r"did not write \(notes.txt\)"):
        write_project(paper_digits(), target, "vek280", data=digits_data[:2])
    assert (target / "notes.txt").read_text() == "mine"


def test_project_leaves_a_changed_file_alone(paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path) -> None:
    report = write_project(paper_digits(), tmp_path / "aie", "vek280", data=digits_data[:2])
    config = tmp_path / "aie" / report.blocks[0].folder / "config.json"
    config.write_text("{}")
    with pytest.raises(CodegenError, match="did not write"):
        write_project(paper_digits(), tmp_path / "aie", "vek280", data=digits_data[:2])
    assert config.read_text() == "{}"


@pytest.mark.parametrize(
    ("target", "text"), [("vck190", "cannot read keys transposed"), ("vek999", "unknown to the flow aie4ml")]
)
def test_flow_refuses_targets(target: str, text: str, paper_digits: Rewrite, tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=text):
        write_project(paper_digits(), tmp_path / "aie", target, data=[])


def test_flow_refuses_to_choose_powers_of_two_without_data(paper_digits: Rewrite, tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="Add --data"):
        write_project(paper_digits(), tmp_path / "aie", "vek280")
    assert not list(tmp_path.glob("aie*"))


def test_flow_refuses_unknown_nodes_and_inputs(paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="'nothing' is no HCCS node"):
        write_project(paper_digits(), tmp_path / "aie", "vek280", nodes=["nothing"], data=digits_data)
    with pytest.raises(CodegenError, match="names no input of the model"):
        write_project(paper_digits(), tmp_path / "aie", "vek280", shapes={"nothing": (1, 64)}, data=digits_data)


def test_flow_says_how_to_rewrite_a_model_that_is_not_rewritten(digits_data: list[Feed], tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=r"holds no HCCS node.*--profile paper"):
        write_project(DIGITS / "digits_dynamo.onnx", tmp_path / "aie", "vek280", data=digits_data)


def test_flow_refuses_float_attention(digits_data: list[Feed], tmp_path: Path) -> None:
    model = workflow.rewrite(DIGITS / "digits_dynamo.onnx", tmp_path / "float.onnx").output
    with pytest.raises(CodegenError, match="computes on floats, aie4ml on integers"):
        write_project(model, tmp_path / "aie", "vek280", data=digits_data)


def test_flow_refuses_what_the_published_kernels_do_not_have(digits_data: list[Feed], tmp_path: Path) -> None:
    original = DIGITS / "digits_dynamo.onnx"
    calibration = workflow.calibrate(original, digits_data[:4], to="uint8", granularity="global")
    model = workflow.rewrite(original, tmp_path / "norm.onnx", calibration=calibration).output
    with pytest.raises(CodegenError, match="has no reciprocal 'norm'"):
        write_project(model, tmp_path / "aie", "vek280", data=digits_data)


def spoiled(model: Path, folder: Path, nodes: Iterable[onnx.NodeProto], reader: str, old: str, new: str) -> Path:
    """The model with nodes put before the first that is called `reader`, which reads `new` where it read `old`."""
    proto = onnx.load(model)
    position = next(i for i, node in enumerate(proto.graph.node) if node.op_type == reader and old in node.input)
    target = proto.graph.node[position]
    target.input[list(target.input).index(old)] = new
    made = [onnx.NodeProto.FromString(node.SerializeToString()) for node in proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend([*made[:position], *nodes, *made[position:]])
    path = folder / "spoiled.onnx"
    onnx.save(proto, path)
    return path


def logits_of(model: Path) -> str:
    return next(node.input[0] for node in onnx.load(model).graph.node if "codes" in node.output[0])


def test_flow_refuses_an_additive_mask_unless_told(
    paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path
) -> None:
    logits = logits_of(paper_digits())
    zero = helper.make_node("Sub", [logits, logits], ["nothing"])
    add = helper.make_node("Add", [logits, "nothing"], ["masked"])
    model = spoiled(paper_digits(), tmp_path, [zero, add], "QuantizeLinear", logits, "masked")
    first = next(node.name for node in onnx.load(model).graph.node if is_hccs(node))
    with pytest.raises(CodegenError, match=r"aie4ml has no masked Softmax.*--assume-unmasked"):
        write_project(model, tmp_path / "aie", "vek280", nodes=[first], data=digits_data)
    write_project(model, tmp_path / "aie", "vek280", nodes=[first], data=digits_data, assume_unmasked=True)
    manifest = json.loads((tmp_path / "aie" / "manifest.json").read_text())
    assert manifest["assumed_unmasked"]
    assert manifest["blocks"][0]["left_out"] == ["mask, which masked nothing on the data"]


def test_flow_refuses_a_mask_that_masks_on_the_data(
    paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path
) -> None:
    logits = logits_of(paper_digits())
    mask = helper.make_node("HardSigmoid", [logits], ["bias"], alpha=0.01)
    add = helper.make_node("Add", [logits, "bias"], ["masked"])
    model = spoiled(paper_digits(), tmp_path, [mask, add], "QuantizeLinear", logits, "masked")
    with pytest.raises(CodegenError, match="logits are more than products of queries and keys"):
        write_project(model, tmp_path / "aie", "vek280", data=digits_data, assume_unmasked=True)


def test_flow_refuses_values_that_are_no_projection(
    paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path
) -> None:
    proto = onnx.load(paper_digits())
    product = next(node for node in proto.graph.node if node.name == "node_scaled_dot_product_attention")
    values = product.input[1]
    bent = helper.make_node("Abs", [values], ["bent"])
    model = spoiled(paper_digits(), tmp_path, [bent], "MatMul", values, "bent")
    with pytest.raises(CodegenError, match="not projections of one tensor"):
        write_project(model, tmp_path / "aie", "vek280", data=digits_data)


@pytest.mark.slow
def test_flow_takes_minilm_unpadded_and_refuses_it_padded(
    minilm_l3: Path, sentences: dict[str, np.ndarray], tmp_path: Path
) -> None:
    ids, mask = sentences["input_ids"], sentences["attention_mask"]
    whole = ids[mask == 1][:64].reshape(2, 1, 32)
    unpadded = [{"input_ids": each, "attention_mask": np.ones_like(each)} for each in whole]
    padded = [{"input_ids": ids[:1], "attention_mask": mask[:1]}]
    calibration = workflow.calibrate(minilm_l3, unpadded, to="uint8", reciprocal="clb", profile="paper")
    model = workflow.rewrite(minilm_l3, tmp_path / "l3.onnx", calibration=calibration).output
    with pytest.raises(CodegenError, match="positions can be masked"):
        write_project(model, tmp_path / "aie", "vek280", data=unpadded)
    with pytest.raises(CodegenError, match=r"logits are more than products.*without padding"):
        write_project(model, tmp_path / "aie", "vek280", data=padded, assume_unmasked=True)
    with pytest.raises(CodegenError, match="another length than those before"):
        longer = {name: np.tile(value, 2) for name, value in unpadded[0].items()}
        write_project(model, tmp_path / "aie", "vek280", data=[*unpadded, longer], assume_unmasked=True)
    report = write_project(model, tmp_path / "aie", "vek280", data=unpadded, assume_unmasked=True)
    assert [(block.heads, block.positions) for block in report.blocks] == [(12, 32)] * 3
    assert all(block.fidelity.relative_error < 0.4 for block in report.blocks)


@pytest.mark.parametrize("n", [16, 256])
def test_rows_are_taken(n: int) -> None:
    check_rows("block", n)


@pytest.mark.parametrize("n", [8, 100, 197, 272])
def test_rows_are_refused(n: int) -> None:
    with pytest.raises(CodegenError, match=rf"\({n}, needs a multiple of 16 up to 256\)"):
        check_rows("block", n)


@pytest.mark.parametrize(("width", "n"), [(8, 16), (40, 32), (48, 48), (96, 256)])
def test_widths_are_taken(width: int, n: int) -> None:
    check_width("block", width, n)


@pytest.mark.parametrize(("width", "n", "step"), [(50, 16, 8), (20, 32, 8), (40, 48, 16), (120, 128, 16)])
def test_widths_are_refused(width: int, n: int, step: int) -> None:
    with pytest.raises(CodegenError, match=rf"\({width}, needs a multiple of {step}\)"):
        check_width("block", width, n)
    with pytest.raises(CodegenError, match="cannot read rows of so many numbers"):
        ExportedBlock.make(make_block(n, width), "block", platform_of("vek280"))


def test_split_is_the_fewest_tiles_that_fit_the_banks() -> None:
    splits = split_layers("block", quantize(make_block(128, 384, 2, 32)), 128, "uint8", platform_of("vek280"))
    assert splits["head0_query"].length == 3  # 128 x 384 bytes of x in banks of 16 KiB
    assert splits["head1_logits"].chains == 1
    assert (splits["output"].length, splits["output"].chains) == (2, 3)


def test_split_cuts_the_input_into_parts_of_one_width() -> None:
    """Two tiles would do for 144 rows of 144, but of 80 and 64 columns."""
    splits = split_layers("block", quantize(make_block(144, 144)), 144, "uint8", platform_of("vek280"))
    assert splits["head0_query"].length == 3


def test_split_divides_rows_where_int16_fills_the_bank() -> None:
    platform = platform_of("vek280")
    splits = split_layers("block", quantize(make_block(128, 32, output="int16")), 128, "int16", platform)
    layers = configuration(splits, platform)["LayerDirectives"]
    assert layers["head0_hccs"] == {"parallelism": {"contract": "outer", "cas_num": 2}}
    assert layers["head0_context"]["parallelism"] == {"contract": "outer", "cas_num": 2, "cas_length": 1}


def test_split_refuses_what_the_array_is_too_small_for() -> None:
    block = quantize(make_block(128, 384, 12, 32))
    assert len(split_layers("block", block, 128, "uint8", platform_of("vek280"))) == 12 * 6 + 1
    with pytest.raises(CodegenError, match=r"does not fit on vek385_base \(180 tiles, needs <= 140\)"):
        split_layers("block", block, 128, "uint8", platform_of("vek385"))


def test_split_refuses_rows_that_take_too_many_chains() -> None:
    block = quantize(make_block(256, 32, output="int16"))
    with pytest.raises(CodegenError, match="the product of queries and keys does not fit"):
        split_layers("block", block, 256, "int16", platform_of("vek280"))


@pytest.mark.parametrize("zero_point", [0, -128, 127, -61, 1])
@pytest.mark.parametrize("depth", [16, 24])
def test_logit_codes_keep_scale_and_zero_point(zero_point: int, depth: int, run: Run) -> None:
    block = make_block(depth=depth, zero_point=zero_point)
    graph = build_graph(block, quantize(block), "block")
    graph.graph.output.append(helper.make_tensor_value_info("head0_codes", onnx.TensorProto.INT8, [32, 32]))
    codes = run(graph, {"x": block.x[0]})[1]
    difference = codes.astype(int) - block.codes[0, 0]
    assert np.abs(difference).max() <= 6  # of up to 255; zero point or scale left out would be off by tens
    assert abs(difference.mean()) < 0.5


def test_fraction_gives_up_an_outlier_for_the_many() -> None:
    values = np.random.default_rng(0).normal(0, 0.1, 10_000)
    assert best_fraction(values) == best_fraction(np.append(values, 0.6)) > best_fraction(np.append(values, 4.0))


def test_projection_is_by_head() -> None:
    rng = np.random.default_rng(0)
    projection = Projection(rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 2)))
    x = rng.normal(size=(5, 7, 4))
    np.testing.assert_allclose(projection(x)[2, 1], x[2] @ projection.weight[1] + projection.bias[1])
