"""Nodes that hand logits or probabilities on: Identity, Dropout in inference, float Cast, Reshape that keeps rows."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.sizes import keeps_rows
from hccs_onnx.graph.view import GraphView

_FLOATS = ("float16", "bfloat16", "float32", "float64")


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step without any effect on the rows, or nothing."""
    return [Step(view.index(node), node.inputs[0].name, reshapes=node.op == "Reshape")] if hands_on(view, node) else []


def hands_on(view: GraphView, node: gs.Node) -> bool:
    """Whether the node's first output is its first input, row for row."""
    if node.op == "Identity":
        return True
    if node.op == "Dropout":
        return not _trains(view, node)
    if node.op == "Cast":
        return view.dtype(node.inputs[0].name) in _FLOATS and view.dtype(node.outputs[0].name) in _FLOATS
    if node.op == "Reshape":
        before, after = view.dims(node.inputs[0].name), view.dims(node.outputs[0].name)
        if before and after and before[-1] is not None and before[-1] == after[-1]:
            return True
        return keeps_rows(view, node)
    return False


def _trains(view: GraphView, node: gs.Node) -> bool:
    if len(node.inputs) < 3 or node.inputs[2].name == "":
        return False
    return view.scalar(node.inputs[2].name) != 0.0
