"""DATA: samples for a model, read one feed at a time whatever their amount, and checked against its inputs."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Protocol

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hccs_onnx.errors import DataError
from hccs_onnx.reference import Array

Feed = Mapping[str, Array]
# Encrypted members raise RuntimeError, unknown compressions NotImplementedError.
_ZIP_ERRORS = (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)


class CalibrationDataReader(Protocol):
    """What onnxruntime's quantiser calls a data reader."""

    def get_next(self) -> Feed | None:
        """The next feed, or None at the end."""


DataSource = Path | str | Iterable[Feed] | CalibrationDataReader


@dataclass(frozen=True)
class InputSpec:
    """One model input that a feed has to give.

    Parameters
    ----------
    name : str
        Input name.
    dtype : numpy.dtype
        Element type.
    shape : tuple
        Sizes, with names or None for dynamic axes; None if the rank is not known.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The inputs of a model that are not initializers.

    Examples
    --------
    >>> model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[n,3] x) => (float y) {}')
    >>> input_specs(model)[0].shape
    ('n', 3)
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in initializers:
            continue
        if not value.type.HasField("tensor_type"):
            raise DataError(
                f"input '{value.name}'", "is not a tensor", remedy="Only models with tensor inputs can be run"
            )
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        specs.append(InputSpec(value.name, dtype, tuple(dims) if tensor.HasField("shape") else None))
    return specs


class Samples:
    """Feeds of a data source, checked, in order; can be gone through more than once if the source can.

    Parameters
    ----------
    source : path, iterable of feeds, or CalibrationDataReader
        An ``.npz`` (input name to array, first axis = samples), a folder of ``.npz`` (one feed each), a folder of ONNX
        ``test_data_set_*/input_*.pb``, or feeds (input name to array) from Python.
    specs : list of InputSpec
        What the model takes.

    Raises
    ------
    DataError
        If there is no data, or a feed does not fit the model: when going through it, naming the sample.

    Notes
    -----
    Samples of an ``.npz`` are fed in the model's fixed batch size, one by one where it is dynamic: so results do not
    depend on how the data was cut into files.

    Examples
    --------
    >>> spec = InputSpec("x", np.dtype(np.float32), (None, 2))
    >>> [feed["x"].shape for feed in Samples([{"x": np.zeros((1, 2), np.float32)}], [spec])]
    [(1, 2)]
    """

    def __init__(self, source: DataSource, specs: list[InputSpec]) -> None:
        self._source = Path(source) if isinstance(source, str) else source
        self._specs = specs
        self.name = str(source) if isinstance(source, (str, Path)) else "data"
        if isinstance(self._source, Path):
            try:
                self._source.stat()
            except FileNotFoundError as error:
                raise DataError(self.name, "no such file or folder", remedy="Check --data") from error
            except OSError as error:
                raise DataError(self.name, f"cannot be read ({error.strerror})", remedy="Check --data") from error

    @property
    def repeatable(self) -> bool:
        """Whether the feeds can be gone through more than once."""
        return not (hasattr(self._source, "get_next") or isinstance(self._source, Iterator))

    def __len__(self) -> int:
        """Number of feeds where it can be told without reading them, else 0."""
        if not isinstance(self._source, Path):
            if hasattr(self._source, "get_next") or not isinstance(self._source, Sized):
                return 0
            return len(self._source)
        if self._source.is_dir():
            return len(_npz_files(self._source) or _data_sets(self._source))
        with _open_npz(self._source) as archive:
            return _sample_count(archive, self._source.name, self._specs) // _batch_size(self._specs)

    def __iter__(self) -> Iterator[Feed]:
        """Checked feeds."""
        empty = True
        for subject, feed in self._feeds():
            yield _checked(feed, self._specs, subject)
            empty = False
        if empty:
            raise DataError(self.name, "holds no samples", remedy="Give at least one")

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        source = self._source
        if isinstance(source, Path):
            yield from _folder_feeds(source, self._specs) if source.is_dir() else _npz_feeds(source, self._specs)
        elif hasattr(source, "get_next"):
            number = 0
            while (feed := source.get_next()) is not None:
                yield f"{self.name}: sample {number}", feed
                number += 1
        else:
            for number, feed in enumerate(source):
                yield f"{self.name}: sample {number}", feed


def _batch_size(specs: list[InputSpec]) -> int:
    """Fixed size of the inputs' first axis, else 1."""
    sizes = [spec.shape[0] for spec in specs if spec.shape]
    return next((size for size in sizes if isinstance(size, int) and size > 0), 1)


def _folder_feeds(folder: Path, specs: list[InputSpec]) -> Iterator[tuple[str, Feed]]:
    files = _npz_files(folder)
    for file in files:
        with _open_npz(file) as archive:
            yield str(file), {member.name: member.read_all() for member in _members(archive, str(file))}
    for data_set in [] if files else _data_sets(folder):
        yield str(data_set), _protobuf_feed(data_set, specs)


def _npz_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npz"))


