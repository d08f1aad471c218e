"""What several layers compute alike from the same mask: computed once."""

from __future__ import annotations

from collections.abc import Collection

from onnx import NodeProto

_KEPT_APART = ("MatMul", "MatMulInteger", "Softmax")  # each attention has its own


def share(nodes: list[NodeProto], new: Collection[str]) -> list[NodeProto]:
    """Leave out nodes that compute what an earlier one does.

    Parameters
    ----------
    nodes : list of NodeProto
        In order; inputs of new ones are changed in place.
    new : collection of str
        Outputs that only new nodes read.

    Examples
    --------
    >>> import onnx
    >>> graph = onnx.parser.parse_graph("g (float x) => (float y) { a = Neg (x) b = Neg (x) y = Add (a, b) }")
    >>> [list(node.input) for node in share(list(graph.node), {"a", "b"})]
    [['x'], ['a', 'a']]
    """
    same: dict[str, str] = {}
    first: dict[bytes, str] = {}
    kept = []
    for node in nodes:
        for position, name in enumerate(node.input):
            if name in same:
                node.input[position] = same[name]
        if len(node.output) == 1 and node.output[0] in new and node.op_type not in _KEPT_APART:
            known = first.setdefault(_content(node), node.output[0])
            if known != node.output[0]:
                same[node.output[0]] = known
                continue
        kept.append(node)
    return kept


def _content(node: NodeProto) -> bytes:
    """All but its names."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = ""
    del copy.output[:]
    return copy.SerializeToString(deterministic=True)
