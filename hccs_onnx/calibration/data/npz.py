"""Samples in ``.npz`` archives, read in rows so that memory does not depend on their number."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from hccs_onnx.calibration.data.inputs import Feed, InputSpec, batch_size, check_names, whole_batches
from hccs_onnx.errors import DataError
from hccs_onnx.reference import Array

# Encrypted members raise RuntimeError, unknown compressions NotImplementedError.
_ZIP_ERRORS = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class NpzFile:
    """An ``.npz`` of input name to array, whose first axis is samples.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    """

    path: Path

    def absolute(self) -> NpzFile:
        """The same with an absolute path."""
        return NpzFile(self.path.absolute())

    def count(self, specs: Sequence[InputSpec]) -> int:
        """Number of feeds."""
        with _open_npz(self.path, specs) as archive:
            return whole_batches(_sample_count(archive, self.path.name, specs), specs, str(self.path))

    def feeds(self, specs: Sequence[InputSpec], start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Feed]]:
        """Feeds from `start` to before `stop`, each with what to call it."""
        batch, last = batch_size(specs), self.count(specs) if stop is None else stop
        with _open_npz(self.path, specs) as archive, ExitStack() as stack:
            members = _members(archive, str(self.path))
            readers = {member.name: stack.enter_context(closing(member.rows(batch, start))) for member in members}
            for number in range(start, last):
                yield f"{self.path}: sample {number * batch}", {name: next(rows) for name, rows in readers.items()}


@dataclass(frozen=True)
class NpzFeed:
    """An ``.npz`` that is one feed as it stands.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    """

    path: Path

    def absolute(self) -> NpzFeed:
        """The same with an absolute path."""
        return NpzFeed(self.path.absolute())

    def count(self, specs: Sequence[InputSpec]) -> int:
        """Number of feeds."""
        return 1

    def feeds(self, specs: Sequence[InputSpec], start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Feed]]:
        """The feed."""
        with _open_npz(self.path, specs) as archive:
            yield str(self.path), {member.name: member.read_all() for member in _members(archive, str(self.path))}


def _open_npz(file: Path, specs: Sequence[InputSpec]) -> zipfile.ZipFile:
    try:
        file.open("rb").close()
    except OSError as error:
        raise DataError(str(file), f"cannot be read ({error.strerror})", remedy="Check its permissions") from error
    try:
        return zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        arrays = ", ".join(_keyword(spec.name) for spec in specs)
        remedy = f"Write it with numpy.savez('{file.with_suffix('.npz').name}', {arrays})"
        raise DataError(str(file), "is not an .npz archive", remedy=remedy) from error


def _keyword(name: str) -> str:
    """How an input's array is given to numpy.savez: names need not be what Python takes for one."""
    return f"{name}=array" if name.isidentifier() else f"**{{{name!r}: array}}"


def _sample_count(archive: zipfile.ZipFile, subject: str, specs: Sequence[InputSpec]) -> int:
    shapes = {member.name: member.shape for member in _members(archive, subject)}
    check_names(shapes, specs, subject)
    for name, shape in shapes.items():
        if not shape:
            remedy = "Give a folder of .npz files, each of which is one feed"
            raise DataError(f"{subject}: array '{name}'", "is a scalar, without an axis of samples", remedy=remedy)
    sizes = {name: shape[0] for name, shape in shapes.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {size}" for name, size in sorted(sizes.items()))
        raise DataError(subject, "arrays hold different numbers of samples", found=found, needs="one number")
    return next(iter(sizes.values()), 0)


@dataclass(frozen=True)
class _Member:
    """One array of an ``.npz``, read in rows so that memory does not depend on its length."""

    archive: zipfile.ZipFile
    file: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    def rows(self, batch: int, start: int = 0) -> Generator[Array, None, None]:
        """Consecutive blocks of `batch` rows from that of number `start` on."""
        if self.fortran and len(self.shape) > 1:
            whole = self.read_all()
            yield from (whole[row : row + batch] for row in range(start * batch, self.shape[0], batch))
            return
        with self.archive.open(self.file) as stream:
            _npy_header(stream)
            size = batch * math.prod(self.shape[1:]) * self.dtype.itemsize
            self._skip(stream, start * size)
            for _ in range(start * batch, self.shape[0], batch):
                yield self._array(stream, size).reshape(batch, *self.shape[1:])

    def read_all(self) -> Array:
        """The whole array."""
        with self.archive.open(self.file) as stream:
            _npy_header(stream)
            data = self._array(stream, math.prod(self.shape) * self.dtype.itemsize)
        return data.reshape(self.shape, order="F" if self.fortran else "C")

    def _array(self, stream: IO[bytes], size: int) -> Array:
        try:
            data = stream.read(size)
        except _ZIP_ERRORS:
            data = b""
        if len(data) != size:
            raise self._damaged()
        return np.frombuffer(data, self.dtype)

    def _skip(self, stream: IO[bytes], size: int) -> None:
        try:
            stream.seek(size, 1)
        except _ZIP_ERRORS as error:
            raise self._damaged() from error

    def _damaged(self) -> DataError:
        return DataError(f"{self.archive.filename}: array '{self.name}'", "is damaged", remedy="Write it again")


def _members(archive: zipfile.ZipFile, subject: str) -> list[_Member]:
    members = []
    for file in sorted(archive.namelist()):
        try:
            with archive.open(file) as stream:
                shape, fortran, dtype = _npy_header(stream)
        except (ValueError, TokenError, *_ZIP_ERRORS) as error:  # numpy tokenizes odd headers
            remedy = "Write it with numpy.savez"
            raise DataError(subject, f"array '{file}' cannot be read", remedy=remedy) from error
        members.append(_Member(archive, file, file.removesuffix(".npy"), shape, dtype, fortran))
    return members


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype; the stream is left at the data. ValueError if it is not a plain array."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("holds Python objects")
    return shape, fortran, dtype
