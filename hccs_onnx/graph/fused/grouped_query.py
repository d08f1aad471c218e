"""com.microsoft GroupQueryAttention: each sample fills a part of a buffer of earlier keys and values."""

from __future__ import annotations

from typing import Any, NamedTuple

from onnx import NodeProto

from hccs_onnx.graph.fused import core, masks
from hccs_onnx.graph.fused.parts import Parts, Surroundings, attributes_of, float_problem, heads_problem, inputs_of
from hccs_onnx.graph.fused.rotary import rotate

_OPSET = 12  # from which GatherND can take one index list for each sample
_REFUSED_INPUTS = {
    "head_sink": "adds a term to the row sum that a Softmax has not",
    "k_scale": "means a quantised cache",
    "v_scale": "means a quantised cache",
    "q_norm_weight": "is not computed by onnxruntime's CPU provider",
    "k_norm_weight": "is not computed by onnxruntime's CPU provider",
}
_REFUSED_ATTRIBUTES = {
    "smooth_softmax": "adds a term to the row sum that a Softmax has not",
    "sliding_window_cache": "moves keys about in the cache",
    "qk_output": "puts out what lies around the Softmax",
}


class _Inputs(NamedTuple):
    """Names of the inputs; an empty name for one that is not there."""

    query: str
    key: str
    value: str
    past_key: str
    past_value: str
    lengths: str
    total: str
    cosine: str
    sine: str
    position: str
    attention_bias: str
    head_sink: str
    k_scale: str
    v_scale: str
    q_norm_weight: str
    k_norm_weight: str
    query_lengths: str


def check(node: NodeProto, around: Surroundings) -> str | None:
    """Why a GroupQueryAttention node cannot be taken apart."""
    inputs = _Inputs(*inputs_of(node, 17))
    attributes = attributes_of(node)
    for name, why in _REFUSED_INPUTS.items():
        if getattr(inputs, name):
            return f"input '{name}' {why}"
    for name, why in _REFUSED_ATTRIBUTES.items():
        if attributes.get(name, 0) not in (0, -1):
            return f"attribute {name} is {attributes[name]}, which {why}"
    if len(node.output) > 3 and node.output[3]:
        return "output 'output_qk' is what lies around the Softmax"
    if not inputs.lengths or not inputs.total:
        return "input 'seqlens_k' or 'total_sequence_length' is missing"
    if bool(inputs.past_key) != bool(inputs.past_value) or bool(inputs.key) != bool(inputs.value):
        return "of its inputs 'key' and 'value' or 'past_key' and 'past_value' only one is there"
    if around.opset < _OPSET:
        return f"the model's opset is {around.opset}, in which GatherND has no batch_dims"
    heads, kv_heads = attributes.get("num_heads", 0), attributes.get("kv_num_heads", 0)
    if kv_heads < 1 or heads % kv_heads:
        return f"its attribute kv_num_heads is {kv_heads}, not a divisor of its {heads} heads"
    problem = heads_problem(_width(inputs, heads, kv_heads, around), heads, "queries")
    if problem is not None:
        return problem
    if attributes.get("do_rotary") and around.size(inputs.cosine, 1) is None:
        return "the width of input 'cos_cache' is not known"
    return float_problem(node, around, inputs.query, inputs.past_key, inputs.cosine)


def group_query_attention(node: NodeProto, around: Surroundings) -> list[NodeProto]:
    """The nodes that take its place."""
    inputs = _Inputs(*inputs_of(node, 17))
    attributes = attributes_of(node)
    heads, kv_heads = attributes["num_heads"], attributes["kv_num_heads"]
    size = (_width(inputs, heads, kv_heads, around) or 0) // heads
    parts = Parts(node, around, around.element_type(inputs.query, inputs.past_key, inputs.cosine))
    query, key, value = inputs.query, inputs.key, inputs.value
    if not key:
        query, key, value = parts.split(query, [heads * size, kv_heads * size, kv_heads * size], axis=2)
    query = parts.reshape(query, 0, 0, heads, size)
    key, value = (parts.reshape(name, 0, 0, kv_heads, size) for name in (key, value))
    new = parts.dim(query, 1)
    known, past = _lengths(parts, inputs, new)
    if attributes.get("do_rotary"):
        cosine, sine = _angles(parts, inputs, past, new)
        turned = 2 * (around.size(inputs.cosine, 1) or 0)
        interleaved = bool(attributes.get("rotary_interleaved"))
        query, key = (
            rotate(parts, x, cosine, sine, heads=count, size=size, turned=turned, interleaved=interleaved)
            for x, count in ((query, heads), (key, kv_heads))
        )
    present = [*node.output[1:3], "", ""][:2]
    keys = new
    if inputs.past_key:
        total = parts.reshape(parts.as_int64(inputs.total), 1)
        keys = parts.reshape(total)
        places = _places(parts, inputs.past_key, total, past, new)
        key = _cache(parts, inputs.past_key, key, places, present[0], total)
        value = _cache(parts, inputs.past_value, value, places, present[1], total)
    else:
        key, value = (
            parts.transpose(x, 0, 2, 1, 3, output=name) for x, name in ((key, present[0]), (value, present[1]))
        )
    core.attend(
        parts,
        parts.transpose(query, 0, 2, 1, 3),
        key,
        value,
        heads=heads,
        groups=heads // kv_heads,
        scale=attributes.get("scale", 0.0) or size**-0.5,
        softcap=attributes.get("softcap", 0.0),
        addend=masks.addend(parts, None, 0, _hidden(parts, attributes, known, past, new, keys), inputs.attention_bias),
        width=heads * size,
        output=node.output[0],
    )
    return parts.nodes


