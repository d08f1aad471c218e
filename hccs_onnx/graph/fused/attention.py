"""com.microsoft Attention and QAttention: one product with the stacked weights of queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx import NodeProto, TensorProto

from hccs_onnx.graph.fused import core, masks
from hccs_onnx.graph.fused.parts import (
    NOT_COMPUTED,
    Parts,
    Surroundings,
    attributes_of,
    float_problem,
    heads_problem,
    inputs_of,
)


@dataclass(frozen=True)
class _Inputs:
    """Names of the inputs that both operators have; an empty name for one that is not there."""

    data: str
    weights: str
    bias: str
    mask: str
    past: str
    attention_bias: str = ""


def check_attention(node: NodeProto, around: Surroundings) -> str | None:
    """Why an Attention node cannot be taken apart."""
    inputs = _attention_inputs(node)
    return float_problem(node, around, inputs.data, inputs.weights, inputs.bias) or _problem(node, inputs, around)


def attention(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    """The nodes that take its place."""
    inputs = _attention_inputs(node)
    parts = Parts(node, around, around.element_type(inputs.data, inputs.weights, inputs.bias))
    projected = parts.add("MatMul", inputs.data, inputs.weights)
    _attend(parts, node, inputs, projected, around)
    return parts.nodes


def check_qattention(node: NodeProto, around: Surroundings) -> str | None:
    """Why a QAttention node cannot be taken apart."""
    data = node.input[0]
    kind = around.types[data].tensor_type.elem_type if data in around.types else TensorProto.UNDEFINED
    if kind == TensorProto.INT8:
        return f"its input '{data}' is of type int8, {NOT_COMPUTED}"
    return _problem(node, _qattention_inputs(node), around)


def qattention(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    """The nodes that take its place: the product in integers, its scale in float."""
    parts = Parts(node, around)
    data, weights, _, data_scale, weight_scale, _, data_zero, weight_zero, _ = inputs_of(node, 9)
    zeros = [data_zero, weight_zero]
    while zeros and not zeros[-1]:
        zeros.pop()
    product = parts.add("Cast", parts.add("MatMulInteger", data, weights, *zeros), to=TensorProto.FLOAT)
    projected = parts.add("Mul", product, parts.add("Mul", data_scale, weight_scale))
    _attend(parts, node, _qattention_inputs(node), projected, around)
    return parts.nodes


def _attention_inputs(node: NodeProto) -> _Inputs:
    return _Inputs(*inputs_of(node, 6))


def _qattention_inputs(node: NodeProto) -> _Inputs:
    data, weights, bias, _, _, mask, _, _, past = inputs_of(node, 9)
    return _Inputs(data, weights, bias, mask, past)


def _problem(node: NodeProto, inputs: _Inputs, around: Surroundings) -> str | None:
    attributes = attributes_of(node)
    for name in ("do_rotary", "past_present_share_buffer"):
        if attributes.get(name):
            return f"its attribute {name} is {attributes[name]}, {NOT_COMPUTED}"
    sizes: list[int | None] = [*_sizes(attributes, inputs, around)]
    problems = (
        heads_problem(size, attributes.get("num_heads", 0), "queries, keys or values") for size in sizes or [None]
    )
    return next(filter(None, problems), None) or masks.mask_problem(around, inputs.mask, "mask_index")


def _sizes(attributes: dict[str, Any], inputs: _Inputs, around: Surroundings) -> list[int]:
    """Widths of queries, keys and values; empty if they are not known."""
    sizes = list(attributes.get("qkv_hidden_sizes", []))
    width = around.size(inputs.weights, 1) or around.size(inputs.bias, 0) or 0
    return sizes if len(sizes) == 3 else [width // 3] * 3 if width else []


def _attend(parts: Parts, node: NodeProto, inputs: _Inputs, projected: str, around: Surroundings) -> None:
    attributes = attributes_of(node)
    heads = attributes["num_heads"]
    sizes = _sizes(attributes, inputs, around)
    if inputs.bias:
        projected = parts.add("Add", projected, inputs.bias)
    query, key, value = (
        core.by_head(parts, piece, heads, size // heads)
        for piece, size in zip(parts.split(projected, sizes, axis=2), sizes, strict=True)
    )
    present = node.output[1] if len(node.output) > 1 else ""
    if inputs.past:
        earlier = [parts.add("Gather", inputs.past, parts.index(which), axis=0) for which in (0, 1)]
        key = parts.add("Concat", earlier[0], key, axis=2)
        value = parts.add("Concat", earlier[1], value, axis=2)
    if present:
        parts.add("Concat", parts.unsqueeze(key, 0), parts.unsqueeze(value, 0), output=present, axis=0)
    visible = future = None
    keys = parts.dim(key, 2) if inputs.mask or attributes.get("unidirectional") else ""
    if inputs.mask:
        rank = around.rank(inputs.mask) or 0
        visible = masks.visible_keys(parts, inputs.mask, rank, parts.dim(query, 0) if rank == 1 else "", keys)
    if attributes.get("unidirectional"):
        queries = parts.dim(query, 2)
        future = masks.future_keys(parts, queries, keys, parts.add("Sub", keys, queries) if inputs.past else None)
    fill = attributes.get("mask_filter_value", -10000.0)
    core.attend(
        parts,
        query,
        key,
        value,
        heads=heads,
        scale=attributes.get("scale", 0.0) or (sizes[0] // heads) ** -0.5,
        addend=masks.addend(parts, visible, fill, future, inputs.attention_bias),
        width=sizes[2],
        output=node.output[0],
    )
