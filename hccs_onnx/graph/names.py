"""Tensor names of a graph and the graphs inside it: new ones, and how often each is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx


def is_default_domain(domain: str) -> bool:
    """Whether `domain` is that of the standard operators, under either of its names."""
    return domain in ("", "ai.onnx")


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
