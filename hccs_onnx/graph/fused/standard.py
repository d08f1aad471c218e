"""ai.onnx Attention (opset 23 and newer): a function whose schema writes the body for attributes and input types."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import FunctionProto, NodeProto, TypeProto

from hccs_onnx.graph.fused.parts import Surroundings
from hccs_onnx.graph.names import NameGenerator, subgraphs

logger = logging.getLogger(__name__)


def check(node: NodeProto, around: Surroundings) -> str | None:
    """Why an Attention node cannot be taken apart."""
    for name, role in zip(node.input, "QKV", strict=False):
        if name and around.rank(name) is None:
            return f"the shape of its input '{role}' is not known"
    return None if _body(node, around) is not None else "the onnx package does not define it for these inputs"


def parts(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    """The nodes that take its place: its definition."""
    body = _body(node, around)
    return [] if body is None else _without_unused(_inlined(node, body, around.names), node.output)


def _body(node: NodeProto, around: Surroundings) -> FunctionProto | None:
    inputs = [around.types.get(name, TypeProto()).SerializeToString() for name in node.input]
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, around.opset)
        data = schema.get_context_dependent_function(node.SerializeToString(), inputs)
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
