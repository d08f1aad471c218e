"""Everything that is not attention's Softmax survives a rewrite, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from graph.models import Attention, build, copied, name_of, names, nodes, op_types
from onnx import TensorProto, helper, numpy_helper

from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.rewrite import rewrite_graph
from hccs_onnx.params import DATA_FREE, HccsParams

HAS_NODE_METADATA = "metadata_props" in onnx.NodeProto.DESCRIPTOR.fields_by_name
needs_node_metadata = pytest.mark.skipif(not HAS_NODE_METADATA, reason="onnx is older than IR version 10")


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    result = copied(model)
    found = find_attention(result)
    params = {item.logits: HccsParams((DATA_FREE,), masked=item.masked) for item in found if item.reason is None}
    assert params
    rewrite_graph(result, found, params, {"calibration": "data-free"})
    return result


def entry(key: str, value: str) -> onnx.StringStringEntryProto:
    return onnx.StringStringEntryProto(key=key, value=value)


def serialized(field: Any) -> list[bytes]:
    """Each entry of a repeated field as bytes."""
    return [item.SerializeToString(deterministic=True) for item in field]


def header(model: onnx.ModelProto) -> bytes:
    """A model without what a rewrite changes."""
    copy = copied(model)
    for field in ("graph", "functions", "opset_import", "metadata_props"):
        copy.ClearField(field)
    return copy.SerializeToString(deterministic=True)


def without_lists(graph: onnx.GraphProto) -> bytes:
    """A graph without what a rewrite changes."""
    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    for field in ("node", "initializer", "value_info", "quantization_annotation"):
        copy.ClearField(field)
    return copy.SerializeToString(deterministic=True)


def quantized(name: str) -> onnx.TensorAnnotation:
    return onnx.TensorAnnotation(
        tensor_name=name, quant_parameter_tensor_names=[entry("SCALE_TENSOR", "w_q"), entry("ZERO_POINT_TENSOR", "w_k")]
    )


def decorated(variant: Attention) -> onnx.ModelProto:
    """A model with something in every field."""
    model = variant.model()
    model.producer_name, model.producer_version, model.domain = "maker", "9.9", "com.example"
    model.model_version, model.doc_string = 42, "what it is\nand why"
    model.metadata_props.extend([entry("author", "someone"), entry("", "no key"), entry("author", "again")])
    model.opset_import.insert(0, helper.make_opsetid("ai.onnx.ml", 3))
    model.opset_import.append(helper.make_opsetid("custom", 7))
    graph = model.graph
    graph.doc_string = "a graph"
    for index, node in enumerate(graph.node):
        node.doc_string = f"from line {index}"
    # Last, because onnx 1.16 infers no shapes behind an operator that it does not know.
    graph.node.append(helper.make_node("Engine", ["x"], ["e"], name="engine", domain="custom", text="ü", list=[1, 2]))
    graph.node.append(helper.make_node("Neg", ["e"], ["dead"], name="leads nowhere"))
    graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unused"))
    graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.0, 2.0]))
    graph.initializer[0].doc_string = "weights"
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("sparse_indices", TensorProto.INT64, [1], [3])
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 4]))
    for name in ("q_flat", "raw", "context", "e"):
        graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None, "seen"))
    graph.quantization_annotation.extend([quantized("w_out"), quantized("context"), quantized("x")])
    model.training_info.add().algorithm.name = "training"
    return model


KEPT = [
    Attention(scale=None),
    Attention(scale="computed", mask="input", opset=12),
    Attention(mask="bias", length=4, opset=20, ir_version=9),
]


@pytest.mark.parametrize("variant", KEPT, ids=name_of)
def test_model_and_graph_fields_survive(variant: Attention) -> None:
    original = decorated(variant)
    result = rewritten(original)
    assert header(result) == header(original)
    assert without_lists(result.graph) == without_lists(original.graph)
    assert serialized(result.opset_import)[:-1] == serialized(original.opset_import)
    assert (result.opset_import[-1].domain, result.opset_import[-1].version) == ("hccs", 1)
    count = len(original.metadata_props)
    assert serialized(result.metadata_props)[:count] == serialized(original.metadata_props)
    assert all(item.key.startswith("hccs_onnx.") for item in result.metadata_props[count:])


@pytest.mark.parametrize("variant", KEPT, ids=name_of)
def test_nodes_other_than_softmax_survive_in_order(variant: Attention) -> None:
    original = decorated(variant)
    result = rewritten(original)
    position = op_types(original).index("Softmax")
    before, after = serialized(original.graph.node), serialized(result.graph.node)
    assert len(before) == len(after)
    assert before[:position] == after[:position]
    assert before[position + 1 :] == after[position + 1 :]
    softmax, hccs = original.graph.node[position], result.graph.node[position]
    assert (hccs.op_type, hccs.domain) == ("HCCS", "hccs")
    assert (hccs.name, hccs.doc_string, hccs.input[0], list(hccs.output)) == (
        softmax.name, softmax.doc_string, softmax.input[0], list(softmax.output),
    )  # fmt: skip


@pytest.mark.parametrize("variant", KEPT, ids=name_of)
@pytest.mark.parametrize("field", ["initializer", "value_info", "quantization_annotation"])
def test_initializers_and_descriptions_survive_in_order(variant: Attention, field: str) -> None:
    original = decorated(variant)
    result = rewritten(original)
    before, after = (serialized(getattr(model.graph, field)) for model in (original, result))
    assert after[: len(before)] == before
    added = names(result.graph.initializer)[len(before) :] if field == "initializer" else []
    assert added == (["hccs_y_zero_point"] if field == "initializer" else [])
    assert len(after) == len(before) + len(added)


def test_nodes_survive_in_order_when_scale_and_guard_are_dropped() -> None:
    original = decorated(Attention(scale="query_key", guard=True, mask="where"))
    result = rewritten(original)
    dropped = {"Mul_q", "Mul_k", "IsNaN_is_nan", "Where_guarded"}
    renamed = {"q": "q_unscaled", "k": "k_unscaled"}
    kept = [node for node in original.graph.node if node.name not in dropped]
    assert names(kept) == names(result.graph.node)
    for before, after in zip(kept, result.graph.node, strict=True):
        if before.op_type == "Softmax":
            assert (after.output[0], after.doc_string) == ("guarded", before.doc_string)
            continue
        expected = onnx.NodeProto()
        expected.CopyFrom(before)
        if before.output[0] == "raw":
            expected.input[:] = [renamed[name] for name in before.input]
        assert after.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    weights = [tensor for tensor in original.graph.initializer if tensor.name not in ("factor", "nan_fill")]
    assert serialized(result.graph.initializer)[:-1] == serialized(weights)


def test_descriptions_of_dropped_tensors_go_and_others_stay() -> None:
    original = Attention(scale="mul", guard=True, mask="where").model()
    for name in ("raw", "scaled", "logits", "probabilities", "is_nan", "guarded", "context"):
        kind = TensorProto.BOOL if name == "is_nan" else TensorProto.FLOAT
        original.graph.value_info.append(helper.make_tensor_value_info(name, kind, None))
        original.graph.quantization_annotation.append(quantized(name))
    original.graph.quantization_annotation.append(quantized("factor"))
    result = rewritten(original)
    present = {name for node in result.graph.node for name in node.output}
    assert {"raw", "guarded", "context"} <= present
    assert not {"scaled", "probabilities", "is_nan"} & present
    described = [value.name for value in original.graph.value_info if value.name in present]
    assert names(result.graph.value_info) == described
    assert [item.tensor_name for item in result.graph.quantization_annotation] == described


@pytest.mark.parametrize("field", ["value_info", "quantization_annotation"])
def test_descriptions_of_tensors_that_the_graph_does_not_make_survive(field: str) -> None:
    # Tensors inside functions ("domain::function/tensor", IR version 10) and sparse initializers.
    original = decorated(Attention())
    stray = "local::block/inner" if field == "value_info" else "sparse"
    if field == "value_info":
        original.graph.value_info.append(helper.make_tensor_value_info(stray, TensorProto.FLOAT, [2]))
    else:
        original.graph.quantization_annotation.append(quantized(stray))
    result = rewritten(original)
    entries = getattr(result.graph, field)
    assert stray in {item.name if field == "value_info" else item.tensor_name for item in entries}


@needs_node_metadata
def test_metadata_of_nodes_graph_values_and_tensors_survives() -> None:
    original = Attention(scale="query", guard=True, ir_version=10, opset=20).model()
    for node in original.graph.node:
        node.metadata_props.append(entry("pkg.torch.onnx.name_scopes", node.name))
    original.graph.metadata_props.append(entry("graph", "kept"))
    original.graph.input[0].metadata_props.append(entry("input", "kept"))
    original.graph.output[0].metadata_props.append(entry("output", "kept"))
    original.graph.initializer[0].metadata_props.append(entry("weight", "kept"))
    result = rewritten(original)
    assert result.ir_version == 10
    for node in result.graph.node:
        assert [(item.key, item.value) for item in node.metadata_props] == [("pkg.torch.onnx.name_scopes", node.name)]
    before, after = original.graph, result.graph
    assert serialized(after.metadata_props) == serialized(before.metadata_props)
    for field in ("input", "output"):
        assert serialized(getattr(after, field)) == serialized(getattr(before, field))
    assert after.initializer[0] == before.initializer[0]


@needs_node_metadata
def test_metadata_of_a_half_precision_softmax_goes_to_all_that_replaces_it() -> None:
    original = Attention(dtype="float16", ir_version=10, opset=20).model()
    nodes(original, "Softmax")[0].metadata_props.append(entry("scope", "attention"))
    nodes(original, "Softmax")[0].doc_string = "here"
    result = rewritten(original)
    for node in (*nodes(result, "HCCS"), *nodes(result, "Cast")):
        assert ([item.value for item in node.metadata_props], node.doc_string) == (["attention"], "here")


def test_other_functions_and_their_calls_survive() -> None:
    original = decorated(Attention())
    function = build(
        "g (float[n] a) => (float[n] b) { b = local.twice (a) }",
        domains=', "local": 1',
        functions='<domain: "local", opset_import: ["": 17]> twice (a) => (b) { b = Add (a, a) }',
    ).functions[0]
    function.doc_string = "twice as much"
    original.functions.append(function)
    original.opset_import.append(helper.make_opsetid("local", 1))
    original.graph.node.append(helper.make_node("twice", ["y"], ["z"], name="call", domain="local"))
    result = rewritten(original)
    assert serialized(result.functions)[:-1] == serialized(original.functions)
    assert result.functions[-1].name == "HCCS"
    assert result.graph.node[-1] == original.graph.node[-1]


def test_subgraphs_survive_except_for_renamed_tensors() -> None:
    original = Attention(scale="query", mask="where").model()
    branch = build(
        """g (bool flag) => (y) { b = If (flag) <
        then_branch = p () => (float[m] t) { t = Tanh (q_unscaled) },
        else_branch = q () => (float[m] e) { e = Identity (joined) }> }"""
    )
    original.graph.node.append(branch.graph.node[0])
    original.graph.input.append(branch.graph.input[0])
    result = rewritten(original)
    assert "Mul_q" not in names(result.graph.node)
    assert result.graph.node[-1] == original.graph.node[-1]


def unknown_field(message: Any) -> Any:
    """The message with a field of a later ONNX version."""
    return type(message).FromString(message.SerializeToString() + b"\xf8\x3f\x01")


@pytest.mark.parametrize("place", ["model", "node", "initializer", "input"])
def test_fields_of_later_onnx_versions_survive(place: str) -> None:
    original = Attention().model()
    if place == "model":
        original = unknown_field(original)
    else:
        field = getattr(original.graph, place)
        changed = [unknown_field(item) if index == 0 else item for index, item in enumerate(field)]
        del field[:]
        field.extend(changed)
    pick: Callable[[onnx.ModelProto], bytes] = {
        "model": header,
        "node": lambda model: serialized(model.graph.node)[0],
        "initializer": lambda model: serialized(model.graph.initializer)[0],
        "input": lambda model: serialized(model.graph.input)[0],
    }[place]
    assert b"\xf8\x3f\x01" in pick(original)
    assert pick(rewritten(original)) == pick(original)


def test_names_of_inputs_and_outputs_survive_also_where_they_are_probabilities() -> None:
    original = Attention(mask="where").model()
    original.graph.output.insert(
        0, helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["b", "h", "n", 5])
    )
    result = rewritten(original)
    assert serialized(result.graph.output) == serialized(original.graph.output)
    assert serialized(result.graph.input) == serialized(original.graph.input)
    assert list(nodes(result, "HCCS")[0].output) == ["probabilities"]
