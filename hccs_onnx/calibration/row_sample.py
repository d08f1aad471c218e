"""A uniform sample of rows in bounded size: those whose hashes are the smallest.

Integer output is judged on whole rows, which no sum over the data can stand for. Which rows are kept depends on their
contents alone, so any split, order or merge of the data keeps the same ones; equal rows are kept once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hccs_onnx.calibration.live_rows import by_head, live_rows
from hccs_onnx.reference import Array

ELEMENTS = 1 << 16  # kept for a head, more or less: 512 rows of 128 keys
LEAST_ROWS = 32
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, the usual odd constant of multiplicative hashing


@dataclass
class RowSample:
    """Rows of the heads of one Softmax, mergeable with `+`.

    Parameters
    ----------
    rows : list of dict of int to ndarray of float32, shape (key,)
        For each head its rows by hash. Logits in nats, -inf where masked.
    longest : int
        Longest row met.
    highest, lowest : ndarray of float64, shape (head,)
        Largest and smallest row maximum among all rows met, nats.

    Examples
    --------
    >>> sample = RowSample.empty(heads=1)
    >>> sample.add(np.array([[[0.0, -1.0], [2.0, 1.0]]]), masked=False, self_attention=False)
    >>> (sample + sample).matrix(0).shape, sample.highest
    ((2, 2), array([2.]))
    """

    rows: list[dict[int, Array]]
    longest: int
    highest: Array
    lowest: Array

    @classmethod
    def empty(cls, heads: int) -> RowSample:
        """A sample of no data."""
        return cls([{} for _ in range(heads)], 0, np.full(heads, -np.inf), np.full(heads, np.inf))

    @property
    def capacity(self) -> int:
        """Rows kept for a head."""
        return max(LEAST_ROWS, ELEMENTS // max(self.longest, 1))

    def __add__(self, other: RowSample) -> RowSample:
        """Sample of both data sets."""
        merged = RowSample(
            [one | another for one, another in zip(self.rows, other.rows, strict=True)],
            max(self.longest, other.longest),
            np.maximum(self.highest, other.highest),
            np.minimum(self.lowest, other.lowest),
        )
        merged.trim()
        return merged

    def pooled(self) -> RowSample:
        """The sample as if all heads were one."""
        parts = [
            RowSample([rows], self.longest, self.highest[head : head + 1], self.lowest[head : head + 1])
            for head, rows in enumerate(self.rows)
        ]
        return sum(parts[1:], start=parts[0])

    def add(self, logits: Array, *, masked: bool, self_attention: bool) -> None:
        """Offer the rows of one batch of logits; parameters as those of `Sketch.add`."""
        self.longest = max(self.longest, logits.shape[-1])
        for block in by_head(logits, len(self.rows)):
            for head, rows in enumerate(block):
                counted, live = live_rows(rows, masked, self_attention)
                if counted.any():
                    self._offer(head, np.where(live[counted], rows[counted], -np.inf).astype(np.float32))
        self.trim()

    def matrix(self, head: int) -> Array:
        """The rows of a head, float64 of shape (row, key): -inf where masked, NaN behind the end of a shorter row."""
        rows = [row for _, row in sorted(self.rows[head].items())]
        result = np.full((len(rows), self.longest), np.nan)
        for target, row in zip(result, rows, strict=True):
            target[: row.size] = row
        return result

    def _offer(self, head: int, rows: Array) -> None:
        maxima = rows.max(axis=-1)
        self.highest[head] = max(self.highest[head], maxima.max())
        self.lowest[head] = min(self.lowest[head], maxima.min())
        # Each row once before any is left out: else how many are kept would depend on the capacity so far.
        hashes, places = np.unique(row_hashes(rows), return_index=True)
        self.offer(head, hashes, lambda index: rows[places[index]].copy())

    def offer(self, head: int, hashes: Array, row: Callable[[int], Array]) -> None:
        """Take what is wanted of rows with ascending `hashes`; `row` gives the one at a place. Trims nothing."""
        kept, hashes = self.rows[head], hashes[: self.capacity]
        if len(kept) >= self.capacity:
            hashes = hashes[: np.searchsorted(hashes, np.uint64(max(kept)))]
        for index, key in enumerate(hashes.tolist()):
            kept[key] = row(index)

    def trim(self) -> None:
        """Leave out what is too much."""
        for head, rows in enumerate(self.rows):
            if len(rows) > self.capacity:
                self.rows[head] = dict(sorted(rows.items())[: self.capacity])


def row_hashes(rows: Array) -> Array:
    """A 64-bit hash of each row's bits.

    Parameters
    ----------
    rows : ndarray of float32, shape (row, key)
        Rows of equal length.

    Examples
    --------
    >>> row_hashes(np.zeros((2, 3), np.float32)).shape
    (2,)
    """
    with np.errstate(over="ignore"):
        places = (np.arange(1, rows.shape[-1] + 1, dtype=np.uint64) * _GOLDEN) | np.uint64(1)
        bits = np.ascontiguousarray(rows, "<f4").view("<u4").astype(np.uint64)
        mixed = ((bits ^ (bits << np.uint64(21))) * places).sum(axis=-1, dtype=np.uint64) + np.uint64(rows.shape[-1])
        for shift in (33, 29, 32):  # so that every bit of the sum counts in the order
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * _GOLDEN
    result: Array = mixed
    return result
