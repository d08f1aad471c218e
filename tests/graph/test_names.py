"""Names of tensors, and how often they are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph.models import build

from hccs_onnx import HccsError, workflow
from hccs_onnx.graph.names import NameGenerator, count_uses, made_twice, nested_graphs, subgraphs

BRANCHES = """g (float[n] x, bool flag) => (float[n] y) {
    a = Add (x, x)
    y = If (flag) <
        then_branch = p () => (float[n] u) {
            u = If (flag) <then_branch = pp () => (float[n] uu) { uu = Mul (a, w) },
                           else_branch = pq () => (float[n] uv) { uv = Neg (a) }> },
        else_branch = q () => (float[n] v) { v = Identity (x) }> }"""


def test_fresh_names_are_new_everywhere_and_differ_from_each_other() -> None:
    names = NameGenerator(build(BRANCHES, {"w": np.float32(1)}).graph)
    for taken in ("x", "flag", "y", "a", "u", "uu", "uv", "v", "w"):
        assert names.fresh(taken) == f"{taken}_1"
        assert names.fresh(taken) == f"{taken}_2"
    assert names.fresh("new") == "new"
    assert names.fresh("new") == "new_1"


def test_nested_graphs_are_listed_from_the_outside_in() -> None:
    graph = build(BRANCHES).graph
    assert [inner.name for inner in nested_graphs(graph)] == ["g", "p", "pp", "pq", "q"]
    assert [inner.name for inner in subgraphs(graph.node[1])] == ["p", "q"]
    assert subgraphs(graph.node[0]) == []


def test_uses_are_counted_in_branches_and_outputs() -> None:
    graph = build(BRANCHES).graph
    count = count_uses(graph.node, graph.output)
    assert {name: count[name] for name in ("x", "flag", "y", "a", "w", "uu", "none")} == {
        "x": 3, "flag": 2, "y": 1, "a": 2, "w": 1, "uu": 1, "none": 0,
    }  # fmt: skip


CHOICE = """g (bool c, float[n] x) => (float[n] y) {{ a = Neg (x)
    y = If (c) <then_branch = p () => (float[n] t) {{ {} t = Neg (b) }},
                else_branch = q () => (float[n] t) {{ t = Neg (a) }}> }}"""
CALL = '<domain: "f", opset_import: ["": 17]> f (x) => (y) { a = Neg (x) %s y = Neg (a) }'
NOT_SSA = {
    "two_nodes": "g (float[n] x) => (float[n] y) { a = Neg (x) a = Abs (x) y = Neg (a) }",
    "one_node": "g (float[n] x) => (float[n] y) { a, a = Split <axis = 0> (x) y = Neg (a) }",
    "input": "g (float[n] x) => (float[n] y) { x = Neg (x) y = Abs (x) }",
    "initializer": "g (float[n] x) => (float[n] y) { w = Neg (x) y = Abs (w) }",
    "body": CHOICE.format("b = Neg (x) b = Abs (x)"),
    "function": "g (float[n] x) => (float[n] y) { y = f.f (x) }",
}
SSA = {
    "plain": "g (float[n] x) => (float[n] y) { y = Neg (x) }",
    "default_of_an_input": "g (float[n] x, float[4] w) => (float[n] y) { y = Add (x, w) }",
    "branches_use_one_name": CHOICE.format("b = Neg (x)"),
    "outputs_without_names": """g (float[n] x, int64[1] k) => (float[k] y) {
        y, i = TopK (x, k) a = Neg (x) }""",
    "function": NOT_SSA["function"],
}


def model_of(text: str, body: str = "") -> onnx.ModelProto:
    model = build(text, {"w": np.zeros(4, np.float32)}, domains=', "f": 1', functions=CALL % body)
    for node in model.graph.node:
        node.output[:] = ["" if name == "i" else name for name in node.output]
    return model


@pytest.mark.parametrize("kind", NOT_SSA)
def test_tensor_that_is_made_twice_is_refused(tmp_path: Path, kind: str) -> None:
    model = model_of(NOT_SSA[kind], "a = Abs (x)" if kind == "function" else "")
    assert made_twice(model) is not None
    onnx.save(model, tmp_path / "model.onnx")
    for step in (workflow.inspect, workflow.rewrite):
        with pytest.raises(HccsError, match=r"model\.onnx: is not valid: a tensor is made more than once \('.', by "):
            step(tmp_path / "model.onnx")


@pytest.mark.parametrize("kind", SSA)
def test_tensors_that_are_made_once_each_are_not_refused(tmp_path: Path, kind: str) -> None:
    model = model_of(SSA[kind])
    assert made_twice(model) is None
    onnx.save(model, tmp_path / "model.onnx")
    assert workflow.inspect(tmp_path / "model.onnx") == []
