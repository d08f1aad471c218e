"""Names of tensors, and how often they are used."""

from __future__ import annotations

import numpy as np
from graph.models import build

from hccs_onnx.graph.names import NameGenerator, count_uses, nested_graphs, subgraphs

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
