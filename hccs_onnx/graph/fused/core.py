"""Attention in standard operators: what all families end in."""

from __future__ import annotations

import numpy as np

from hccs_onnx.graph.fused.parts import Parts

END = int(np.iinfo(np.int64).max)  # where a Slice goes to the end


def by_head(parts: Parts, x: str, heads: int, size: int) -> str:
    """(batch, position, heads * size) to (batch, head, position, size); -1 for a size that is not known."""
    return parts.transpose(parts.reshape(x, 0, 0, heads, size), 0, 2, 1, 3)


def with_past(parts: Parts, past: str, x: str, present: str, length: str = "") -> str:
    """Earlier keys or values before the new ones, (batch, head, position, size).

    Parameters
    ----------
    parts : Parts
        Where the nodes go.
    past, x : str
        Earlier ones, if there are any, and new ones.
    present : str
        Name of what the node puts out for the next step, if it does.
    length : str
        How many positions of `past` count (a list of one int64), where it is a buffer that keeps its size.
    """
    if not past:
        return parts.add("Identity", x, output=present) if present else x
    if not length:
        return parts.add("Concat", past, x, output=present, axis=2)
    both = parts.add("Concat", parts.take(past, parts.ints(0), length, 2), x, axis=2)
    if present:
        rest = parts.take(past, parts.reshape(parts.dim(both, 2), 1), parts.ints(END), 2)
        parts.add("Concat", both, rest, output=present, axis=2)
    return both


def attend(
    parts: Parts,
    query: str,
    key: str,
    value: str,
    *,
    heads: int,
    groups: int = 1,
    scale: float,
    softcap: float = 0.0,
    addend: str | None,
    logits: str = "",
    width: int,
    output: str,
) -> None:
    """Softmax(scale * query key' + addend) value, and the heads put side by side.

    Parameters
    ----------
    parts : Parts
        Where the nodes go.
    query, key, value : str
        (batch, head, position, size); keys and values have `groups` times fewer heads.
    heads, groups : int
        Heads of the queries, and how many of them share keys and values.
    scale, softcap : float
        Logits are scaled, then bent to softcap * tanh(logits / softcap) if it is positive.
    addend : str or None
        Masks and biases, broadcast to (batch, head, query, key).
    logits : str
        What the node calls the logits, if it puts them out.
    width : int
        Size of the output's last axis; -1 if not known.
    output : str
        Name of the result (batch, query, width).
    """
    if groups > 1:  # heads that share keys are further rows
        query = parts.reshape(query, 0, heads // groups, -1, 0)
    product = parts.add("MatMul", query, parts.transpose(key, 0, 1, 3, 2))
    if groups > 1:
        product = parts.reshape(product, 0, heads, -1, 0)
    product = parts.add("Mul", product, parts.number(scale))
    if softcap > 0:
        bent = parts.add("Tanh", parts.add("Div", product, parts.number(softcap)))
        product = parts.add("Mul", bent, parts.number(softcap))
    if addend is not None:
        product = parts.add("Add", product, addend)
    if logits:
        product = parts.add("Identity", product, output=logits)
    weights = parts.add("Softmax", product, axis=-1)
    if groups > 1:
        weights = parts.reshape(weights, 0, heads // groups, -1, 0)
    result = parts.add("MatMul", weights, value)
    if groups > 1:
        result = parts.reshape(result, 0, heads, -1, 0)
    parts.reshape(parts.transpose(result, 0, 2, 1, 3), 0, 0, width, output=output)
