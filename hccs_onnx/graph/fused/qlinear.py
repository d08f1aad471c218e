"""com.microsoft QLinearSoftmax, and the QLinear operators around it: DequantizeLinear, the operator, QuantizeLinear.

A QLinearSoftmax alone tells nothing of attention: where quantisers write it, products and masks are QLinear operators
as well. Those between the product and the values are taken apart with it, which gives the model's QDQ form.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from onnx import NodeProto

from hccs_onnx.graph.fused.neighbours import explore, makers_of, readers_of
from hccs_onnx.graph.fused.parts import Parts, Surroundings, attributes_of, inputs_of

_AXIS_ALONE = 13  # opset from which Softmax runs along one axis; before, along that and all behind it


def check(node: NodeProto, around: Surroundings) -> str | None:
    """Why a QLinearSoftmax node cannot be taken apart."""
    attributes = attributes_of(node)
    if attributes.get("axis", -1) == -1 or _is_last(node, around):
        return None
    opset = min(attributes.get("opset", _AXIS_ALONE), around.opset)
    if opset >= _AXIS_ALONE:
        return None
    return f"its attribute axis is {attributes['axis']}, which in opset {opset} means several axes"


def qlinear_softmax(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    """The nodes that take its place."""
    x, x_scale, x_zero, y_scale, y_zero = inputs_of(node, 5)
    parts = Parts(node, around)
    logits = parts.add("DequantizeLinear", *_given([x, x_scale, x_zero]))
    axis = -1 if _is_last(node, around) else attributes_of(node).get("axis", -1)
    weights = parts.add("Softmax", logits, axis=axis)
    parts.add("QuantizeLinear", weights, *_given([y_scale, y_zero]), output=node.output[0])
    return parts.nodes


_FLOAT_OP = {"QLinearAdd": "Add", "QLinearMatMul": "MatMul", "QLinearMul": "Mul"}
_PASSED = ("DequantizeLinear", "Div", "Identity", "Mul", "QuantizeLinear", "Reshape")


def around(nodes: Sequence[NodeProto], softmaxes: Collection[str]) -> set[str]:
    """First outputs of the QLinear operators between product and values of some QLinearSoftmax, given by outputs."""
    makers, readers = makers_of(nodes), readers_of(nodes)

    def before(name: str) -> tuple[list[str], list[str]]:
        node = makers.get(name)
        if node is None:
            return [], []
        if _has_two_operands(node):
            onward = [] if node.op_type == "QLinearMatMul" else [node.input[0], node.input[3]]
            return [node.output[0]], onward
        return [], list(node.input[:1]) if node.op_type in _PASSED else []

    def behind(name: str) -> tuple[list[str], list[str]]:
        nodes = readers.get(name, [])
        products = [node.output[0] for node in nodes if node.op_type == "QLinearMatMul" and _has_two_operands(node)]
        return products, [node.output[0] for node in nodes if node.op_type in ("Identity", "Reshape") and node.output]

    found: set[str] = set()
    for name in softmaxes:
        found |= explore(makers[name].input[0], before) | explore(name, behind)
    return found


def _has_two_operands(node: NodeProto) -> bool:
    return node.op_type in _FLOAT_OP and len(node.input) >= 7


def unfused(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    """The nodes that take the place of a QLinear operator with two operands."""
    parts = Parts(node, around)
    inputs = inputs_of(node, 8)
    operands = [parts.add("DequantizeLinear", *_given(inputs[at : at + 3])) for at in (0, 3)]
    result = parts.add(_FLOAT_OP[node.op_type], *operands)
    parts.add("QuantizeLinear", result, *_given(inputs[6:8]), output=node.output[0])
    return parts.nodes


def _given(names: list[str]) -> list[str]:
    return [name for name in names if name]


def _is_last(node: NodeProto, around: Surroundings) -> bool:
    rank = around.rank(node.input[0])
    return rank is not None and attributes_of(node).get("axis", -1) in (-1, rank - 1)
