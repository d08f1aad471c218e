r"""Sketches as bytes, for files and for the wire: the same bytes for the same sketch, checked when they are read.

::

    hccs-sketch 1\n
    {"feeds": ..., ...}\n       JSON on one line, keys sorted
    parts                       32 bytes each
    for each Softmax            integers as in `sketch_encoding.encoded`, then rows if they are kept
    SHA-256                     of all before
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from hccs_onnx.calibration.model_sketch import ModelSketch, Observed, Subject, check_heads, check_room
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch_encoding import (
    Reader,
    add_encoded,
    as_sketch,
    encoded,
    encoded_rows,
    no_numbers,
    not_a_sketch,
    numbers_of,
    with_encoded_rows,
)
from hccs_onnx.errors import CalibrationError
from hccs_onnx.graph.files import atomic_file, writing_errors
from hccs_onnx.reference import Array

FORMAT, VERSION = "hccs-sketch", 1
MOST_BYTES = 2**33
MOST_HEADS = 2**14  # of a model: they take 393 kB each in memory, however small the file
MOST_KEYS = 2**24  # of a row
_SHA256 = re.compile("[0-9a-f]{64}").fullmatch


def to_bytes(sketch: ModelSketch) -> bytes:
    """The sketch as bytes.

    Examples
    --------
    >>> to_bytes(ModelSketch(Subject("0" * 64, (), False), (), (), (), 2))[:13]
    b'hccs-sketch 1'
    """
    subject = sketch.subject
    header = {
        "feeds": sketch.feeds,
        "heads": [each.rows.size for each in sketch.sketches],
        "keeps_rows": subject.keeps_rows,
        "longest": [each.longest for each in sketch.sketches],
        "model_sha256": subject.model_sha256,
        "observed": [asdict(observed) for observed in subject.observed],
        "parts": len(sketch.parts),
    }
    pieces = [f"{FORMAT} {VERSION}\n{json.dumps(header, sort_keys=True, allow_nan=False)}\n".encode()]
    pieces += [bytes.fromhex(part) for part in sketch.parts]
    for number, each in enumerate(sketch.sketches):
        pieces += [piece for numbers in numbers_of(each) for piece in encoded(numbers)]
        if subject.keeps_rows:
            pieces += encoded_rows(sketch.samples[number])
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return b"".join([*pieces, digest.digest()])


def from_bytes(data: bytes, name: str) -> ModelSketch:
    """The sketch that bytes hold; `name` is what to call them.

    Raises
    ------
    CalibrationError
        If they are damaged, or no sketch of this version.
    """
    total = Sum()
    total.add(data, name)
    return total.result()


def save(sketch: ModelSketch, path: Path) -> None:
    """Write a sketch, all or nothing.

    Raises
    ------
    ModelError
        If it cannot be written.
    """
    with writing_errors(path), atomic_file(path) as file:
        file.write(to_bytes(sketch))


def read(path: Path) -> bytes:
    """Bytes of a sketch file.

    Raises
    ------
    CalibrationError
        If it cannot be read, or is no file or too large.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CalibrationError(str(path), "is no file", remedy="Name sketch files")
        if status.st_size > MOST_BYTES:
            needs = f"at most {MOST_BYTES} bytes"
            raise CalibrationError(str(path), "is too large for a sketch", found=status.st_size, needs=needs)
        return path.read_bytes()
    except OSError as error:
        raise CalibrationError(str(path), f"cannot be read ({error.strerror})", remedy="Check the name") from error


