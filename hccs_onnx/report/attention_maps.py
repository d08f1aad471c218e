"""Attention maps of a few telling heads on one sample, original beside rewritten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hccs_onnx.backends import Backend, open_session
from hccs_onnx.calibration.collect import run, with_outputs
from hccs_onnx.calibration.data import Feed
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.reference import Array
from hccs_onnx.report.content import AttentionMap, Head
from hccs_onnx.verify import replaced_softmaxes

POSITIONS = 128
"""Most queries and keys that a map shows."""
_SEEN = 1e-20  # probability: a key that no query gives as much is masked


def telling_heads(heads: Sequence[Head]) -> list[tuple[Head, tuple[str, ...]]]:
    """Best, median and worst head, the most focused and the broadest, each once with all that it is; best first.

    Parameters
    ----------
    heads : sequence of Head
        Measured, with gaps.

    Examples
    --------
    >>> telling_heads([])
    []
    """
    ranked = sorted(
        (head for head in heads if head.measured is not None and math.isfinite(head.kl)), key=lambda head: head.kl
    )
    if not ranked:
        return []
    roles = {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}
    spread = [(head.gaps.breadth, head) for head in ranked if head.gaps is not None]
    if spread:
        roles["most focused"] = min(spread, key=lambda item: item[0])[1]
        roles["broadest"] = max(spread, key=lambda item: item[0])[1]
    chosen = [head for head in ranked if head in roles.values()]
    return [(head, tuple(role for role, owner in roles.items() if owner == head)) for head in chosen]


def attention_maps(
    original: Path, rewritten: Path, chosen: Sequence[tuple[Head, tuple[str, ...]]], feed: Feed, backend: Backend
) -> tuple[AttentionMap, ...]:
    """Probabilities of the chosen heads; of a batch those of its first sample. Heads in bodies are left out.

    Parameters
    ----------
    original, rewritten : pathlib.Path
        Both models.
    chosen : sequence of (Head, roles)
        From `telling_heads`.
    feed : mapping of str to ndarray
        The sample.
    backend : {'function', 'native', 'python'}
        What runs HCCS nodes.

    Raises
    ------
    ModelError, DataError
        If the models do not belong together, or fail.

    Examples
    --------
    >>> attention_maps(original, rewritten, telling_heads(heads), feed, "native")  # doctest: +SKIP
    """
    if not chosen:
        return ()
    models = [read_model(path) for path in (original, rewritten)]
    uncover(models[0], original.parent)
    pairs = replaced_softmaxes(models[0], models[1], (original, rewritten))
    replaced = {item.node: item for item in pairs if not item.place}
    wanted = [(head, roles, replaced[head.node]) for head, roles in chosen if head.node in replaced]
    if not wanted:
        return ()
    names = list(dict.fromkeys(item.probabilities for _, _, item in wanted))
    sessions = (
        load_session(with_outputs(models[0], names), original),
        open_session(with_outputs(models[1], names), rewritten, backend),
    )
    both = [dict(zip(names, run(session, names, feed), strict=True)) for session in sessions]
    maps = []
    for head, roles, item in wanted:
        pair = [_head_rows(outputs[item.probabilities], head.index) for outputs in both]
        square = item.self_attention and pair[0].shape[0] == pair[0].shape[1]
        queries, keys = _live(pair[0], square)
        if not queries.size:  # all masked
            continue
        cut = max(queries.size, keys.size) > POSITIONS
        shown = [rows[np.ix_(queries[:POSITIONS], keys[:POSITIONS])] for rows in pair]
        maps.append(AttentionMap(head, roles, shown[0], shown[1], cut))
    return tuple(maps)


def _head_rows(probabilities: Array, head: int) -> Array:
    """Rows (query, key) of one head of the first sample."""
    rows = np.atleast_2d(probabilities)
    result: Array = rows.reshape(-1, *rows.shape[-2:])[head].astype(np.float64)
    return result


def _live(rows: Array, square: bool) -> tuple[Array, Array]:
    """Positions of queries and keys that are not padding."""
    keys = np.flatnonzero((rows > _SEEN).any(axis=0))
    if square:  # a position that is masked as a key in every row is padding
        return keys, keys
    return np.flatnonzero(rows.sum(axis=1) > 0.5), keys
