"""Which rows of a projection's input belong to positions that are not padding."""

from __future__ import annotations

import numpy as np

from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.reference import Array

_NEGLIGIBLE = 1e-20  # probability: a masked position's


def live_positions(item: AttentionSoftmax, probabilities: Array, shape: tuple[int, ...]) -> Array | None:
    """Rows of queries that are not padding; None where that cannot be told.

    Parameters
    ----------
    item : AttentionSoftmax
        What was found.
    probabilities : ndarray of float, shape (batch..., head, query, key) or (batch*head, query, key)
        What the float model's Softmax puts out.
    shape : tuple of int
        Of the projection's input, without its last axis.

    Returns
    -------
    ndarray of bool, shape (row,), or None

    Notes
    -----
    In self-attention a position that is masked as a key in every row is padding.
    """
    heads = item.heads or 1
    queries, keys = probabilities.shape[-2:]
    if queries != keys or probabilities.ndim < 3:
        return None
    seen = np.asarray(probabilities > _NEGLIGIBLE).any(axis=-2, keepdims=True).reshape(-1, heads, keys)
    live = seen.max(axis=1)
    samples = live.shape[0]
    rows: Array = live.ravel()
    if shape == (keys, samples) and samples > 1:
        rows = live.T.ravel()
    elif shape != (samples, keys) and samples > 1:
        return None
    return rows if rows.size == np.prod(shape) else None
