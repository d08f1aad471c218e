"""How numbers and rows of a sketch are written down: small, and read back with every size checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.errors import CalibrationError
from hccs_onnx.reference import Array

_WORDS = 4  # 16-bit words of a number
_CHUNK = 1 << 16  # numbers: few enough that what is made on the way lies in the cache, not in new pages
_ARRAYS = [field.name for field in fields(Sketch) if field.name != "longest"]
_ONE_HEAD = Sketch.empty(1)
CELLS = sum(int(getattr(_ONE_HEAD, name).size) for name in _ARRAYS)
"""Numbers of a head."""


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


def numbers_of(sketch: Sketch) -> Array:
    """The arrays of a sketch one behind the other."""
    return np.concatenate([getattr(sketch, name).ravel() for name in _ARRAYS])


def heads_of(numbers: Array) -> int:
    """How many heads so many numbers are of."""
    return numbers.size // CELLS


def as_sketch(numbers: Array, longest: int) -> Sketch:
    """The sketch whose arrays lie one behind the other: views, not copies."""
    heads, position, arrays = heads_of(numbers), 0, {}
    for name in _ARRAYS:
        shape = (heads, *getattr(_ONE_HEAD, name).shape[1:])
        arrays[name] = numbers[position : position + math.prod(shape)].reshape(shape)
        position += math.prod(shape)
    return Sketch(longest=longest, **arrays)


def encoded(numbers: Array) -> Iterator[bytes]:
    """Whole numbers, most of them 0 and few large, in little space.

    In chunks of 2^16, a bit for each: whether it is not 0. For those the lowest 16 bits; then the same again for what
    is left of them without these bits, until nothing is left.
    """
    for start in range(0, numbers.size, _CHUNK):
        rest = numbers[start : start + _CHUNK].view(np.uint64)
        for _ in range(_WORDS):
            present = rest != 0
            yield np.packbits(present).tobytes()
            rest = rest[present]
            if not rest.size:
                break
            yield rest.astype("<u2").tobytes()
            rest >>= np.uint64(16)


def add_encoded(reader: Reader, numbers: Array) -> None:
    """Add what `encoded` wrote to `numbers`."""
    for start in range(0, numbers.size, _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        places = _places(reader, chunk.size)
        if places.size:
            chunk[places] += _values(reader, places.size)


def _values(reader: Reader, count: int) -> Array:
    """So many numbers that are not 0."""
    values = reader.take("<u2", count).astype(np.int64)
    left = np.arange(0)
    for word in range(1, _WORDS):  # numbers have fewer words the larger they are
        more = _places(reader, left.size if word > 1 else count)
        if not more.size:
            break
        left = left[more] if word > 1 else more
        values[left] += reader.take("<u2", more.size).astype(np.int64) << (16 * word)
    return values


def _places(reader: Reader, count: int) -> Array:
    """Which of so many bits are set."""
    bits = np.unpackbits(reader.take(np.uint8, -(-count // 8)), count=count)
    places: Array = np.flatnonzero(bits.view(bool))
    return places


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
