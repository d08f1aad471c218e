"""Operators that hide a Softmax: taken apart by the definition that comes with the onnx package.

ai.onnx Attention (opset 23 and newer) is a function: its schema writes the body for a node's attributes and input
types. Put in place of the node, the body computes the same by definition, and its Softmax can be found like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import FunctionProto, NodeProto, TypeProto

from hccs_onnx.graph.names import NameGenerator, is_default_domain, nested_graphs, subgraphs
from hccs_onnx.graph.opset import default_opset
from hccs_onnx.graph.shapes import tensor_types

logger = logging.getLogger(__name__)

_FUSED = ("Attention",)


def expand_fused(model: onnx.ModelProto, folder: Path, keep: Collection[str] = ()) -> dict[str, str]:
    """Take fused attention apart, in place.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where it lies.
    keep : collection of str
        First outputs of nodes to leave as they are.

    Returns
    -------
    dict of str to str
        For each Softmax that came to light, its output and the first output of the node that held it.

    Examples
    --------
    >>> expand_fused(model, Path("models"))  # doctest: +SKIP
    {'y/AttnWeightSoftmax': 'y'}
    """
    opset = default_opset(model)
    graphs = [graph for graph in nested_graphs(model.graph) if any(_is_fused(node, opset) for node in graph.node)]
    if not graphs:
        return {}
    types = tensor_types(model, folder)
    names = NameGenerator(model.graph)
    found: dict[str, str] = {}
    for graph in reversed(graphs):  # those inside others first: nodes are copied
        nodes: list[NodeProto] = []
        for node in graph.node:
            body = _body(node, opset, types) if _is_fused(node, opset) and node.output[0] not in keep else None
            if body is None:
                nodes.append(node)
                continue
            inner = _without_unused(_inlined(node, body, names), node.output)
            found |= {part.output[0]: node.output[0] for part in inner if part.op_type == "Softmax"}
            nodes += inner
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
    return found


def _is_fused(node: NodeProto, opset: int) -> bool:
    return node.op_type in _FUSED and is_default_domain(node.domain) and opset >= 23


def _body(node: NodeProto, opset: int, types: Mapping[str, TypeProto]) -> FunctionProto | None:
    """The node's definition; None where the types of its inputs are not known well enough."""
    schema: Any = onnx.defs.get_schema(node.op_type, opset)
    inputs = [types.get(name, TypeProto()) for name in node.input]
    if any(name and not types.get(name, TypeProto()).tensor_type.HasField("shape") for name in node.input[:3]):
        return None
    try:
        data = schema.get_context_dependent_function(
            node.SerializeToString(), [item.SerializeToString() for item in inputs]
        )
    except Exception as error:  # onnx has no class of its own for this
        logger.info("%s '%s' cannot be taken apart: %s", node.op_type, node.name, error)
        return None
    return FunctionProto.FromString(data) if data else None


def _inlined(node: NodeProto, body: FunctionProto, names: NameGenerator) -> list[NodeProto]:
    """The nodes of a body, with the node's inputs and outputs in place of the formal ones."""
    renamed = {"": ""}
    renamed |= dict(zip(body.input, node.input, strict=False))
    renamed |= dict.fromkeys(body.input[len(node.input) :], "")
    renamed |= {formal: actual for formal, actual in zip(body.output, node.output, strict=False) if actual}
    nodes = []
    stem = node.name or node.output[0]
    for inner in body.node:
        for name in inner.output:
            if name not in renamed:
                renamed[name] = names.fresh(f"{stem}/{name}")
        copy = NodeProto.FromString(inner.SerializeToString())
        copy.name = f"{stem}/{inner.output[0]}"
        _rename(copy, renamed)
        nodes.append(copy)
    return nodes


def _without_unused(nodes: list[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """Leave out what a body computes for the sake of outputs or cases that this node does not have."""
    wanted = set(outputs) - {""}
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            for graph in subgraphs(node):
                wanted |= {name for inner in graph.node for name in inner.input}
            kept.append(node)
    return kept[::-1]


def _rename(node: NodeProto, renamed: Mapping[str, str]) -> None:
    for field in (node.input, node.output):
        for position, name in enumerate(field):
            field[position] = renamed.get(name, name)
    for graph in subgraphs(node):
        for inner in graph.node:
            _rename(inner, renamed)