def _data_sets(folder: Path) -> list[Path]:
    if list(folder.glob("input_*.pb")):
        return [folder]
    return sorted(path for path in folder.glob("test_data_set_*") if path.is_dir())


def _protobuf_feed(folder: Path, specs: list[InputSpec]) -> Feed:
    """Tensors of ``input_<k>.pb``: named, or the k-th input of the model."""
    names = [spec.name for spec in specs]
    feed = {}
    for file in sorted(folder.glob("input_*.pb")):
        try:
            tensor = TensorProto.FromString(file.read_bytes())
            number = int(file.stem.removeprefix("input_"))
            value = numpy_helper.to_array(tensor)
        except Exception as error:  # protobuf, number and tensor errors alike: the file is not what its name says
            raise DataError(str(file), "is not an ONNX tensor", remedy="Write it again") from error
        if tensor.name not in names and number >= len(names):
            needs = f"at most {len(names)}"
            raise DataError(str(folder), "has more inputs than the model", found=number + 1, needs=needs)
        feed[tensor.name if tensor.name in names else names[number]] = value
    return feed


def _npz_feeds(file: Path, specs: list[InputSpec]) -> Iterator[tuple[str, Feed]]:
    with _open_npz(file) as archive:
        batch = _batch_size(specs)
        count = _sample_count(archive, file.name, specs)
        if count % batch:
            needs = f"a multiple of {batch}"
            remedy = "Leave some out, or export the model with a dynamic batch"
            raise DataError(str(file), "samples do not fill the model's batch", found=count, needs=needs, remedy=remedy)
        members = _members(archive, str(file))
        with ExitStack() as stack:
            readers = {member.name: stack.enter_context(closing(member.rows(batch))) for member in members}
            for start in range(0, count, batch):
                yield f"{file}: sample {start}", {name: next(rows) for name, rows in readers.items()}


def _open_npz(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        remedy = "Write it with numpy.savez"
        raise DataError(str(file), "is not an .npz archive", remedy=remedy) from error


def _sample_count(archive: zipfile.ZipFile, subject: str, specs: list[InputSpec]) -> int:
    sizes = {member.name: member.shape[0] if member.shape else 0 for member in _members(archive, subject)}
    _check_names(sizes, specs, subject)
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

    def rows(self, batch: int) -> Generator[Array, None, None]:
        """Consecutive blocks of `batch` rows."""
        if self.fortran and len(self.shape) > 1:
            whole = self.read_all()
            yield from (whole[start : start + batch] for start in range(0, self.shape[0], batch))
            return
        with self.archive.open(self.file) as stream:
            _npy_header(stream)
            size = batch * math.prod(self.shape[1:]) * self.dtype.itemsize
            for _ in range(0, self.shape[0], batch):
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
            raise DataError(f"{self.archive.filename}: array '{self.name}'", "is damaged", remedy="Write it again")
        return np.frombuffer(data, self.dtype)


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


def _check_names(given: Iterable[str], specs: list[InputSpec], subject: str) -> None:
    wanted = {spec.name for spec in specs}
    missing, extra = sorted(wanted - set(given)), sorted(set(given) - wanted)
    if missing or extra:
        problem = f"lacks input {', '.join(missing)}" if missing else f"has {', '.join(extra)}, which the model lacks"
        needs = ", ".join(sorted(wanted))
        raise DataError(subject, problem, needs=f"exactly {needs}", remedy="Name arrays as the model names its inputs")


def _checked(feed: Feed, specs: list[InputSpec], subject: str) -> Feed:
    """The feed as arrays, once its names, types, shapes and values fit the model."""
    if not hasattr(feed, "keys"):
        remedy = "Give dicts of input name to array"
        raise DataError(subject, "is not a mapping", found=type(feed).__name__, remedy=remedy)
    _check_names(feed, specs, subject)
    arrays = {name: np.asarray(value) for name, value in feed.items()}
    for spec in specs:
        value = arrays[spec.name]
        what = f"{subject}: input '{spec.name}'"
        if value.dtype != spec.dtype:
            remedy = f"Convert it with .astype('{spec.dtype.name}')"
            raise DataError(what, "has the wrong type", found=value.dtype, needs=spec.dtype, remedy=remedy)
        if spec.shape is not None and not _fits(value.shape, spec.shape):
            needs = "[" + ", ".join("?" if dim is None else str(dim) for dim in spec.shape) + "]"
            remedy = "Pad or cut the data, or export the model with dynamic axes"
            raise DataError(what, "has the wrong shape", found=list(value.shape), needs=needs, remedy=remedy)
        if value.size == 0:
            raise DataError(what, "is empty", found=list(value.shape), remedy="Leave the sample out")
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise DataError(what, "holds NaN or infinity", remedy="Clean the data or leave the sample out")
    return arrays


def _fits(shape: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    if len(shape) != len(wanted):
        return False
    return all(not isinstance(want, int) or have == want for have, want in zip(shape, wanted, strict=True))
