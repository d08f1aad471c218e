"""Operators that hide a Softmax, taken apart where their parts compute the same.

Each family of operators is a module with a `check`, which returns why a node has to be left whole, and a function that
returns the nodes that take its place. `FAMILIES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import NodeProto

from hccs_onnx.graph.fused import attention, grouped_query, multi_head, qlinear, standard
from hccs_onnx.graph.fused.parts import Surroundings, surroundings_of
from hccs_onnx.graph.fused.rounds import expand_in_rounds
from hccs_onnx.graph.fused.sharing import share
from hccs_onnx.graph.names import is_default_domain, nested_graphs

RUNTIME = "com.microsoft"
_NO_KERNEL = "onnxruntime's CPU provider does not compute it, so that its parts could not be compared with it"


@dataclass(frozen=True)
class Family:
    """How one operator is taken apart.

    Parameters
    ----------
    check : callable
        Returns why a node has to be left whole; None if it can be taken apart.
    parts : callable
        Returns the nodes that take its place, once `check` has returned None.
    """

    check: Callable[[NodeProto, Surroundings], str | None]
    parts: Callable[[NodeProto, Surroundings], list[NodeProto]]


FAMILIES: Mapping[tuple[str, str], Family] = {
    ("ai.onnx", "Attention"): Family(standard.check, standard.parts),
    (RUNTIME, "Attention"): Family(attention.check_attention, attention.attention),
    (RUNTIME, "QAttention"): Family(attention.check_qattention, attention.qattention),
    (RUNTIME, "MultiHeadAttention"): Family(multi_head.check, multi_head.multi_head_attention),
    (RUNTIME, "DecoderMaskedMultiHeadAttention"): Family(multi_head.check_decoder, multi_head.multi_head_attention),
    (RUNTIME, "GroupQueryAttention"): Family(grouped_query.check, grouped_query.group_query_attention),
    (RUNTIME, "QLinearSoftmax"): Family(qlinear.check, qlinear.qlinear_softmax),
}
"""Operators that can be taken apart, by domain and name."""

LEFT_WHOLE: Mapping[tuple[str, str], str] = {
    (RUNTIME, "BiasSoftmax"): _NO_KERNEL,
    (RUNTIME, "DecoderAttention"): _NO_KERNEL,
    (RUNTIME, "DecoderMaskedSelfAttention"): _NO_KERNEL,
    (RUNTIME, "LongformerAttention"): _NO_KERNEL,
    (RUNTIME, "PackedAttention"): _NO_KERNEL,
    (RUNTIME, "PackedMultiHeadAttention"): _NO_KERNEL,
    (RUNTIME, "PagedAttention"): _NO_KERNEL,
    (RUNTIME, "QOrderedAttention"): _NO_KERNEL,
    (RUNTIME, "QOrderedLongformerAttention"): _NO_KERNEL,
    (RUNTIME, "SparseAttention"): "its mask is a table of blocks (inputs 'block_row_indices' and 'block_col_indices')",
}
"""Operators that cannot, and why."""


def expand_fused(model: onnx.ModelProto, folder: Path, keep: Collection[str] = ()) -> dict[str, str]:
    """Take fused operators apart, in place, those in bodies of If, Loop and Scan too.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where it lies.
    keep : collection of str
        First outputs of nodes to leave as they are.

    Returns
    -------
    dict of str to str
        For each Softmax that came to light, its output and the first output of the node that held it.

    Examples
    --------
    >>> expand_fused(model, Path("models"))  # doctest: +SKIP
    {'y/Softmax': 'y'}
    """
    return expand_in_rounds(
        model,
        folder,
        lambda graph: _candidates(graph, keep),
        lambda graph, around: _expand_graph(graph, around, _candidates(graph, keep)),
    )


def why_whole(model: onnx.ModelProto, folder: Path) -> dict[str, str]:
    """Why fused operators are whole, by first output; those in functions are not looked at.

    Examples
    --------
    >>> why_whole(model, Path("models"))  # doctest: +SKIP
    {'y': 'its attribute do_rotary is 1, which onnxruntime's CPU provider does not compute'}
    """
    graphs = nested_graphs(model.graph)
    fused = [node for graph in graphs for node in graph.node if is_fused(node) and node.output]
    if not fused:
        return {}
    around = surroundings_of(model, folder)
    return {node.output[0]: _problem(node, around) or "it is to stay whole" for node in fused}


def is_fused(node: NodeProto) -> bool:
    """Whether a node is of an operator with a Softmax inside."""
    key = _key(node)
    return key in FAMILIES or key in LEFT_WHOLE


def _candidates(graph: onnx.GraphProto, keep: Collection[str]) -> set[str]:
    return {node.output[0] for node in graph.node if _key(node) in FAMILIES and any(node.output[:1])} - set(keep)


def _expand_graph(graph: onnx.GraphProto, around: Surroundings, candidates: set[str]) -> dict[str, str]:
    apart = {
        node.output[0]: FAMILIES[_key(node)].parts
        for node in graph.node
        if node.output and node.output[0] in candidates and _problem(node, around) is None
    }
    softmaxes = [node.output[0] for node in graph.node if node.op_type == "QLinearSoftmax" and node.output[0] in apart]
    apart |= dict.fromkeys(qlinear.around(graph.node, softmaxes), qlinear.unfused)
    found: dict[str, str] = {}
    inner: set[str] = set()
    nodes: list[NodeProto] = []
    for node in graph.node:
        if not node.output or node.output[0] not in apart:
            nodes.append(node)
            continue
        parts = apart[node.output[0]](node, around)
        found |= {part.output[0]: node.output[0] for part in parts if part.op_type == "Softmax"}
        if node.domain == RUNTIME:
            inner |= {name for part in parts for name in part.output} - set(node.output)
        nodes += parts
    if not found:
        return {}
    kept = [NodeProto.FromString(node.SerializeToString()) for node in share(nodes, inner)]
    del graph.node[:]
    graph.node.extend(kept)
    return found


def _key(node: NodeProto) -> tuple[str, str]:
    return "ai.onnx" if is_default_domain(node.domain) else node.domain, node.op_type


def _problem(node: NodeProto, around: Surroundings) -> str | None:
    key = _key(node)
    if key in LEFT_WHOLE:
        return LEFT_WHOLE[key]
    if not node.input:
        return "it has no inputs"
    return FAMILIES[key].check(node, around)
