"""com.microsoft QLinearSoftmax: DequantizeLinear, Softmax, QuantizeLinear."""

from __future__ import annotations

from onnx import NodeProto

from hccs_onnx.graph.fused.parts import Parts, Surroundings, attributes_of, inputs_of

_AXIS_ALONE = 13  # opset from which Softmax runs along one axis; before, along that and all behind it


def check(node: NodeProto, around: Surroundings) -> str | None:
    """Why a QLinearSoftmax node cannot be taken apart."""
    attributes = attributes_of(node)
    if attributes.get("axis", -1) == -1 or _is_last(node, around):
        return None
    if min(attributes.get("opset", _AXIS_ALONE), around.opset) >= _AXIS_ALONE:
        return None
    return f"its attribute axis is {attributes['axis']} in the sense of opset {attributes.get('opset')}: several axes"


def qlinear_softmax(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    """The nodes that take its place."""
    x, x_scale, x_zero, y_scale, y_zero = inputs_of(node, 5)
    parts = Parts(node, around)
    logits = parts.add("DequantizeLinear", *[name for name in (x, x_scale, x_zero) if name])
    axis = -1 if _is_last(node, around) else attributes_of(node).get("axis", -1)
    weights = parts.add("Softmax", logits, axis=axis)
    parts.add("QuantizeLinear", weights, *[name for name in (y_scale, y_zero) if name], output=node.output[0])
    return parts.nodes


def _is_last(node: NodeProto, around: Surroundings) -> bool:
    rank = around.rank(node.input[0])
    return rank is not None and attributes_of(node).get("axis", -1) in (-1, rank - 1)
