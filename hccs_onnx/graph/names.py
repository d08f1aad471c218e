"""Names in a model: of tensors, domains and functions, in the main graph and the graphs inside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx
from onnx import FunctionProto, NodeProto

CallKey = tuple[str, str, str]
"""Domain, name and overload."""


def is_default_domain(domain: str) -> bool:
    """Whether `domain` is that of the standard operators, under either of its names."""
    return domain in ("", "ai.onnx")


def plain_domain(domain: str) -> str:
    """`domain`, empty for that of the standard operators."""
    return "" if is_default_domain(domain) else domain


def call_key(item: FunctionProto | NodeProto) -> CallKey:
    """What a call and its function have in common."""
    name = item.name if isinstance(item, FunctionProto) else item.op_type
    return plain_domain(item.domain), name, getattr(item, "overload", "")


def subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Graphs in a node's attributes."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return graphs + [graph for attribute in node.attribute for graph in attribute.graphs]


def nested_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from nested_graphs(subgraph)


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from all_nodes(graph.node)


def made_twice(model: onnx.ModelProto) -> str | None:
    """A tensor that two nodes make, or a node and the graph that it is in, with what makes it; None if there is none.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float x) => (float y) { y = Neg (x) y = Abs (x) }'
    >>> made_twice(onnx.parser.parse_model(text))
    "'y', by Neg '' and Abs ''"
    """
    inside = (subgraphs(node) for function in model.functions for node in all_nodes(function.node))
    graphs = (*nested_graphs(model.graph), *(graph for found in inside for graph in found))
    scopes = [([value.name for value in graph.input], [*graph.initializer], graph.node) for graph in graphs]
    scopes += [([*function.input], [], function.node) for function in model.functions]
    for inputs, initializers, nodes in scopes:
        given = (*inputs, *(tensor.name for tensor in initializers))
        makers: dict[str, NodeProto | None] = dict.fromkeys(given)
        for node in nodes:
            for name in filter(None, node.output):
                if name in makers:
                    other = makers[name]
                    before = f"{other.op_type} '{other.name}'" if other else "the graph itself"
                    return f"'{name}', by {before} and {node.op_type} '{node.name}'"
                makers[name] = node
    return None


class NameGenerator:
    """New tensor names for a graph.

    Parameters
    ----------
    graph : onnx.GraphProto
        The graph; names inside its subgraphs count as taken.

    Examples
    --------
    >>> graph = onnx.parser.parse_graph("g (float x) => (float y) { y = Neg (x) }")
    >>> names = NameGenerator(graph)
    >>> names.fresh("y"), names.fresh("y"), names.fresh("z")
    ('y_1', 'y_2', 'z')
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken: set[str] = set()
        for inner in nested_graphs(graph):
            self._taken.update(value.name for field in (inner.input, inner.output) for value in field)
            self._taken.update(tensor.name for tensor in inner.initializer)
            self._taken.update(name for node in inner.node for name in (*node.input, *node.output))

    def fresh(self, wanted: str) -> str:
        """`wanted`, with a number where that name is taken; taken from now on."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def count_uses(nodes: Iterable[onnx.NodeProto], outputs: Iterable[onnx.ValueInfoProto]) -> Counter[str]:
    """How often each tensor is read by the nodes or the graphs inside them, or is an output."""
    count = Counter(value.name for value in outputs)
    for node in nodes:
        count.update(node.input)
        for graph in subgraphs(node):
            count += count_uses(graph.node, graph.output)
    return count