def _width(inputs: _Inputs, heads: int, kv_heads: int, around: Surroundings) -> int | None:
    """Width of all heads of queries together; None if it is not known."""
    width = around.size(inputs.query, 2)
    if width is not None:
        return width if inputs.key else width * heads // (heads + 2 * kv_heads)
    width = around.size(inputs.key, 2) if inputs.key else None
    if width is not None:
        return width * heads // kv_heads
    size = around.size(inputs.past_key, 3)
    return None if size is None else size * heads


def _lengths(parts: Parts, inputs: _Inputs, new: str) -> tuple[str, str]:
    """Filled positions after and before this step, (batch, 1)."""
    known = parts.add("Add", parts.reshape(parts.as_int64(inputs.lengths), -1, 1), parts.index(1))
    if inputs.query_lengths:
        added = parts.reshape(parts.as_int64(inputs.query_lengths), -1, 1)
    else:
        added = parts.add("Min", known, new)
    return known, parts.add("Sub", known, added)


def _angles(parts: Parts, inputs: _Inputs, past: str, new: str) -> list[str]:
    """Cosine and sine of the new positions, (batch, position, 1, half)."""
    last = parts.add("Sub", parts.dim(inputs.cosine, 0), parts.index(1))
    if inputs.position and inputs.query_lengths:
        position = inputs.position
    elif inputs.position:  # of the first prompt only the first element counts
        start = parts.add("Gather", parts.reshape(inputs.position, -1), parts.index(0), axis=0)
        counted = parts.add("Add", start, parts.counted(new, 1, -1))
        first = parts.add("Equal", parts.reshape(parts.as_int64(inputs.total)), new)
        position = parts.add("Where", first, counted, inputs.position)
    else:
        position = parts.add("Add", past, parts.counted(new, 1, -1))
    position = parts.add("Min", position, last)  # padding may lie beyond the end
    return [parts.unsqueeze(parts.add("Gather", table, position, axis=0), 2) for table in (inputs.cosine, inputs.sine)]


def _places(parts: Parts, buffer: str, total: str, past: str, new: str) -> str:
    """Where each position of the new buffer lies in the old one with the new positions behind, (batch, position, 1)."""
    old = parts.dim(buffer, 2)
    length = parts.add("Max", old, parts.reshape(total))
    position = parts.counted(length, 1, -1)
    last = parts.add("Sub", parts.add("Add", old, new), parts.index(1))
    behind = parts.add("Min", parts.add("Add", parts.add("Sub", position, past), old), last)
    return parts.unsqueeze(parts.add("Where", parts.add("Less", position, past), position, behind), 2)


def _cache(parts: Parts, buffer: str, x: str, places: str, present: str, total: str) -> str:
    """All positions below `total`, (batch, head, position, size), as far as a sample has them."""
    both = parts.add("Concat", parts.transpose(buffer, 0, 2, 1, 3), x, axis=1)
    filled = parts.transpose(parts.add("GatherND", both, places, batch_dims=1), 0, 2, 1, 3, output=present)
    return parts.take(filled, parts.ints(0), total, 2)


def _hidden(parts: Parts, attributes: dict[str, Any], known: str, past: str, new: str, keys: str) -> str:
    """Whether a query must not see a key, (batch, 1, query or 1, key)."""
    column = parts.counted(keys, 1, 1, 1, -1)
    if not attributes.get("causal", 1):
        return parts.add("Not", parts.add("Less", column, parts.reshape(known, -1, 1, 1, 1)))
    row = parts.add("Add", parts.counted(new, 1, 1, -1, 1), parts.reshape(past, -1, 1, 1, 1))
    hidden = parts.add("Greater", column, row)
    window = attributes.get("local_window_size", -1)
    if window > 0:
        first = parts.add("Sub", row, parts.index(window - 1))
        hidden = parts.add("Or", hidden, parts.add("Less", column, first))
    return hidden
