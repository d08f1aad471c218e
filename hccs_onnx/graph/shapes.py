"""A model without its weights, and what shape inference finds in it."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import onnx
from onnx import TensorProto, TypeProto, shape_inference

from hccs_onnx.graph.external import with_external_data
from hccs_onnx.graph.names import is_default_domain, nested_graphs, subgraphs
from hccs_onnx.graph.soundness import why_endless, why_unsound
from hccs_onnx.graph.stand_ins import with_stand_ins

logger = logging.getLogger(__name__)

SMALL = 1024  # elements; larger initializers stay out of the skeleton


def tensor_types(model: onnx.ModelProto, folder: Path) -> dict[str, TypeProto]:
    """Type and shape by tensor name, as far as they can be inferred; those of bodies as well.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed; external data need not be loaded.
    folder : pathlib.Path
        Where external data lies.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x) => (float[n,4] y) { z = Neg (x) y = Abs (z) }'
    >>> len(tensor_types(onnx.parser.parse_model(text), Path())["z"].tensor_type.shape.dim)
    2
    """
    types: dict[str, TypeProto] = {}
    for graph in reversed(list(nested_graphs(infer_shapes(skeleton(model, folder)).graph))):  # outer names count more
        types |= {value.name: value.type for value in (*graph.value_info, *graph.input, *graph.output)}
        for tensor in graph.initializer:
            types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return types


def skeleton(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The model without large initializers' values, in a form that graphsurgeon can import."""
    result = onnx.ModelProto(ir_version=model.ir_version)
    result.opset_import.extend(model.opset_import)
    if why_endless(model) is None:
        result.functions.extend(model.functions)
    for entry in result.opset_import:
        entry.domain = "" if is_default_domain(entry.domain) else entry.domain
    _outline_graph(result.graph, model.graph, folder)
    return result


def _outline_graph(result: onnx.GraphProto, graph: onnx.GraphProto, folder: Path) -> None:
    result.name = graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(result, field).extend(getattr(graph, field))
    for node, original in zip(result.node, graph.node, strict=True):
        node.domain = "" if is_default_domain(node.domain) else node.domain
        _drop_binary_attributes(node)
        for body, source in zip(subgraphs(node), subgraphs(original), strict=True):
            body.Clear()
            _outline_graph(body, source, folder)
    result.initializer.extend(_outline(tensor, folder) for tensor in graph.initializer)
    for sparse in graph.sparse_initializer:
        values = sparse.values
        result.initializer.append(TensorProto(name=values.name, dims=sparse.dims, data_type=values.data_type))


def _outline(tensor: TensorProto, folder: Path) -> TensorProto:
    """A small initializer with its values, a large one without."""
    if math.prod(tensor.dims) <= SMALL:
        try:
            return with_external_data(tensor, folder)
        except (OSError, ValueError) as error:
            logger.info("initializer '%s' cannot be read: %s", tensor.name, error)
    return TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)


def _drop_binary_attributes(node: onnx.NodeProto) -> None:
    """Remove string attributes that are no text; graphsurgeon takes all for UTF-8."""
    for position in reversed(range(len(node.attribute))):
        attribute = node.attribute[position]
        try:
            for value in (attribute.s, *attribute.strings):
                value.decode()
        except UnicodeDecodeError:
            del node.attribute[position]


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with inferred shapes, or as it is where inference fails."""
    reason = why_unsound(model)
    if reason is not None:
        logger.info("shapes are not inferred: %s", reason)
        return model
    known = with_stand_ins(model)
    try:
        inferred = shape_inference.infer_shapes(known, data_prop=True)
    except Exception as error:  # what cannot be inferred is only less known
        logger.info("shape inference failed: %s", error)
        return model
    if known is not model:
        bodies = {node.output[0]: node for node in inferred.graph.node if node.output and subgraphs(node)}
        nodes = [bodies.get(node.output[0], node) if subgraphs(node) else node for node in model.graph.node]
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del inferred.graph.node[:]
        inferred.graph.node.extend(kept)
    return inferred
