"""com.microsoft MultiHeadAttention and DecoderMaskedMultiHeadAttention: projected outside, apart or packed."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

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
    """Names of the inputs; an empty name for one that is not there."""

    query: str
    key: str
    value: str
    bias: str
    mask: str
    attention_bias: str
    past_key: str
    past_value: str
    past_length: str
    indirection: str


def _inputs(node: NodeProto) -> _Inputs:
    if node.op_type == "MultiHeadAttention":
        return _Inputs(*inputs_of(node, 10))
    query, key, value, mask, attention_bias, past_key, past_value, length, _, indirection, bias = inputs_of(node, 11)
    return _Inputs(query, key, value, bias, mask, attention_bias, past_key, past_value, length, indirection)


def check(node: NodeProto, around: Surroundings) -> str | None:
    """Why a MultiHeadAttention node cannot be taken apart."""
    inputs, attributes = _inputs(node), attributes_of(node)
    if inputs.indirection:
        return "input 'cache_indirection' picks keys of other beams"
    if bool(inputs.past_key) != bool(inputs.past_value):
        return "of its inputs 'past_key' and 'past_value' only one is there"
    if inputs.key and inputs.value and around.rank(inputs.key) not in (3, 4):
        return f"the rank of input 'key' is {around.rank(inputs.key) or 'not known'}, not 3 or 4"
    if inputs.key and around.rank(inputs.key) == 4 and attributes.get("unidirectional"):
        return "attribute unidirectional has no meaning for keys that come as a past (input 'key' has 4 axes)"
    heads = attributes.get("num_heads", 0)
    problem = heads_problem(_width(inputs, heads, around), heads, "queries")
    problem = problem or masks.mask_problem(around, inputs.mask, "key_padding_mask")
    return problem or float_problem(node, around, inputs.query, inputs.key, inputs.value, inputs.bias)


def check_decoder(node: NodeProto, around: Surroundings) -> str | None:
    """Why a DecoderMaskedMultiHeadAttention node cannot be taken apart."""
    inputs = _inputs(node)
    if not inputs.key:
        return f"input 'key' is not there (queries, keys and values packed), {NOT_COMPUTED}"
    across = around.rank(inputs.key) == 4
    if across and inputs.attention_bias:
        return f"input 'attention_bias' goes with keys of another sequence, {NOT_COMPUTED}"
    if inputs.mask and around.rank(inputs.mask) != 2:
        return f"input 'mask_index' has {around.rank(inputs.mask) or 'an unknown number of'} axes, {NOT_COMPUTED}"
    if not across and not (inputs.past_key and attributes_of(node).get("past_present_share_buffer")):
        return f"its attribute past_present_share_buffer is 0, {NOT_COMPUTED}"
    return check(node, around)


def multi_head_attention(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    """The nodes that take the place of either operator."""
    inputs, attributes = _inputs(node), attributes_of(node)
    heads, causal = attributes["num_heads"], bool(attributes.get("unidirectional"))
    size = (_width(inputs, heads, around) or 0) // heads
    parts = Parts(node, around, around.element_type(inputs.query, inputs.key, inputs.value, inputs.bias))
    query, key, value = _heads(parts, inputs, heads, size, around)
    new_keys = parts.dim(key, 2) if causal and inputs.past_key else ""
    present_key, present_value, logits = [*node.output[1:], "", "", ""][:3]
    length = parts.reshape(parts.as_int64(inputs.past_length), 1) if inputs.past_length else ""
    key = core.with_past(parts, inputs.past_key, key, present_key, length)
    value = core.with_past(parts, inputs.past_value, value, present_value, length)
    keys = parts.dim(key, 2) if inputs.mask or causal else ""
    visible = future = None
    if inputs.mask:
        rank = around.rank(inputs.mask) or 0
        visible = masks.visible_keys(parts, inputs.mask, rank, parts.dim(query, 0) if rank == 1 else "", keys)
    if causal:
        past = parts.add("Sub", keys, new_keys) if new_keys else None
        future = masks.future_keys(parts, parts.dim(query, 2), keys, past, last_sees_all=True)
    core.attend(
        parts,
        query,
        key,
        value,
        heads=heads,
        scale=attributes.get("scale", 0.0) or size**-0.5,
        addend=masks.addend(
            parts, visible, attributes.get("mask_filter_value", -10000.0), future, inputs.attention_bias
        ),
        logits=logits,
        width=-1,
        output=node.output[0],
    )
    return parts.nodes


def _width(inputs: _Inputs, heads: int, around: Surroundings) -> int | None:
    """Width of all heads of queries together; None if it is not known."""
    if inputs.key:
        widths = [around.size(inputs.query, 2)]
        widths += [around.size(inputs.key, 2)] if around.rank(inputs.key) == 3 else []
        known = next((width for width in widths if width), None)
        if known is not None:
            return known
        by_head = next((name for name in (inputs.key, inputs.past_key) if around.rank(name) in (4, 5)), "")
    else:
        by_head = inputs.query  # packed: (batch, position, head, 3, size)
    size = around.size(by_head, -1) if around.rank(by_head) in (4, 5) else None
    return None if size is None else size * heads


def _heads(parts: Parts, inputs: _Inputs, heads: int, size: int, around: Surroundings) -> tuple[str, str, str]:
    """Queries, keys and values as (batch, head, position, size), with their share of the bias."""
    query, key, value = inputs.query, inputs.key, inputs.value
    if not key:
        query, key, value = (_unpacked(parts, query, which) for which in range(3))
    elif not value:
        key, value = (_unpacked(parts, key, which) for which in range(2))
    packed = (not inputs.key, not inputs.value, not inputs.value)
    width = heads * size
    ends = (0, width, 2 * width, core.END)
    done = []
    for which, name in enumerate((query, key, value)):
        if which and around.rank(inputs.key) == 4:
            done.append(name)
            continue
        start, end = (parts.ints(end) for end in ends[which : which + 2]) if inputs.bias else ("", "")
        bias = parts.take(inputs.bias, start, end, 0) if inputs.bias else ""
        if packed[which]:
            biased = parts.add("Add", name, parts.reshape(bias, heads, -1)) if bias else name
            done.append(parts.transpose(biased, 0, 2, 1, 3))
        else:
            biased = parts.add("Add", name, bias) if bias else name
            done.append(core.by_head(parts, biased, heads, size if which < 2 else -1))
    return done[0], done[1], done[2]


def _unpacked(parts: Parts, x: str, which: int) -> str:
    """(batch, position, head, size) of (batch, position, head, 2 or 3, size)."""
    return parts.add("Gather", x, parts.index(which), axis=3)
