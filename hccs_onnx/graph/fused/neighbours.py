"""Finding nodes a few steps away from a Softmax."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from onnx import NodeProto

_DEPTH = 16  # nodes between a product and the Softmax


def explore(start: str, onward: Callable[[str], tuple[list[str], list[str]]]) -> set[str]:
    """What is found on the way from a tensor, each tensor looked at once.

    Parameters
    ----------
    start : str
        Where to begin.
    onward : callable
        For a tensor, what is found there and the tensors to go on with.

    Examples
    --------
    >>> sorted(explore("a", lambda name: ([name], [name + "b"] if len(name) < 3 else [])))
    ['a', 'ab', 'abb']
    """
    found: set[str] = set()
    seen: set[str] = set()
    level = [start]
    for _ in range(_DEPTH):
        following: list[str] = []
        for name in level:
            if name not in seen:
                seen.add(name)
                here, further = onward(name)
                found.update(here)
                following += further
        level = following
    return found


def makers_of(nodes: Iterable[NodeProto]) -> dict[str, NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in nodes for name in node.output if name}


def readers_of(nodes: Iterable[NodeProto]) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor."""
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in set(node.input) - {""}:
            readers.setdefault(name, []).append(node)
    return readers
