"""Masks of onnxruntime's attention operators, as what is added to the logits (batch, head, query, key)."""

from __future__ import annotations

from hccs_onnx.graph.fused.parts import NOT_COMPUTED, Parts, Surroundings

_RANKS = (1, 2, 3)


def mask_problem(around: Surroundings, name: str, role: str) -> str | None:
    """Why a mask cannot be written in standard operators."""
    if not name:
        return None
    rank = around.rank(name)
    if rank is None:
        return f"the rank of input '{role}' is not known"
    if rank not in _RANKS:
        return f"input '{role}' has {rank} axes, {NOT_COMPUTED}"
    return None


def visible_keys(parts: Parts, mask: str, rank: int, batch: str, keys: str) -> str:
    """Whether a key may be seen, (batch, 1, query or 1, key).

    Parameters
    ----------
    parts : Parts
        Where the nodes go.
    mask : str
        Rank 1: key lengths, behind them possibly where keys begin; rank 2 (batch, key) and rank 3 (batch, query, key):
        positive where visible.
    rank : int
        Its number of axes.
    batch, keys : str
        Number of samples and of keys, int64 scalars.
    """
    if rank > 1:
        positive = parts.add("Greater", parts.as_int64(mask), parts.index(0))
        return parts.unsqueeze(positive, *((1, 2) if rank == 2 else (1,)))
    mask, count = parts.as_int64(mask), parts.reshape(batch, 1)
    twice = parts.add("Add", count, count)
    ends = parts.reshape(parts.take(mask, parts.ints(0), count, 0), -1, 1, 1, 1)
    # (2 * batch) has beginnings behind the ends, (batch) has none and (3 * batch + 2) other things.
    zeros = parts.add("Expand", parts.ints(0), count)
    second = parts.take(parts.add("Concat", mask, zeros, axis=0), count, twice, 0)
    has_begins = parts.add("Equal", parts.add("Shape", mask), twice)
    begins = parts.reshape(parts.add("Where", has_begins, second, zeros), -1, 1, 1, 1)
    position = parts.counted(keys, 1, 1, 1, -1)
    late = parts.add("Not", parts.add("Less", position, begins))
    return parts.add("And", parts.add("Less", position, ends), late)


def future_keys(parts: Parts, queries: str, keys: str, past: str | None, *, last_sees_all: bool = False) -> str:
    """Whether a key comes after the query, (1, 1, query, key).

    Parameters
    ----------
    parts : Parts
        Where the nodes go.
    queries, keys : str
        How many there are, int64 scalars.
    past : str or None
        Position of the first query, an int64 scalar; None for 0.
    last_sees_all : bool
        Whether the last query sees keys behind its position, too, where there are any: so onnxruntime computes it.
    """
    index = parts.counted(queries, 1, 1, -1, 1)
    row = index if past is None else parts.add("Add", index, past)
    future = parts.add("Greater", parts.counted(keys, 1, 1, 1, -1), row)
    if not last_sees_all:
        return future
    return parts.add("And", future, parts.add("Less", index, parts.add("Sub", queries, parts.index(1))))


def addend(parts: Parts, visible: str | None, fill: float, future: str | None, bias: str) -> str | None:
    """What is added to the logits, if anything: `fill` where a key is not visible, the lowest number in the future."""
    mask = None
    if visible is not None:
        mask = parts.add("Where", visible, parts.number(0), parts.number(fill))
    if future is not None:
        mask = parts.add("Where", future, parts.number(parts.lowest), mask or parts.number(0))
    if mask is None:
        return bias or None
    return parts.add("Add", bias, mask) if bias else mask
