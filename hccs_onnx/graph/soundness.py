"""Whether a model can be given to onnx's shape inference, which is native code and trusts it."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import onnx
from onnx import AttributeProto, NodeProto, TensorProto

from hccs_onnx.graph.external import all_tensors, byte_size
from hccs_onnx.graph.names import CallKey, all_nodes, call_key, is_default_domain

MAX_CALLED = 1_000_000  # nodes; inference goes into a function at every call
MAX_DEPTH = 256
_NEEDS = {
    "If": {"then_branch": AttributeProto.GRAPH, "else_branch": AttributeProto.GRAPH},
    "Loop": {"body": AttributeProto.GRAPH},
    "Scan": {"body": AttributeProto.GRAPH, "num_scan_inputs": AttributeProto.INT},
}
"""Attributes that releases of onnx before 1.18 read whether they are there or not."""


def why_unsound(model: onnx.ModelProto) -> str | None:
    """Why shape inference could crash on a model or never end; None if it is sound.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x) => (float[n,4] y) { y = Scan (x) }'
    >>> why_unsound(onnx.parser.parse_model(text))
    "Scan '' lacks an attribute"
    """
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in all_nodes(nodes):
            if node.op_type in _NEEDS and is_default_domain(node.domain) and not _is_complete(node):
                return f"{node.op_type} '{node.name}' lacks an attribute"
    for tensor in all_tensors(model):
        if not _is_whole(tensor):
            return f"tensor '{tensor.name}' holds other than its shape says"
    return why_endless(model)


def _is_complete(node: NodeProto) -> bool:
    kinds = {attribute.name: attribute.type for attribute in node.attribute}
    return all(kinds.get(name) == kind for name, kind in _NEEDS[node.op_type].items())


def _is_whole(tensor: TensorProto) -> bool:
    """Whether raw data is as long as the shape needs; without raw data onnx itself looks."""
    if not tensor.raw_data:
        return True
    try:
        return byte_size(tensor) == len(tensor.raw_data)
    except ValueError:
        return False


def why_endless(model: onnx.ModelProto) -> str | None:
    """Why shape inference, which goes into a function at every call, would not come back; None if it does."""
    inside = {call_key(function): [call_key(node) for node in all_nodes(function.node)] for function in model.functions}
    if not inside:
        return None
    try:
        order = list(
            TopologicalSorter({key: inside.keys() & set(calls) for key, calls in inside.items()}).static_order()
        )
    except CycleError:
        return "a function calls itself"
    sizes: dict[CallKey, int] = {}  # nodes that a call unfolds to
    depths: dict[CallKey, int] = {}
    for key in order:  # what is called comes first
        sizes[key] = sum(sizes.get(call, 1) for call in inside[key])
        depths[key] = 1 + max((depths.get(call, 0) for call in inside[key]), default=0)
    called = sum(sizes.get(call_key(node), 0) for node in all_nodes(model.graph.node))
    if called > MAX_CALLED or max(depths.values()) > MAX_DEPTH:
        return "its functions call each other too often or too deeply"
    return None
