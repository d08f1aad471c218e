"""Which rows of logits count, and which of their keys: the one rule of what is padding.

Calibration, correction and `verify` go by it. It looks at logits: behind a finite mask a row that is masked throughout
has uniform probabilities, in which nothing tells it from a real one.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hccs_onnx.params import DEFAULT_MASK_GAP
from hccs_onnx.reference import Array

MASKED_ROW = -1000.0  # a row whose maximum lies below is a row of masked keys only


class Attended(Protocol):
    """What has to be known of a Softmax: an `AttentionSoftmax`, or what a sketch remembers of it."""

    @property
    def heads(self) -> int | None:
        """Number of heads; None if the graph does not tell."""

    @property
    def head_axis(self) -> int:
        """Axis of the logits along which heads lie."""

    @property
    def masked(self) -> bool:
        """Whether positions can be masked."""

    @property
    def self_attention(self) -> bool:
        """Whether a masked key is a padded query."""


def head_count(item: Attended, logits: Array) -> int:
    """Number of heads; where the graph does not tell, the size of an axis that they have for themselves."""
    if item.heads is not None:
        return item.heads
    return int(logits.shape[item.head_axis]) if logits.ndim >= 4 else 1


def by_head(values: Array, heads: int) -> Array:
    """Logits or probabilities as float64 of shape (sample, head, query, key).

    Parameters
    ----------
    values : ndarray of float, shape (batch..., head, query, key)
        The head axis has a multiple of `heads`, as it also holds the batch where that is folded into it; of fewer than
        three axes all but the last are queries.
    heads : int
        Number of heads.

    Examples
    --------
    >>> by_head(np.zeros((6, 4, 5)), heads=3).shape, by_head(np.zeros((4, 5)), heads=1).shape
    ((2, 3, 4, 5), (1, 1, 4, 5))
    """
    if values.ndim < 3:
        values = values.reshape(1, -1, values.shape[-1])
    return values.reshape(-1, heads, *values.shape[-2:]).astype(np.float64)


def counted_rows(item: Attended, logits: Array) -> Array:
    """Which rows count, of every sample and head.

    Parameters
    ----------
    item : Attended
        What reads the logits.
    logits : ndarray of float, shape (batch..., head, query, key)
        In nats.

    Returns
    -------
    ndarray of bool, shape (sample, head, query)

    Examples
    --------
    >>> from hccs_onnx.graph.attention import AttentionSoftmax
    >>> item = AttentionSoftmax("n", 0, "x", "p", "p", heads=1, masked=True, self_attention=True)
    >>> counted_rows(item, np.array([[[0.0, -1e4], [1.0, -1e4]]]))
    array([[[ True, False]]])
    """
    blocks = by_head(logits, head_count(item, logits))
    rows = [live_rows(rows, item.masked, item.self_attention)[0] for block in blocks for rows in block]
    return np.array(rows, bool).reshape(blocks.shape[:-1])


def live_rows(logits: Array, masked: bool, self_attention: bool) -> tuple[Array, Array]:
    """Which rows count, and which of their keys are live.

    Parameters
    ----------
    logits : ndarray of float, shape (query, key)
        One head's rows of one sample, nats.
    masked : bool
        Leave out keys whose gap exceeds the mask gap (64 nats), and rows that are masked throughout.
    self_attention : bool
        Leave out the queries whose position is masked as a key in every row: they are padding.

    Returns
    -------
    counted : ndarray of bool, shape (query,)
    live : ndarray of bool, shape (query, key)

    Examples
    --------
    >>> counted, live = live_rows(np.array([[0.0, -1e4], [1.0, -1e4]]), masked=True, self_attention=True)
    >>> counted, live[0]
    (array([ True, False]), array([ True, False]))
    """
    maximum = logits.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        gap = maximum - logits
    counted = np.isfinite(maximum[:, 0]) & ~np.isnan(gap).any(axis=-1)
    if not masked:
        return counted, np.ones_like(gap, bool)
    live = gap <= DEFAULT_MASK_GAP
    counted &= maximum[:, 0] > MASKED_ROW
    if self_attention and live.shape[0] == live.shape[1] and counted.any():
        counted &= live[counted].any(axis=0)
    return counted, live
