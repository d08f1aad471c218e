"""Operators that are not taken apart are listed with the reason, whatever the node is like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from onnx import TensorProto, helper

from hccs_onnx import inspect, rewrite
from hccs_onnx.errors import MatchError, ModelError
from hccs_onnx.graph.fused import FAMILIES, LEFT_WHOLE
from hccs_onnx.graph.scopes import describe

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


def in_a_branch(inner: onnx.NodeProto) -> onnx.ModelProto:
    """A model whose If has the node in one branch, and nothing in the other."""
    outer = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([inner], "branch", [], [outer])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "other", [], [outer])
    return model([helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other)])


def test_operator_in_a_body_is_taken_apart_and_rewritten(tmp_path: Path, run: Run) -> None:
    inner = helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["z"], "inner", domain=RUNTIME, num_heads=2)
    onnx.save(in_a_branch(inner), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert (item.reason, item.heads, describe(item.place)) == (None, 2, "then_branch of If 'y'")
    rewritten = rewrite(tmp_path / "m.onnx").output
    x = np.random.default_rng(0).normal(0, 0.5, (2, 5, 8)).astype(np.float32)
    for flag in (True, False):
        feed = {"x": x, "c": np.array(flag)}
        before, after = run(tmp_path / "m.onnx", feed)[0], run(rewritten, feed)[0]
        assert (before * after).sum() > 0.95 * np.linalg.norm(before) * np.linalg.norm(after)
        assert np.array_equal(after, before) == (not flag)


def test_operator_in_a_body_stays_whole_when_it_is_excluded(tmp_path: Path) -> None:
    inner = helper.make_node("MultiHeadAttention", ["x", "x", "x"], ["z"], "inner", domain=RUNTIME, num_heads=2)
    proto = in_a_branch(inner)
    proto.graph.node.append(helper.make_node("MultiHeadAttention", ["x"] * 3, ["w"], domain=RUNTIME, num_heads=2))
    proto.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, ["batch", "n", 8]))
    onnx.save(proto, tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx", exclude="inner")
    assert [(item.node, item.reason) for item in report.found if item.reason] == [
        ("inner", "is excluded by 'inner'"),
    ]
    assert len(report.rewritten) == 1
    bodies = {attribute.name: attribute.g for attribute in onnx.load(report.output).graph.node[0].attribute}
    assert [(node.name, node.op_type) for node in bodies["then_branch"].node] == [("inner", "MultiHeadAttention")]


def test_operator_in_a_body_is_listed_with_the_reason_when_it_cannot_be_taken_apart(tmp_path: Path) -> None:
    inner = helper.make_node("PackedAttention", ["x", "x", "x"], ["z"], "inner", domain=RUNTIME, num_heads=2)
    onnx.save(in_a_branch(inner), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    why = LEFT_WHOLE[RUNTIME, "PackedAttention"]
    assert item.reason == f"is com.microsoft.PackedAttention, which hides its Softmax: {why}"
