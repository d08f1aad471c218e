"""Graphs of many nodes, in every shape that could be walked too deep or too often, and graphs that are none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from conftest import ROOT, Run
from graph.models import Attention, names, nodes
from onnx import helper

from hccs_onnx import workflow
from hccs_onnx.errors import ModelError

MANY = 100_000
PATIENCE = 300.0  # seconds for what takes 30 on an idle machine; anything that is not linear takes hours

Nodes = list[onnx.NodeProto]


def chain(count: int, first: str, last: str) -> Nodes:
    tensors = [first, *(f"c{index}" for index in range(1, count)), last]
    return [helper.make_node("Neg", [tensors[index]], [tensors[index + 1]], f"n{index}") for index in range(count)]


def fan(count: int, first: str, last: str) -> Nodes:
    made = [helper.make_node("Neg", [first], [f"c{index}"], f"n{index}") for index in range(count - 1)]
    return [*made, helper.make_node("Sum", names_made(made), [last], "sum")]


def ladder(count: int, first: str, last: str) -> Nodes:
    """Twice as many ways through it with each node."""
    tensors = [first, *(f"c{index}" for index in range(1, count)), last]
    return [helper.make_node("Add", [tensors[index]] * 2, [tensors[index + 1]], f"n{index}") for index in range(count)]


def names_made(made: Nodes) -> list[str]:
    return [name for node in made for name in node.output]


SHAPES = {"chain": chain, "fan": fan, "ladder": ladder}


def large(shape: str, place: str, count: int) -> onnx.ModelProto:
    """An attention with many nodes behind it, or between its product and its Softmax."""
    model = Attention(scale=None).model()
    graph = model.graph
    name = {"behind": "y", "logits": "logits"}[place]
    maker = next(index for index, node in enumerate(graph.node) if name in node.output)
    graph.node[maker].output[0] = "before"
    following = [*graph.node[: maker + 1], *SHAPES[shape](count, "before", name), *graph.node[maker + 1 :]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in following]
    del graph.node[:]
    graph.node.extend(copies)
    return model


STEPS = """
import sys
from hccs_onnx import HccsError, inspect, rewrite
print(len([item for item in inspect(sys.argv[1]) if item.reason is None]))
try:
    print(len(rewrite(sys.argv[1], sys.argv[2]).rewritten))
except HccsError as error:
    print(error)
"""


def steps(folder: Path, model: onnx.ModelProto) -> list[str]:
    """What inspect and rewrite say, in a process that is not waited for without end."""
    source = folder / "model.onnx"
    source.write_bytes(model.SerializeToString())
    command = [sys.executable, "-c", STEPS, str(source), str(folder / "new.onnx")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("count", [3000, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_rewritten_when_many_nodes_follow(tmp_path: Path, shape: str, count: int) -> None:
    model = large(shape, "behind", count)
    assert steps(tmp_path, model) == ["1", "1"]
    written = onnx.load(tmp_path / "new.onnx")
    assert len(nodes(written, "HCCS")) == 1
    assert {f"n{index}" for index in range(count - 1)} <= set(names(written.graph.node))


@pytest.mark.parametrize("count", [3000, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax_is_left_when_many_nodes_lie_between_product_and_it(tmp_path: Path, shape: str, count: int) -> None:
    found, refusal = steps(tmp_path, large(shape, "logits", count))
    assert found == "0"
    assert "holds no attention (1 Softmax left alone" in refusal


@pytest.mark.parametrize("length", [1, 2, 50, 3000])
@pytest.mark.parametrize("place", ["behind", "logits"])
def test_cycle_is_no_hang(tmp_path: Path, place: str, length: int) -> None:
    model = large("chain", place, length)
    first = next(node for node in model.graph.node if node.name == "n0")
    last = next(node for node in model.graph.node if node.name == f"n{length - 1}")
    first.op_type, first.input[:] = "Add", ["before", last.output[0]]
    found, said = steps(tmp_path, model)
    assert found in ("0", "1")
    assert said == "1" or "holds no attention" in said
    assert place == "logits" or said == "1"


ODD = ["a\nb", "a\0b", "../../a", "/", "\\", " ", "\u202ea", "\x1b[2J", "é", "a" * 5000, "%s{0}", "'\""]


@pytest.mark.parametrize("odd", ODD)
def test_attention_is_rewritten_whatever_its_names(tmp_path: Path, run: Run, odd: str) -> None:
    variant = Attention(mask="where", scale="mul", guard=True)
    model = variant.model()
    inner = {name for node in model.graph.node for name in node.output} - {"y"}
    renamed = {name: odd + name for name in inner | {tensor.name for tensor in model.graph.initializer}}
    for node in model.graph.node:
        node.name = odd + node.name
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = renamed[tensor.name]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "plain.onnx").write_bytes(variant.model().SerializeToString())
    (item,) = workflow.inspect(tmp_path / "model.onnx")
    assert item.node == " ".join(item.node.split())
    feed = variant.feed()
    expected = run(workflow.rewrite(tmp_path / "plain.onnx").output, feed)[0]
    assert (run(workflow.rewrite(tmp_path / "model.onnx").output, feed)[0] == expected).all()
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.onnx", "plain.onnx", "model.hccs.onnx", "plain.hccs.onnx"
    }  # fmt: skip


def test_functions_that_call_each_other_without_end_are_refused(tmp_path: Path) -> None:
    model = large("chain", "behind", 3)
    for name, other in (("one", "two"), ("two", "one")):
        function = model.functions.add(name=name, domain="f", input=["a"], output=["b"])
        function.node.append(helper.make_node(other, ["a"], ["b"], domain="f"))
        function.opset_import.extend([helper.make_opsetid("f", 1), helper.make_opsetid("", 17)])
    model.opset_import.append(helper.make_opsetid("f", 1))
    node = next(node for node in model.graph.node if node.name == "n1")
    node.op_type, node.domain = "one", "f"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="calls itself"):
        workflow.inspect(tmp_path / "model.onnx")


def test_deep_branches_are_rewritten_or_refused(tmp_path: Path) -> None:
    model = large("chain", "behind", 2)
    node = next(node for node in model.graph.node if node.name == "n0")
    for _ in range(20):
        graph = onnx.GraphProto(name="g")
        graph.node.add().CopyFrom(node)
        graph.output.add(name=node.output[0])
        outer = helper.make_node("If", ["x"], list(node.output), then_branch=graph, else_branch=onnx.GraphProto())
        node.CopyFrom(outer)
    try:
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        assert len(workflow.rewrite(tmp_path / "model.onnx").rewritten) == 1
    except ModelError as error:
        assert "model.onnx" in str(error)
