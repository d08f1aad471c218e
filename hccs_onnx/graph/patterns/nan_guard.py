"""The guard against rows of NaN that torch's dynamo exporter puts behind Softmax: Where(IsNaN(p), 0, p)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from hccs_onnx.graph.view import GraphView


@dataclass(frozen=True)
class NanGuard:
    """The two nodes of a guard.

    Parameters
    ----------
    nodes : tuple of int
        Positions of IsNaN and Where.
    output : str
        Guarded probabilities.
    """

    nodes: tuple[int, int]
    output: str


def match(view: GraphView, softmax: gs.Node) -> NanGuard | None:
    """The guard behind a Softmax, if its output goes nowhere else. HCCS never makes the NaN it is for."""
    probabilities = softmax.outputs[0].name
    consumers = {node.op: node for node in view.consumers(probabilities)}
    if view.uses(probabilities) != len(consumers) or set(consumers) != {"IsNaN", "Where"}:
        return None
    is_nan, where = consumers["IsNaN"], consumers["Where"]
    if not (view.holds(is_nan) and view.holds(where)):
        return None
    if not guards(view, where, probabilities) or not view.only_used_by(is_nan.outputs[0].name, where):
        return None
    return NanGuard((view.index(is_nan), view.index(where)), where.outputs[0].name)


def zeroes_some(view: GraphView, where: gs.Node, probabilities: str) -> bool:
    """Whether a node is Where(c, 0, p) or Where(c, p, 0) for `probabilities`, whatever c: some of them become 0."""
    if where.op != "Where":
        return False
    _, first, second = (tensor.name for tensor in where.inputs)
    if probabilities not in (first, second):
        return False
    value = view.constant(first if second == probabilities else second)
    return value is not None and not np.any(value)


def guards(view: GraphView, where: gs.Node, probabilities: str) -> bool:
    """Whether a node is Where(IsNaN(p), 0, p) for `probabilities`."""
    if not zeroes_some(view, where, probabilities) or where.inputs[2].name != probabilities:
        return False
    is_nan = view.producer(where.inputs[0].name)
    return is_nan is not None and is_nan.op == "IsNaN" and is_nan.inputs[0].name == probabilities
