"""The graphs of a model: the main one and the bodies of If, Loop and Scan, to any depth."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass

import onnx

from hccs_onnx.graph.names import NameGenerator, subgraphs


@dataclass(frozen=True)
class Hop:
    """The way into a graph that a node holds.

    Parameters
    ----------
    node : int
        Position of the node in its own graph.
    attribute : str
        Name of the attribute that is the graph.
    owner : str
        What to call the node in a message.
    """

    node: int
    attribute: str
    owner: str


Place = tuple[Hop, ...]
"""Where a graph lies in a model, from the main graph inwards; empty for the main graph."""


def scopes(model: onnx.ModelProto) -> Iterator[tuple[Place, onnx.GraphProto]]:
    """Every graph of a model with its place, each before those inside it.

    Examples
    --------
    >>> [describe(place) for place, _ in scopes(model)]  # doctest: +SKIP
    ['main graph', "then_branch of If 'choose'", "else_branch of If 'choose'"]
    """
    yield from _scopes((), model.graph)


def _scopes(place: Place, graph: onnx.GraphProto) -> Iterator[tuple[Place, onnx.GraphProto]]:
    yield place, graph
    for index, node in enumerate(graph.node):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                hop = Hop(index, attribute.name, f"{node.op_type} '{_label(node)}'")
                yield from _scopes((*place, hop), attribute.g)


def graph_at(model: onnx.ModelProto, place: Place) -> onnx.GraphProto:
    """The graph at a place."""
    graph = model.graph
    for hop in place:
        graph = next(attribute.g for attribute in graph.node[hop.node].attribute if attribute.name == hop.attribute)
    return graph


def describe(place: Place) -> str:
    """A place in words, innermost graph first.

    Examples
    --------
    >>> describe((Hop(3, "then_branch", "If 'choose'"), Hop(0, "body", "Loop 'repeat'")))
    "body of Loop 'repeat' in then_branch of If 'choose'"
    """
    return " in ".join(f"{hop.attribute} of {hop.owner}" for hop in reversed(place)) or "main graph"


def make_names_unique(model: onnx.ModelProto) -> None:
    """Rename what bodies define under names that are in use elsewhere, in place.

    ONNX lets the two branches of an If use one name for two tensors. Where every name means one tensor, names are
    enough to say what is meant.

    Examples
    --------
    >>> text = 'g (bool c, float x) => (float y) { y = If (c) <then_branch = t () => (z) { z = Neg (x) },'
    >>> graph = onnx.parser.parse_graph(text + ' else_branch = e () => (z) { z = Abs (x) }> }')
    >>> model = onnx.helper.make_model(graph)
    >>> make_names_unique(model)
    >>> [attribute.g.output[0].name for attribute in model.graph.node[0].attribute]
    ['z', 'z_1']
    """
    names = NameGenerator(model.graph)
    taken = set(defined(model.graph))

    def choose(name: str) -> str:
        if name in taken:
            name = names.fresh(name)
        taken.add(name)
        return name

    for node in model.graph.node:
        rename_node(node, ChainMap(), choose)


def defined(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the tensors that a graph itself defines, each once."""
    values = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    values += [tensor.values.name for tensor in graph.sparse_initializer]
    values += [name for node in graph.node for name in node.output]
    yield from (name for name in dict.fromkeys(values) if name)


def rename_node(node: onnx.NodeProto, renamed: MutableMapping[str, str], choose: Callable[[str], str]) -> None:
    """Rename what a node reads and makes, and everything in the bodies that it holds.

    Parameters
    ----------
    node : onnx.NodeProto
        Changed in place.
    renamed : mapping of str to str
        New names by old ones; others stay.
    choose : callable
        Gives the name of a tensor that a body defines, which may be its old one.
    """
    for field in (node.input, node.output):
        for position, name in enumerate(field):
            field[position] = renamed.get(name, name)
    for graph in subgraphs(node):
        _rename_body(graph, ChainMap({name: choose(name) for name in defined(graph)}, renamed), choose)


def _rename_body(graph: onnx.GraphProto, renamed: MutableMapping[str, str], choose: Callable[[str], str]) -> None:
    named: Iterable[onnx.ValueInfoProto | onnx.TensorProto] = (
        *graph.input,
        *graph.output,
        *graph.value_info,
        *graph.initializer,
        *(tensor.values for tensor in graph.sparse_initializer),
    )
    for entry in named:
        entry.name = renamed.get(entry.name, entry.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = renamed.get(annotation.tensor_name, annotation.tensor_name)
        for parameter in annotation.quant_parameter_tensor_names:
            parameter.value = renamed.get(parameter.value, parameter.value)
    for node in graph.node:
        rename_node(node, renamed, choose)


def _label(node: onnx.NodeProto) -> str:
    return " ".join((node.name or next(iter(node.output), "")).split())
