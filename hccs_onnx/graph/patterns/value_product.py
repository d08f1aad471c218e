"""The product of probabilities and values."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns import transposed
from hccs_onnx.graph.patterns.base import NoMatch
from hccs_onnx.graph.patterns.einsum import equation_of, sums_values
from hccs_onnx.graph.patterns.nan_guard import zeroes_some
from hccs_onnx.graph.patterns.passthrough import hands_on
from hccs_onnx.graph.patterns.quantize_pair import pair_behind
from hccs_onnx.graph.view import GraphView, holds_graphs

_PRODUCTS = ("MatMul", "Gemm", "Einsum", "Conv")
_GRID_TENSORS = 64  # that a grid is made of


def match(view: GraphView, probabilities: str) -> NoMatch | None:
    """None if some MatMul or Einsum sums values over the rows of `probabilities`, else where these go instead."""
    pending, seen, ends = [(probabilities, -1)], set(), []  # tensors, and the axis that rows run along
    while pending:
        name, axis = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in view.outputs:
            ends.append("an output of the body" if view.place else "a model output")
        for node in view.consumers(name):
            order = transposed.permutation(view, node)
            if node.op == "MatMul" and axis in (-1, -2) and node.inputs[-1 - axis].name == name:
                if not _is_fixed(view, node.inputs[2 + axis].name):
                    return None
                ends.append(f"MatMul '{view.label(node)}' with constant values")
            elif (values := _einsum_values(node, name, axis)) is not None and not _is_fixed(view, values):
                return None
            elif _keeps(view, node, name, axis):
                pending.append((node.outputs[0].name, axis))
            elif order is not None and (behind := transposed.axis_behind(order, axis)) is not None:
                pending.append((node.outputs[0].name, behind))
            elif (pair := pair_behind(view, node)) is not None:
                pending.append((pair.output, axis))
            elif not _reads_type_only(view, node, name):
                ends.append(f"{node.op} '{view.label(node)}'")
    return NoMatch(f"probabilities go to {', '.join(ends) or 'nothing'}, not to a product with values")


def _is_fixed(view: GraphView, values: str) -> bool:
    """Whether values are constant, or a grid of positions: the mean position that a soft argmax computes."""
    return view.is_constant(values) or _is_grid(view, values)


def _is_grid(view: GraphView, values: str) -> bool:
    """Whether values are counted up to a length that comes from a shape, and go through no product."""
    pending, seen, counts = [values], set(), False
    while pending:
        name = pending.pop()
        node = view.producer(name)
        if name in seen or view.is_constant(name):
            continue
        seen.add(name)
        if node is None or node.op in _PRODUCTS or holds_graphs(node) or len(seen) > _GRID_TENSORS:
            return False
        counts |= node.op == "Range"
        # Data come before shapes, so that a product, which tells at once, is met first.
        pending += [] if node.op == "Shape" else [tensor.name for tensor in reversed(node.inputs)]
    return counts


def _keeps(view: GraphView, node: gs.Node, name: str, axis: int) -> bool:
    """Whether a node hands probabilities on, row for row, or makes some of them 0."""
    if node.op == "Reshape" and axis != -1:
        return False
    return (hands_on(view, node) and bool(node.inputs[0].name == name)) or zeroes_some(view, node, name)


def _einsum_values(node: gs.Node, probabilities: str, axis: int) -> str | None:
    """What an Einsum sums with these weights."""
    equation = equation_of(node)
    if equation is None:
        return None
    for position in (0, 1):
        if node.inputs[position].name == probabilities and sums_values(equation, position, axis):
            return str(node.inputs[1 - position].name)
    return None


def _reads_type_only(view: GraphView, node: gs.Node, name: str) -> bool:
    """Whether a node looks at the element type of `name`, or tests its values for the sake of a guard."""
    if node.op == "CastLike":
        return bool(node.inputs[1].name == name)
    return node.op == "IsNaN" and all(zeroes_some(view, user, name) for user in view.consumers(node.outputs[0].name))
