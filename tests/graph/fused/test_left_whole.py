"""Operators that are not taken apart are listed with the reason, whatever the node is like."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from hccs_onnx import inspect, rewrite
from hccs_onnx.errors import MatchError, ModelError
from hccs_onnx.graph.fused import FAMILIES, LEFT_WHOLE

RUNTIME = "com.microsoft"


def model(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("x", TensorProto.FLOAT, ["batch", "n", 8]), tensor("c", TensorProto.BOOL, [])],
        [tensor("y", TensorProto.FLOAT, ["batch", "n", 8])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(RUNTIME, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("op_type", [op for domain, op in LEFT_WHOLE if domain == RUNTIME])
def test_operator_that_is_not_taken_apart_is_listed_with_the_reason(tmp_path: Path, op_type: str) -> None:
    onnx.save(model([helper.make_node(op_type, ["x"], ["y"], name="fused", domain=RUNTIME)]), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert (item.node, item.attention_like) == ("fused", True)
    why = LEFT_WHOLE[RUNTIME, op_type]
    assert item.reason == f"is com.microsoft.{op_type}, which hides its Softmax: {why}"
    with pytest.raises(ModelError, match="holds no attention"):
        rewrite(tmp_path / "m.onnx")
    with pytest.raises((MatchError, ModelError)):
        rewrite(tmp_path / "m.onnx", strict=True)


@pytest.mark.parametrize("op_type", [op for domain, op in FAMILIES if domain == RUNTIME])
@pytest.mark.parametrize("inputs", [[], ["x"], ["x", "x", "x"], ["", "", "", "", "", "", "", "", "", "x"]])
@pytest.mark.parametrize(
    "attributes", [{}, {"num_heads": 2, "kv_num_heads": 0}, {"num_heads": "two"}, {"num_heads": 2.0}, {"num_heads": 3}]
)
def test_malformed_node_is_taken_apart_listed_or_refused_with_an_error_of_ours(
    tmp_path: Path, op_type: str, inputs: list[str], attributes: dict[str, object]
) -> None:
    node = helper.make_node(op_type, inputs, ["y"], name="fused", domain=RUNTIME, **attributes)
    onnx.save(model([node]), tmp_path / "m.onnx")
    try:
        (item,) = inspect(tmp_path / "m.onnx")
    except ModelError as error:
        assert "fused" in str(error) or "graph" in str(error)
    else:
        assert item.reason is None or "fused" in item.node


def test_operator_in_a_subgraph_is_listed_with_the_reason(tmp_path: Path) -> None:
    outer = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    inner = helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["z"], "inner", domain=RUNTIME, num_heads=2)
    branch = helper.make_graph([inner], "branch", [], [outer])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "other", [], [outer])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other)
    onnx.save(model([node]), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert item.reason == (
        "is com.microsoft.MultiHeadAttention, which hides its Softmax: it lies in a subgraph or function"
    )
