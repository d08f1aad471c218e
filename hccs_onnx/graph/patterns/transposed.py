"""Transpose between product, Softmax and values: where the axis that rows run along lies before and behind it."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.view import GraphView


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step over a Transpose."""
    order = permutation(view, node)
    if order is None:
        return []
    moves_heads = order[:-2] != tuple(range(-len(order), -2))
    return [Step(view.index(node), node.inputs[0].name, moves_heads=moves_heads)]


def permutation(view: GraphView, node: gs.Node) -> tuple[int, ...] | None:
    """Order of a Transpose's axes, each counted from the end; None for other nodes and unknown ranks.

    Examples
    --------
    >>> permutation(view, gs.Node("Transpose", attrs={"perm": [0, 2, 1]}))  # doctest: +SKIP
    (-3, -1, -2)
    """
    if node.op != "Transpose":
        return None
    order = node.attrs.get("perm")
    if order is None:
        dims = view.dims(node.inputs[0].name)
        return None if dims is None else tuple(range(-1, -len(dims) - 1, -1))
    return tuple(axis - len(order) for axis in order)


def axis_before(order: tuple[int, ...], axis: int) -> int | None:
    """Axis of the input that becomes `axis` of the output; None if there is none."""
    return order[axis] if -len(order) <= axis < 0 else None


def axis_behind(order: tuple[int, ...], axis: int) -> int | None:
    """Axis of the output that `axis` of the input becomes; None if there is none."""
    return order.index(axis) - len(order) if axis in order else None
