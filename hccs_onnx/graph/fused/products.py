"""com.microsoft FusedMatMul around a Softmax: Transpose, MatMul and Mul, as before onnxruntime fused them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
from onnx import NodeProto

from hccs_onnx.graph.fused.neighbours import explore, makers_of, readers_of
from hccs_onnx.graph.fused.parts import Parts, Surroundings, attributes_of, float_problem
from hccs_onnx.graph.fused.rounds import expand_in_rounds
from hccs_onnx.graph.names import is_default_domain

_PASSED = ("Add", "Cast", "Clip", "Div", "Dropout", "Identity", "Max", "Min", "Mul", "Reshape", "Sub", "Tanh", "Where")


def expand_products(model: onnx.ModelProto, folder: Path, keep: Collection[str] = ()) -> dict[str, str]:
    """Take apart each FusedMatMul that makes the logits of a Softmax or sums values with its result, in place.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where it lies.
    keep : collection of str
        Outputs of Softmax nodes whose products are to be left as they are.

    Returns
    -------
    dict of str to str
        The output of each Softmax with such products, twice.

    Examples
    --------
    >>> expand_products(model, Path("models"))  # doctest: +SKIP
    {'probabilities': 'probabilities'}
    """
    return expand_in_rounds(
        model,
        folder,
        lambda graph: any(_is_fused(node) for node in graph.node),
        lambda graph, around: _expand_graph(graph, around, keep),
    )


def _expand_graph(graph: onnx.GraphProto, around: Surroundings, keep: Collection[str]) -> dict[str, str]:
    makers = makers_of(graph.node)
    readers = readers_of(graph.node)
    found: dict[str, str] = {}
    apart: set[str] = set()
    for node in graph.node:
        if _is_softmax(node) and node.output[0] not in keep:
            products = _before(makers, node.input[0]) | _behind(readers, node.output[0])
            products = {name for name in products if _problem(makers[name], around) is None}
            apart |= products
            if products:
                found[node.output[0]] = node.output[0]
    if not found:
        return {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += _parts(node, around) if node.output and node.output[0] in apart else [node]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return found


def _is_softmax(node: NodeProto) -> bool:
    return node.op_type == "Softmax" and is_default_domain(node.domain) and bool(node.input) and bool(node.output)


def _is_fused(node: NodeProto) -> bool:
    return (
        node.op_type == "FusedMatMul" and node.domain == "com.microsoft" and len(node.input) == 2 and bool(node.output)
    )


def _before(makers: Mapping[str, NodeProto], logits: str) -> set[str]:
    """Outputs of the FusedMatMul nodes that logits are made from by what may lie between product and Softmax."""

    def onward(name: str) -> tuple[list[str], list[str]]:
        node = makers.get(name)
        if node is None:
            return [], []
        if _is_fused(node):
            return [node.output[0]], []
        return [], list(node.input) if _hands_on(node) else []

    return explore(logits, onward)


def _behind(readers: Mapping[str, list[NodeProto]], probabilities: str) -> set[str]:
    """Outputs of the FusedMatMul nodes that probabilities reach by what may lie between Softmax and values."""

    def onward(name: str) -> tuple[list[str], list[str]]:
        nodes = readers.get(name, [])
        products = [node.output[0] for node in nodes if _is_fused(node) and node.input[0] == name]
        return products, [node.output[0] for node in nodes if _hands_on(node)]

    return explore(probabilities, onward)


def _hands_on(node: NodeProto) -> bool:
    return node.op_type in _PASSED and is_default_domain(node.domain) and bool(node.output)


def _problem(node: NodeProto, around: Surroundings) -> str | None:
    attributes = attributes_of(node)
    for name, side in zip(node.input, "AB", strict=True):
        if (attributes.get(f"trans{side}") or attributes.get(f"transBatch{side}")) and (around.rank(name) or 0) < 2:
            return f"the rank of input '{name}' is not known"
    if not isinstance(attributes.get("alpha", 1.0), float):
        return "its attribute alpha is not a number"
    return float_problem(node, around, *node.input)


def _parts(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    attributes = attributes_of(node)
    parts = Parts(node, around, around.element_type(*node.input))
    operands = list(node.input)
    for at, side in enumerate("AB"):
        rank = around.rank(operands[at]) or 0
        order = list(range(rank))
        if attributes.get(f"transBatch{side}"):  # rows come before the batch
            order = [*order[1:-1], 0, rank - 1]
        if attributes.get(f"trans{side}"):
            order[-2:] = order[:-3:-1]
        if order != sorted(order):
            operands[at] = parts.transpose(operands[at], *order)
    product = parts.add("MatMul", *operands)
    parts.add("Mul", product, parts.number(attributes.get("alpha", 1.0)), output=node.output[0])
    return parts.nodes
