"""Softmax written out: Exp(x - ReduceMax(x)) divided by its ReduceSum, made one Softmax node."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from hccs_onnx.graph.dead import without_dead
from hccs_onnx.graph.names import is_default_domain, nested_graphs
from hccs_onnx.graph.shapes import tensor_types
from hccs_onnx.reference import Array


def fold_handmade(model: onnx.ModelProto, folder: Path, keep: Collection[str] = ()) -> dict[str, str]:
    """Make each written-out Softmax along the last axis one node, in place.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where it lies.
    keep : collection of str
        Outputs of divisions to leave as they are.

    Returns
    -------
    dict of str to str
        For each new Softmax its output, twice: it has the name that the division's had.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 18]> g (float[n,4] x) => (float[n,4] y)'
    >>> body = 'm = ReduceMax (x, a) d = Sub (x, m) e = Exp (d) s = ReduceSum (e, a) y = Div (e, s)'
    >>> model = onnx.parser.parse_model(text + ' <int64[1] a = {-1}> {' + body + '}')
    >>> fold_handmade(model, Path()), [node.op_type for node in model.graph.node]
    ({'y': 'y'}, ['Softmax'])
    """
    graphs = [graph for graph in nested_graphs(model.graph) if any(node.op_type == "Exp" for node in graph.node)]
    if not graphs:
        return {}
    finder = _Finder(model, folder)
    found: set[str] = set()
    for graph in reversed(graphs):  # those inside others first: nodes are copied
        found |= _fold(graph, finder, keep)
    return {name: name for name in sorted(found)}


def _fold(graph: onnx.GraphProto, finder: _Finder, keep: Collection[str]) -> set[str]:
    found = {
        node.output[0]: x
        for node in graph.node
        if _is(node, "Div") and node.output[0] not in keep and (x := finder.logits(node)) is not None
    }
    if not found:
        return set()
    places = [index for index, node in enumerate(graph.node) if node.output and node.output[0] in found]
    nodes = list(graph.node)
    for index in places:
        nodes[index] = _softmax(graph.node[index], found[graph.node[index].output[0]])
    loose = [name for index in places for name in graph.node[index].input]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in without_dead(graph, nodes, loose)]
    del graph.node[:]
    graph.node.extend(kept)
    return set(found)


def _is(node: NodeProto | None, op: str) -> bool:
    return node is not None and node.op_type == op and is_default_domain(node.domain)


def _small_constants(graph: onnx.GraphProto) -> dict[str, Array]:
    """Initializers and Constant nodes of one element, by name: what axes can be."""
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer if list(t.dims) in ([], [1]) and t.raw_data}
    for tensor in graph.initializer:
        if list(tensor.dims) in ([], [1]) and tensor.int64_data:
            values[tensor.name] = np.array(tensor.int64_data)
    for node in graph.node:
        if _is(node, "Constant") and node.attribute:
            value = helper.get_attribute_value(node.attribute[0])
            values[node.output[0]] = (
                numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
            )
    return values


class _Finder:
    """Looks for the parts of a written-out Softmax."""

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        graphs = list(nested_graphs(model.graph))[::-1]  # outer names count more: a body may have others of its own
        self._makers = {name: node for graph in graphs for node in graph.node for name in node.output}
        self._constants = {name: value for graph in graphs for name, value in _small_constants(graph).items()}
        self._types = tensor_types(model, folder)

    def logits(self, div: NodeProto) -> str | None:
        """What a division turns into probabilities, if that is what it does."""
        exp, total = (self._makers.get(name) for name in div.input)
        if exp is None or total is None or not (_is(exp, "Exp") and _is(total, "ReduceSum")):
            return None
        if total.input[0] != exp.output[0] or not self._along_last(total):
            return None
        shifted = self._makers.get(exp.input[0])
        if shifted is not None and _is(shifted, "Sub"):
            maximum = self._makers.get(shifted.input[1])
            if maximum is not None and _is(maximum, "ReduceMax") and maximum.input[0] == shifted.input[0]:
                return shifted.input[0] if self._along_last(maximum) else None
        return exp.input[0]  # without the shift it is a Softmax that may overflow

    def _along_last(self, node: NodeProto) -> bool:
        """Whether a reduction runs along the last axis, alone, and keeps it."""
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        axes = attributes.get("axes")
        if axes is None and len(node.input) > 1:
            axes = self._constants.get(node.input[1])
        if axes is None or np.size(axes) != 1 or attributes.get("keepdims", 1) != 1:
            return False
        axis = int(np.reshape(axes, -1)[0])
        kind = self._types.get(node.input[0])
        rank = len(kind.tensor_type.shape.dim) if kind is not None and kind.tensor_type.HasField("shape") else None
        return axis == -1 or (rank is not None and axis == rank - 1)


def _softmax(div: NodeProto, x: str) -> NodeProto:
    node = helper.make_node("Softmax", [x], list(div.output), name=div.name, axis=-1)
    node.doc_string = div.doc_string
    if hasattr(node, "metadata_props"):
        node.metadata_props.extend(div.metadata_props)
    return node
