"""Sketches: all that the fit needs to know of a head's rows, in constant size and whole numbers.

KL(softmax || s/Z) of a row with n live keys, gaps g and softmax p depends on the clip range c and the floor ratio
r = F/B only through

    sum_i p_i * log(1 - (1-r)*min(g_i, c)/c)        and        log(r + (1-r)*h),  h = mean_i max(0, 1 - g_i/c)

so per head it is enough to keep a histogram of softmax mass over the gap, and for a grid of clip ranges a histogram of
the rows' headroom h. Everything is added up in integers (fixed point), so that any split, order or merge of the data
gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from hccs_onnx.calibration.live_rows import by_head, live_rows
from hccs_onnx.params import DEFAULT_MASK_GAP
from hccs_onnx.reference import Array

GAP_STEP = 1.0 / 256.0  # nats
GAP_BINS = int(DEFAULT_MASK_GAP / GAP_STEP) + 1  # bin k holds gaps that round to k * GAP_STEP
HEADROOM_BINS = 256
HEADROOM_STEP = np.log(65536.0) / HEADROOM_BINS  # bin k holds headrooms with -log(h) in [k, k+1) steps
FIXED_POINT = 2.0**24  # units of one: softmax mass, headroom
LOG_FIXED_POINT = 2.0**20  # units of a nat: entropies and lengths, each far above 1
MOST_ROWS = 2**39  # of a head: beyond, sums of mass (and of nats, for rows of up to 2^20 keys) may leave 63 bits


def _clip_bins() -> Array:
    """Gap bins just below each clip range of the grid: about 9 % apart, from 1/4 nat to the mask gap."""
    return np.unique(np.rint(np.geomspace(64, GAP_BINS - 1, 64)).astype(np.int64))


CLIP_BINS = _clip_bins()
CLIPS = (CLIP_BINS + 0.5) * GAP_STEP
"""Clip ranges of the grid in nats, ascending. They lie on the edges of gap bins."""


@dataclass
class Sketch:
    """Statistics of the heads of one Softmax, mergeable by addition.

    Parameters
    ----------
    rows : ndarray of int64, shape (head,)
        Rows counted.
    longest : int
        Longest row met, masked keys included.
    entropy : ndarray of int64, shape (head,)
        Sum of the rows' softmax entropies in nats, fixed point of 20 bits.
    log_length : ndarray of int64, shape (head,)
        Sum of log(live keys), fixed point of 20 bits.
    mass : ndarray of int64, shape (head, gap bin)
        Softmax mass by gap, fixed point.
    headroom_rows, headroom : ndarray of int64, shape (head, clip, headroom bin)
        Rows by headroom, and the sum of their headrooms, fixed point.

    Notes
    -----
    Fixed point has 24 fractional bits, so 64-bit sums hold the 2^39 rows of a head that a thousand million texts of 512
    tokens have. Mass below 2^-25 of a row is not counted.

    Examples
    --------
    >>> sketch = Sketch.empty(heads=1)
    >>> sketch.add(np.array([[[0.0, -1.0]]]), masked=False, self_attention=False)
    >>> (sketch + sketch).rows
    array([2])
    """

    rows: Array
    longest: int
    entropy: Array
    log_length: Array
    mass: Array
    headroom_rows: Array
    headroom: Array

    @classmethod
    def empty(cls, heads: int) -> Sketch:
        """A sketch of no data."""
        shape = (heads, CLIPS.size, HEADROOM_BINS)
        one_each = [np.zeros(heads, np.int64) for _ in range(3)]
        return cls(one_each[0], 0, one_each[1], one_each[2], np.zeros((heads, GAP_BINS), np.int64), *_zeros(shape, 2))

    def __add__(self, other: Sketch) -> Sketch:
        """Sketch of both data sets."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Sketch(**(sums | {"longest": max(self.longest, other.longest)}))

    def pooled(self) -> Sketch:
        """The sketch as if all heads were one; sums are float64, as many heads may have too many rows for 64 bits."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "longest"}
        sums = {name: a.sum(axis=0, keepdims=True, dtype=np.float64) for name, a in arrays.items()}
        return Sketch(longest=self.longest, **sums)

    def add(self, logits: Array, *, masked: bool, self_attention: bool) -> None:
        """Count the rows of one batch of logits.

        Parameters
        ----------
        logits : ndarray of float, shape (batch..., head, query, key)
            What the Softmax read, in nats. The head axis has a multiple of this sketch's heads.
        masked, self_attention : bool
            What is left out, as in `live_rows`.
        """
        self.longest = max(self.longest, logits.shape[-1])
        for block in by_head(logits, self.rows.size):
            for head, rows in enumerate(block):
                counted, live = live_rows(rows, masked, self_attention)
                gap = rows[counted].max(axis=-1, keepdims=True, initial=-np.inf) - rows[counted]
                self._add_rows(head, gap, live[counted])

    def _add_rows(self, head: int, gap: Array, live: Array) -> None:
        """Count rows with `gap` and `live`, shape (row, key); at least one key of each is live."""
        if gap.shape[0] == 0:
            return
        weight = np.where(live, np.exp(-gap), 0.0)
        gap = np.minimum(gap, CLIPS[-1])  # farther keys weigh nothing and are below no clip range
        total = weight.sum(axis=-1, keepdims=True)
        mass = weight / total
        length = np.count_nonzero(live, axis=-1)
        bins = np.where(live, np.minimum(np.rint(gap * (1 / GAP_STEP)), GAP_BINS - 1), GAP_BINS).astype(np.int64)
        self.rows[head] += gap.shape[0]
        # -sum p log p = log(total) + sum p * gap
        entropy = np.log(total[:, 0]) + np.where(live, mass * gap, 0.0).sum(axis=-1)
        self.entropy[head] += _fixed(entropy, LOG_FIXED_POINT)
        self.log_length[head] += _fixed(np.log(length), LOG_FIXED_POINT)
        self._add_mass(head, bins, mass)
        self._add_headroom(head, bins, np.where(live, gap, 0.0), length)

    def _add_mass(self, head: int, bins: Array, mass: Array) -> None:
        weights = np.rint(mass * FIXED_POINT).ravel()  # sums of whole numbers below 2^53 are exact
        self.mass[head] += np.bincount(bins.ravel(), weights, GAP_BINS + 1)[:GAP_BINS].astype(np.int64)

    def _add_headroom(self, head: int, bins: Array, gap: Array, length: Array) -> None:
        rows, clips = gap.shape[0], CLIPS.size
        cell = (np.arange(rows)[:, None] * (clips + 1) + _CLIP_OF_BIN[bins]).ravel()
        size = rows * (clips + 1)
        below = np.bincount(cell, minlength=size).reshape(rows, -1)[:, :clips].cumsum(axis=1)
        gaps = np.bincount(cell, gap.ravel(), size).reshape(rows, -1)[:, :clips].cumsum(axis=1)
        headroom = np.clip((below - gaps / CLIPS) / length[:, None], 1e-300, 1.0)
        place = np.minimum(-np.log(headroom) / HEADROOM_STEP, HEADROOM_BINS - 1).astype(np.int64)
        place += np.arange(clips) * HEADROOM_BINS
        size = clips * HEADROOM_BINS
        self.headroom_rows[head] += np.bincount(place.ravel(), minlength=size).reshape(clips, -1)
        weights = np.rint(headroom * FIXED_POINT).ravel()
        self.headroom[head] += np.bincount(place.ravel(), weights, size).reshape(clips, -1).astype(np.int64)


def _fixed(values: Array, unit: float) -> int:
    return int(np.rint(values * unit).sum())


def _zeros(shape: tuple[int, ...], count: int) -> list[Array]:
    return [np.zeros(shape, np.int64) for _ in range(count)]


_CLIP_OF_BIN = np.append(np.searchsorted(CLIP_BINS, np.arange(GAP_BINS)), CLIPS.size)
"""For each gap bin the first clip range above it; the last entry is for keys that are not live."""
