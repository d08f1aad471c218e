"""The scale 1/sqrt(d): Mul or Div of the logits by one number, or by one for each row or head."""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.view import GraphView


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step with the factor, where it is a positive constant; without, where rows are scaled by other numbers."""
    if node.op not in ("Mul", "Div"):
        return []
    names = [tensor.name for tensor in node.inputs]
    for data, number in (names, names[::-1]) if node.op == "Mul" else (names,):
        factor = constant_factor(view, node, data, number)
        if factor is not None:
            return [Step(view.index(node), data, factor=factor)]
    for data, number in (names, names[::-1]) if node.op == "Mul" else (names,):
        dims = view.dims(number)
        if dims is not None and dims[-1:] in ((), (1,)):
            return [Step(view.index(node), data)]
    return []


def constant_factor(view: GraphView, node: gs.Node, data: str, number: str) -> float | None:
    """Factor of a Mul or Div of `data` by the constant `number`; None unless it is fixed, positive and finite."""
    value = view.scalar(number)
    if value is None or view.may_be_fed(number) or not (math.isfinite(value) and value > 0):
        return None
    rank, data_dims = len(view.dims(number) or ()), view.dims(data)
    if rank > (1 if data_dims is None else len(data_dims)):  # it adds axes
        return None
    return value if node.op == "Mul" else 1.0 / value
