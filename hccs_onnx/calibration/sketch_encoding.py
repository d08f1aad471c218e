"""How numbers and rows of a sketch are written down: small, and read back with every size checked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import CLIPS, GAP_BINS, HEADROOM_BINS, Sketch
from hccs_onnx.errors import CalibrationError
from hccs_onnx.reference import Array

_WORDS = 4  # 16-bit words of a number
_BLOCK = 1 << 13  # numbers: what is made of them on the way stays in the cache


def not_a_sketch(name: str) -> CalibrationError:
    """The error for contents that make no sense."""
    remedy = "Make it with python -m hccs_onnx calibrate --sketch-out"
    return CalibrationError(name, "is not a sketch of hccs-onnx", remedy=remedy)


class Reader:
    """Arrays one behind the other."""

    def __init__(self, data: memoryview, name: str) -> None:
        self._data, self._name = data, name

    def check(self, size: int) -> None:
        """Refuse to go on if fewer bytes are left."""
        if size > len(self._data):
            raise not_a_sketch(self._name)

    def take(self, dtype: Any, count: int) -> Array:
        """The next array."""
        size = count * np.dtype(dtype).itemsize
        self.check(size)
        taken, self._data = self._data[:size], self._data[size:]
        return np.frombuffer(taken, dtype)

    def finish(self) -> None:
        """Refuse what is left."""
        if len(self._data):
            raise not_a_sketch(self._name)

    def refusal(self) -> CalibrationError:
        """What to raise if contents make no sense."""
        return not_a_sketch(self._name)


def numbers_of(sketch: Sketch) -> list[Array]:
    """What a sketch counts, as vectors in which zeros gather at the end.

    Gaps and headrooms of a model reach only so far, whatever the head and the clip range; so bins come first.
    """
    return [
        np.concatenate([sketch.rows, sketch.entropy, sketch.log_length]),
        sketch.mass.T.ravel(),
        *(each.transpose(2, 0, 1).ravel() for each in (sketch.headroom_rows, sketch.headroom)),
    ]


def no_numbers(heads: int) -> list[Array]:
    """Vectors as those of `numbers_of`, of no data."""
    clips = heads * CLIPS.size * HEADROOM_BINS
    return [np.zeros(size, np.int64) for size in (3 * heads, heads * GAP_BINS, clips, clips)]


def as_sketch(numbers: list[Array], longest: int) -> Sketch:
    """The sketch that counts `numbers`."""
    sums = numbers[0].reshape(3, -1)
    heads = sums.shape[1]
    headroom_rows, headroom = (
        np.ascontiguousarray(each.reshape(HEADROOM_BINS, heads, CLIPS.size).transpose(1, 2, 0)) for each in numbers[2:]
    )
    mass = np.ascontiguousarray(numbers[1].reshape(GAP_BINS, heads).T)
    return Sketch(sums[0], longest, sums[1], sums[2], mass, headroom_rows, headroom)


def encoded(numbers: Array) -> Iterator[bytes]:
    """Whole numbers: the lowest 16 bits of all, the next 16 bits of all, and so on, each up to the last that is not 0.

    Before them their lengths.
    """
    words = [(numbers.view(np.uint64) >> np.uint64(16 * word)).astype("<u2") for word in range(_WORDS)]
    lengths = [int(np.max(np.flatnonzero(each), initial=-1)) + 1 for each in words]
    yield np.array(lengths, "<u4").tobytes()
    yield from (each[:length].tobytes() for each, length in zip(words, lengths, strict=True))


def add_encoded(reader: Reader, numbers: Array) -> None:
    """Add what `encoded` wrote to `numbers`."""
    for word, length in enumerate(reader.take("<u4", _WORDS).tolist()):
        if length > numbers.size:
            raise reader.refusal()
        values = reader.take("<u2", length)
        for start in range(0, length, _BLOCK):
            block = values[start : start + _BLOCK].astype(np.int64)
            block <<= 16 * word
            numbers[start : start + block.size] += block


# --- rows ------------------------------------------------------------------------------------------------------------


def encoded_rows(sample: RowSample) -> Iterator[bytes]:
    """For all heads the numbers of rows and the range of maxima; then by head, ascending, hashes, lengths and rows."""
    yield np.array([len(rows) for rows in sample.rows], "<u4").tobytes()
    yield sample.highest.astype("<f8").tobytes() + sample.lowest.astype("<f8").tobytes()
    for rows in sample.rows:
        ordered = sorted(rows.items())
        yield np.array([key for key, _ in ordered], "<u8").tobytes()
        yield np.array([row.size for _, row in ordered], "<u4").tobytes()
        yield from (row.astype("<f4").tobytes() for _, row in ordered)


def with_encoded_rows(sample: RowSample, reader: Reader, heads: int, longest: int) -> RowSample:
    """`sample` and what `encoded_rows` wrote."""
    if heads and not sample.rows:
        sample = RowSample.empty(heads)
    sample.longest = max(sample.longest, longest)
    counts = reader.take("<u4", heads)
    highest, lowest = reader.take("<f8", heads), reader.take("<f8", heads)
    if np.isnan(highest).any() or np.isnan(lowest).any():
        raise reader.refusal()
    if heads:
        np.maximum(sample.highest, highest, out=sample.highest)
        np.minimum(sample.lowest, lowest, out=sample.lowest)
    for head, count in enumerate(counts.tolist()):
        hashes, lengths = reader.take("<u8", count), reader.take("<u4", count)
        values = reader.take("<f4", int(lengths.sum(dtype=np.int64)))
        ordered = (hashes[1:] > hashes[:-1]).all() and (lengths > 0).all() and (lengths <= longest).all()
        if not ordered or np.isnan(values).any():
            raise reader.refusal()
        sample.offer(head, hashes, partial(_row, values, lengths.cumsum(dtype=np.int64), lengths))
    sample.trim()
    return sample


def _row(values: Array, ends: Array, lengths: Array, number: int) -> Array:
    row: Array = values[ends[number] - lengths[number] : ends[number]].astype(np.float32)
    return row
