"""Raising a model from opset 11 to 12, the first in which a function body can read list attributes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.names import NameGenerator, is_default_domain, nested_graphs
from hccs_onnx.operator.body import MIN_OPSET

OLDEST_OPSET = 11


def default_opset(model: onnx.ModelProto) -> int:
    """Version of the default operator domain that a model imports, 0 if none."""
    return max((entry.version for entry in model.opset_import if is_default_domain(entry.domain)), default=0)


def too_old(model: onnx.ModelProto) -> str | None:
    """Why nothing of a model can be rewritten, whatever is in it; None if its opset is new enough.

    Examples
    --------
    >>> too_old(onnx.parser.parse_model('<ir_version: 5, opset_import: ["": 10]> g (float x) => (float y) {}'))
    'is of opset 10, needs >= 11'
    """
    opset = default_opset(model)
    return None if opset >= OLDEST_OPSET else f"is of opset {opset}, needs >= {OLDEST_OPSET}"


def check_opset(model: onnx.ModelProto, subject: str) -> None:
    """Refuse a model whose opset is too old.

    Raises
    ------
    ModelError
        With what to do about it; `subject` names the model.
    """
    if too_old(model):
        needs, remedy = f">= {OLDEST_OPSET}", "Convert it with onnx.version_converter.convert_version(model, 17)"
        raise ModelError(subject, "opset is too old", found=default_opset(model), needs=needs, remedy=remedy)


def raise_opset(model: onnx.ModelProto) -> int:
    """Make sure that the function body can live in `model` (changed in place); returns its opset.

    From 11 to 12 only Dropout changed in a way that a model notices: its ratio became an input.

    Raises
    ------
    ModelError
        If the opset is older than 11.

    Examples
    --------
    >>> raise_opset(onnx.parser.parse_model('<ir_version: 7, opset_import: ["": 11]> g (float x) => (float y) {}'))
    12
    """
    check_opset(model, f"graph '{model.graph.name}'")
    opset = default_opset(model)
    if opset >= MIN_OPSET:
        return opset
    names = NameGenerator(model.graph)
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            if node.op_type == "Dropout" and is_default_domain(node.domain):
                _ratio_as_input(model.graph, node, names)
    for function in model.functions:
        for node in function.node:
            if node.op_type == "Dropout" and is_default_domain(node.domain):
                del node.attribute[:]  # the ratio: it has no effect outside of training
    for imports in (model.opset_import, *(function.opset_import for function in model.functions)):
        for entry in imports:
            if is_default_domain(entry.domain):
                entry.version = max(entry.version, MIN_OPSET)
    return MIN_OPSET


def _ratio_as_input(graph: onnx.GraphProto, node: onnx.NodeProto, names: NameGenerator) -> None:
    ratio = next((attribute.f for attribute in node.attribute if attribute.name == "ratio"), None)
    del node.attribute[:]  # opset 11 knows ratio only
    if ratio is not None:
        name = names.fresh("dropout_ratio")
        graph.initializer.append(numpy_helper.from_array(np.array(ratio, np.float32), name))
        node.input.append(name)
