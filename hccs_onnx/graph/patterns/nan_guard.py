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
    if probabilities in view.outputs or set(consumers) != {"IsNaN", "Where"} or len(view.consumers(probabilities)) != 2:
        return None
    is_nan, where = consumers["IsNaN"], consumers["Where"]
    condition, replacement, other = (tensor.name for tensor in where.inputs)
    value = view.constant(replacement)
    guards = condition == is_nan.outputs[0].name and other == probabilities and view.only_used_by(condition, where)
    if not guards or value is None or np.any(value != 0):
        return None
    return NanGuard((view.index(is_nan), view.index(where)), where.outputs[0].name)
