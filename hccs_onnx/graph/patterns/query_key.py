"""The product of queries and keys, and the scale that some exporters put on either before it."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns.base import NoMatch, Step
from hccs_onnx.graph.patterns.einsum import Equation, equation_of, is_query_key
from hccs_onnx.graph.patterns.logit_scale import constant_factor
from hccs_onnx.graph.view import GraphView

_DEPTH = 12
_MOVES = ("Transpose", "Reshape", "Identity", "Unsqueeze", "Squeeze")


@dataclass(frozen=True)
class QueryKeyProduct:
    """MatMul of queries and transposed keys, or Einsum of both.

    Parameters
    ----------
    node : int
        Its position in the model's node list.
    query, key : str
        Its inputs.
    scales : tuple of Step
        Constant scales on either, which may be moved behind the product.
    head_axis : int
        Axis of the queries that becomes the third last of the logits.
    """

    node: int
    query: str
    key: str
    scales: tuple[Step, ...]
    head_axis: int = -3


def match(view: GraphView, node: gs.Node | None, axis: int = -1) -> QueryKeyProduct | NoMatch:
    """The product whose keys lie along `axis`, or why `node` is not one."""
    if node is None:
        source = "an input of the body" if view.place else "a model input"
        return NoMatch(f"logits are not made by a product of queries and keys, but come from {source} or constant")
    if axis not in (-1, -2):
        return NoMatch(f"rows do not run along an axis of queries or keys of {node.op} '{view.label(node)}'")
    equation = equation_of(node)
    if equation is not None and is_query_key(equation):
        return _by_einsum(view, node, equation, axis)
    if node.op != "MatMul":
        return NoMatch(f"logits come from {node.op} '{view.label(node)}', not from a product of queries and keys")
    first, second = (tensor.name for tensor in node.inputs)
    query, key = (first, second) if axis == -1 else (second, first)
    if view.is_constant(key) or (axis == -2 and view.is_constant(query)):  # x W of which the columns are rows
        return NoMatch(f"logits come from MatMul '{view.label(node)}' with constant weights: a classifier or a gate")
    scales = tuple(step for side in (query, key) for step in _scales(view, side, node))
    return QueryKeyProduct(view.index(node), query, key, scales)


def _by_einsum(view: GraphView, node: gs.Node, equation: Equation, axis: int) -> QueryKeyProduct | NoMatch:
    names = [tensor.name for tensor in node.inputs]
    if any(view.is_constant(name) for name in names):
        return NoMatch(f"logits come from Einsum '{view.label(node)}' with constant weights: a classifier or a gate")
    query = 0 if equation.output[-3 - axis] in equation.first else 1  # of the last two axes the other one
    term = (equation.first, equation.second)[query]
    scales = tuple(step for side in names for step in _scales(view, side, node))
    heads = equation.output[-3:-2]
    head_axis = term.index(heads) - len(term) if heads and heads in term else -3
    return QueryKeyProduct(view.index(node), names[query], names[1 - query], scales, head_axis)


def _scales(view: GraphView, name: str, user: gs.Node) -> list[Step]:
    """Constant scales on the way to the product, as long as nothing else sees the scaled tensor."""
    found: list[Step] = []
    for _ in range(_DEPTH):
        node = view.producer(name)
        if node is None or not view.only_used_by(name, user):
            break
        names = [tensor.name for tensor in node.inputs]
        if node.op in _MOVES:
            name = names[0]
        elif node.op in ("Mul", "Div") and (factor := constant_factor(view, node, *names)) is not None:
            found.append(Step(view.index(node), names[0], factor=factor))
            name = names[0]
        elif node.op == "Mul" and (factor := constant_factor(view, node, *names[::-1])) is not None:
            found.append(Step(view.index(node), names[1], factor=factor))
            name = names[1]
        else:
            break
        user = node
    return found
