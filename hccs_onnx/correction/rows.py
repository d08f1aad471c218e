"""Which rows of a projection's input belong to positions that are not padding."""

from __future__ import annotations

import math

from hccs_onnx.calibration.live_rows import counted_rows
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.reference import Array


def live_positions(item: AttentionSoftmax, logits: Array, shape: tuple[int, ...]) -> Array | None:
    """Rows of queries that are not padding; None where it cannot be told which row is whose.

    Parameters
    ----------
    item : AttentionSoftmax
        What was found.
    logits : ndarray of float, shape (batch..., head, query, key) or (batch*head, query, key)
        What the float model's Softmax reads, nats.
    shape : tuple of int
        Of the projection's input, without its last axis: (sample, query) or (query, sample), the first where both fit;
        any of one sample.

    Returns
    -------
    ndarray of bool, shape (row,), or None
        A position counts if its row does in some head.

    Examples
    --------
    >>> import numpy as np
    >>> item = AttentionSoftmax("n", 0, "x", "p", "p", heads=1, masked=True, self_attention=True)
    >>> live_positions(item, np.array([[[0.0, -1e4], [0.0, -1e4]]]), (1, 2))
    array([ True, False])
    """
    live = counted_rows(item, logits).any(axis=1)
    samples, queries = live.shape
    if shape == (samples, queries) or (samples == 1 and math.prod(shape) == queries):
        return live.ravel()
    return live.T.ravel() if shape == (queries, samples) else None