class Sum:
    """A running sum of sketches in bytes, in the memory of one.

    Parameters
    ----------
    subject : Subject, optional
        What sketches have to be of; default: what the first one is of.

    Attributes
    ----------
    parts : list of (str, str)
        Each part's fingerprint, and the name under which it was added.

    Examples
    --------
    >>> total = Sum()
    >>> total.add(to_bytes(ModelSketch(Subject("0" * 64, (), False), (), (), (), 2)), "a.sketch")
    >>> total.result().feeds
    2
    """

    def __init__(self, subject: Subject | None = None) -> None:
        self.subject = subject
        self._heads: list[int] = []
        self._numbers: list[list[Array]] = []
        self._longest: list[int] = []
        self._samples: list[RowSample] = []
        self._feeds = 0
        self.parts: list[tuple[str, str]] = []

    def add(self, data: bytes, name: str) -> None:
        """Add a sketch; parameters and errors as those of `from_bytes`.

        Raises
        ------
        CalibrationError
            Also if it is of another subject than the others.
        """
        header, payload = _checked(data, name)
        reader = Reader(payload, name)
        try:
            subject = Subject(str(header["model_sha256"]), _observed(header["observed"]), bool(header["keeps_rows"]))
            heads, longest = _counts(header["heads"]), _counts(header["longest"])
            feeds, parts = _counts([header["feeds"], header["parts"]])
            shapes = list(zip(subject.observed, heads, longest, strict=True))
            if sum(heads) > MOST_HEADS or max(longest, default=0) > MOST_KEYS or not _SHA256(subject.model_sha256):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise not_a_sketch(name) from error
        self.subject = self.subject or subject
        self.subject.check(subject, name)
        if not self._numbers:
            self._heads = [0] * len(heads)
            self._numbers = [no_numbers(0) for _ in heads]
            self._longest = [0] * len(heads)
            self._samples = [RowSample.empty(0) for _ in heads] if subject.keeps_rows else []
        self._feeds += feeds
        self.parts += [(bytes(part).hex(), name) for part in reader.take(np.uint8, 32 * parts).reshape(-1, 32)]
        for number, (observed, count, row) in enumerate(shapes):
            check_heads(observed.node, self._heads[number], count)
            self._longest[number] = max(self._longest[number], row)
            if count and not self._heads[number]:
                self._heads[number], self._numbers[number] = count, no_numbers(count)
            for numbers in self._numbers[number] if count else no_numbers(0):
                add_encoded(reader, numbers)
            if subject.keeps_rows:
                self._samples[number] = with_encoded_rows(self._samples[number], reader, count, row)
        reader.finish()

    def result(self) -> ModelSketch:
        """The sum.

        Raises
        ------
        CalibrationError
            If the sketches have too many rows together, or numbers that no data gives.
        """
        if self.subject is None:
            raise CalibrationError("sketch", "nothing to add up", remedy="Name sketch files")
        sketches = tuple(as_sketch(*each) for each in zip(self._numbers, self._longest, strict=True))
        check_room(sketches)
        for observed, sketch in zip(self.subject.observed, sketches, strict=True):
            if (sketch.rows < 0).any() or (sketch.headroom_rows.sum(-1) != sketch.rows[:, None]).any():
                raise not_a_sketch(f"node '{observed.node}'")
        parts = tuple(sorted(part for part, _ in self.parts))
        return ModelSketch(self.subject, sketches, tuple(self._samples), parts, self._feeds)


# --- header ----------------------------------------------------------------------------------------------------------


def _checked(data: bytes, name: str) -> tuple[dict[str, Any], memoryview]:
    """Header, and what lies between it and the checksum."""
    view = memoryview(data)
    first = data[:64].partition(b"\n")[0]
    if first.split(b" ")[0] != FORMAT.encode():
        raise not_a_sketch(name)
    if first != f"{FORMAT} {VERSION}".encode():
        found = first.split(b" ")[-1].decode(errors="replace")
        remedy = "Collect again with this version of hccs-onnx"
        raise CalibrationError(name, "is of another version", found=found, needs=VERSION, remedy=remedy)
    if hashlib.sha256(view[:-32]).digest() != bytes(view[-32:]):
        raise CalibrationError(name, "is damaged or incomplete", remedy="Copy it again, or collect it again")
    end = data.find(b"\n", len(first) + 1)
    try:
        header = json.loads(bytes(view[len(first) + 1 : end]))
        if not isinstance(header, dict):
            raise TypeError
    except (ValueError, TypeError, RecursionError) as error:
        raise not_a_sketch(name) from error
    return header, view[end + 1 : -32]


def _observed(entries: Any) -> tuple[Observed, ...]:
    kinds: dict[str, Any] = {"str": str, "int": int, "bool": bool, "float": float, "int | None": (int, type(None))}
    result = tuple(Observed(**entry) for entry in entries)
    for observed in result:
        for field in fields(Observed):
            if not isinstance(getattr(observed, field.name), kinds[str(field.type)]):
                raise TypeError
        if not (math.isfinite(observed.unit) and observed.unit > 0):
            raise ValueError
    return result


def _counts(numbers: Any) -> list[int]:
    if not all(isinstance(number, int) and 0 <= number < 2**62 for number in numbers):
        raise ValueError
    return list(numbers)
