"""Softmax along another axis than the last: turned so that it runs along the last, between two Transposes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx
from onnx import NodeProto, helper

from hccs_onnx.graph.names import NameGenerator, is_default_domain, nested_graphs
from hccs_onnx.graph.opset import default_opset
from hccs_onnx.graph.shapes import tensor_types

AXIS_OPSET = 13  # before, Softmax ran along all axes from `axis` on


def turn_softmaxes(model: onnx.ModelProto, folder: Path, keep: Collection[str] = ()) -> dict[str, str]:
    """Make every Softmax along another axis one along the last, in place; the model computes the same.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where it lies.
    keep : collection of str
        Outputs of Softmax nodes to leave as they are.

    Returns
    -------
    dict of str to str
        For each turned Softmax its new output and its old one, which the Transpose behind it makes.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x) => (float[n,4] y) { y = Softmax <axis=0> (x) }'
    >>> model = onnx.parser.parse_model(text)
    >>> turn_softmaxes(model, Path()), [node.op_type for node in model.graph.node]
    ({'y/turned': 'y'}, ['Transpose', 'Softmax', 'Transpose'])
    """
    if default_opset(model) < AXIS_OPSET:
        return {}
    graphs = [graph for graph in nested_graphs(model.graph) if any(_axis(node) != -1 for node in graph.node)]
    if not graphs:
        return {}
    types = tensor_types(model, folder)
    names = NameGenerator(model.graph)
    turned: dict[str, str] = {}
    for graph in reversed(graphs):  # those inside others first: nodes are copied
        nodes: list[NodeProto] = []
        for node in graph.node:
            kind = types.get(node.input[0]) if _axis(node) != -1 and node.output[0] not in keep else None
            rank = len(kind.tensor_type.shape.dim) if kind is not None and kind.tensor_type.HasField("shape") else 0
            axis = _axis(node) % rank if rank else 0
            if rank == 0 or axis == rank - 1:
                nodes.append(node)
                continue
            order = [*range(axis), rank - 1, *range(axis + 1, rank - 1), axis]
            x, y = names.fresh(f"{node.output[0]}/logits"), names.fresh(f"{node.output[0]}/turned")
            turned[y] = node.output[0]
            stem = node.name or node.output[0]
            nodes.append(helper.make_node("Transpose", [node.input[0]], [x], f"{stem}/turn", perm=order))
            nodes.append(_along_last(node, x, y))
            nodes.append(helper.make_node("Transpose", [y], list(node.output), f"{stem}/turn_back", perm=order))
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
    return turned


def _axis(node: NodeProto) -> int:
    """Axis of a Softmax of opset 13 and newer; -1 for other nodes as well."""
    if node.op_type != "Softmax" or not is_default_domain(node.domain) or not (node.input and node.output):
        return -1
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)


def _along_last(softmax: NodeProto, x: str, y: str) -> NodeProto:
    node = NodeProto.FromString(softmax.SerializeToString())
    node.input[0], node.output[0] = x, y
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", -1))
    return node
