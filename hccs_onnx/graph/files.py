"""Model files: reading without weights, writing all or nothing."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.names import subgraphs

MAX_PROTO_BYTES = 2**31 - 1


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file; external data stays on disk.

    Parameters
    ----------
    path : pathlib.Path
        Model file.

    Returns
    -------
    onnx.ModelProto
        With external tensors as references.

    Raises
    ------
    ModelError
        If there is no such file, it is not an ONNX model, or its external data leads out of its folder or is no file.

    Examples
    --------
    >>> read_model(Path("missing.onnx"))
    Traceback (most recent call last):
    hccs_onnx.errors.ModelError: missing.onnx: no such file. Check the path.
    """
    check_source(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise ModelError(str(path), f"cannot be read ({error.strerror})", remedy="Check its permissions") from error
    except (DecodeError, UnicodeDecodeError) as error:  # the latter from protobuf without its C extension
        remedy = "Export or copy the model again"
        raise ModelError(str(path), "is not an ONNX file, or is truncated", remedy=remedy) from error
    if not model.HasField("graph") or not model.opset_import or not model.graph.output:
        raise ModelError(str(path), "is not an ONNX model (no graph with outputs in it)", remedy="Export it again")
    for location in external_locations(model):
        if _is_odd(path.parent / location):
            remedy = "Put the file beside the model"
            raise ModelError(f"external data '{location}'", "is a folder, device or pipe, not a file", remedy=remedy)
    return model


def write_model(model: onnx.ModelProto, source: Path, target: Path) -> None:
    """Write `model`, read from `source`, to `target`: completely or not at all, the same bytes every time.

    External data is not read. It is shared when both files lie in one folder, and copied file by file otherwise.

    Parameters
    ----------
    model : onnx.ModelProto
        The changed model.
    source : pathlib.Path
        Where it was read from; external data is relative to its folder.
    target : pathlib.Path
        New file, replaced if it exists. Not `source`.

    Raises
    ------
    ModelError
        If the target is the source, cannot be written, or the model is too large for a protobuf file.

    Examples
    --------
    >>> write_model(model, Path("a.onnx"), Path("b.onnx"))  # doctest: +SKIP
    """
    external = external_locations(model)
    check_target(
        target, source, *(folder / location for folder in (source.parent, target.parent) for location in external)
    )
    if model.ByteSize() > MAX_PROTO_BYTES:
        remedy = "Save the model with external data first (onnx.save_model, save_as_external_data=True)"
        raise ModelError(str(target), "model is larger than a protobuf file can be (needs < 2 GiB)", remedy=remedy)
    data = model.SerializeToString(deterministic=True)
    with writing_errors(target), _external_files(model, source.parent, target.parent), atomic_file(target) as file:
        file.write(data)


def check_source(path: Path) -> None:
    """Refuse a model file that is not there, or is no file.

    Raises
    ------
    ModelError
        With what to do instead.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ModelError(str(path), "no such file", remedy="Check the path") from error
    except OSError as error:
        raise ModelError(str(path), f"cannot be read ({error.strerror})", remedy="Check the path") from error
    if stat.S_ISDIR(mode):
        raise ModelError(str(path), "is a folder, not an ONNX file", remedy="Name the .onnx file in it")
    if not stat.S_ISREG(mode):  # it would be read twice, and waited for
        raise ModelError(str(path), "is a device or pipe, not a file", remedy="Write the model into a file first")


def check_target(target: Path, *sources: Path) -> None:
    """Refuse, before any work is done, a target that is one of the sources or cannot be written.

    Raises
    ------
    ModelError
        With what to do instead.

    Examples
    --------
    >>> check_target(Path("a.onnx"), Path("a.onnx"))
    Traceback (most recent call last):
    hccs_onnx.errors.ModelError: a.onnx: output is an input file. Choose another name with -o.
    """
    remedy = "Choose another name with -o"
    place = os.path.realpath(target)
    if place in [os.path.realpath(source) for source in sources]:
        raise ModelError(str(target), "output is an input file", remedy=remedy)
    folder = target.parent
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except OSError:
        is_folder = False
    if not is_folder:
        raise ModelError(str(target), f"folder {folder} does not exist", remedy="Create it first")
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link to itself can be replaced
            raise ModelError(str(target), f"cannot be written ({error.strerror})", remedy=remedy) from error
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise ModelError(str(target), f"is {kind}, not a file", remedy=remedy)
    if not os.access(folder, os.W_OK):
        raise ModelError(str(target), f"folder {folder} is not writable", remedy="Choose another with -o")


@contextmanager
def atomic_file(target: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears as `target` when the block ends well, and leaves nothing otherwise.

    Examples
    --------
    >>> with atomic_file(Path("out.bin")) as file:  # doctest: +SKIP
    ...     file.write(b"all or nothing")
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def writing_errors(target: Path) -> Iterator[None]:
    """Turn an operating system error while writing into a `ModelError`."""
    try:
        yield
    except OSError as error:
        remedy = "Free space or choose another place with -o"
        raise ModelError(str(target), f"cannot be written ({error.strerror or error})", remedy=remedy) from error


def external_locations(model: onnx.ModelProto) -> list[str]:
    """Files that the model's external tensors lie in, relative to its folder, sorted.

    Raises
    ------
    ModelError
        If one leads out of the model's folder, on this system or another.
    """
    locations: set[str] = set()
    for tensor in all_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            # What is no UTF-8 comes as bytes.
            locations.update(os.fsdecode(entry.value) for entry in tensor.external_data if entry.key == "location")
    for location in locations:
        if _leads_out(location):
            raise ModelError(f"external data '{location}'", "leads out of the model's folder", remedy="Move it inside")
    return sorted(locations)


def all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Initializers, sparse ones too, and tensor attributes of a model: its graphs and its functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in ([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []) + list(
                attribute.sparse_tensors
            ):
                yield from (sparse.values, sparse.indices)
        for graph in subgraphs(node):
            yield from _graph_tensors(graph)


def with_external_data(tensor: TensorProto, folder: Path) -> TensorProto:
    """A tensor whose data is in it: itself, or a copy with the data of its external file, links followed.

    Parameters
    ----------
    tensor : onnx.TensorProto
        Not changed.
    folder : pathlib.Path
        The model's folder.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If what is said about it makes no sense, or it is shorter than that.

    Examples
    --------
    >>> with_external_data(TensorProto(name="w", data_location=TensorProto.EXTERNAL), Path())
    Traceback (most recent call last):
    FileNotFoundError: external data of 'w' has no location
    """
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = os.fsdecode(entries.get("location", ""))
    if not location or _leads_out(location):
        raise FileNotFoundError(f"external data of '{tensor.name}' has no location")
    path = folder / location
    if _is_odd(path):
        raise FileNotFoundError(f"external data of '{tensor.name}' is not in a file")
    size = byte_size(tensor)
    offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    # Nothing is believed that would make much be read, or read in vain.
    if length != size or not 0 <= offset <= path.stat().st_size - size:
        raise ValueError(f"external data of '{tensor.name}' does not lie in its file, or is not of its size")
    loaded = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
    with path.open("rb") as file:
        file.seek(offset)
        loaded.raw_data = file.read(size)
    return loaded


def byte_size(tensor: TensorProto) -> int:
    """Bytes that the elements of a tensor take in a file.

    Raises
    ------
    ValueError
        If it has a negative dimension, or is of a type of no fixed size.

    Examples
    --------
    >>> byte_size(TensorProto(dims=[3, 5], data_type=TensorProto.FLOAT16)), byte_size(TensorProto(data_type=1))
    (30, 4)
    """
    name = TensorProto.DataType.Name(tensor.data_type)
    # The other types tell their bits, which onnx knows of all types only since 1.18: BFLOAT16, FLOAT8E4M3FN, INT4.
    digits = re.search(r"\d+", name)
    bits = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}.get(name) or (int(digits.group()) if digits else 0)
    if not bits or any(dim < 0 for dim in tensor.dims):
        raise ValueError(f"tensor '{tensor.name}' has no size ({name}, {list(tensor.dims)})")
    return -(-math.prod(tensor.dims) * bits // 8)


def _leads_out(location: str) -> bool:
    """Whether a path is not one below a folder, as any system reads it."""
    paths = PurePosixPath(location), PureWindowsPath(location)
    return "\0" in location or any(path.drive or path.root or ".." in path.parts for path in paths)


def _is_odd(path: Path) -> bool:
    """Whether there is something that is no file, so that opening it may never end."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _external_files(model: onnx.ModelProto, source: Path, target: Path) -> Iterator[None]:
    """External data of `model` in folder `target`, copied if that is not `source`; undone if the block fails."""
    place = os.path.realpath(target)
    locations = external_locations(model) if os.path.realpath(source) != place else []
    for location in locations:
        if not (source / location).is_file():
            remedy = "Put it beside the model"
            raise ModelError(str(source / location), "is missing (external data of the model)", remedy=remedy)
        if not Path(os.path.realpath((target / location).parent)).is_relative_to(place):
            remedy = "Remove the link, or write into another folder"
            raise ModelError(str(target / location), "lies behind a link out of the output's folder", remedy=remedy)
    missing = [location for location in locations if not (target / location).exists()]
    for location in sorted(set(locations) - set(missing)):
        if not filecmp.cmp(source / location, target / location, shallow=False):
            remedy = "Remove it, or write into another folder"
            raise ModelError(str(target / location), "holds other data than the model's external data", remedy=remedy)
    copied: list[Path] = []
    try:
        for location in missing:
            (target / location).parent.mkdir(parents=True, exist_ok=True)
            with (source / location).open("rb") as reader, atomic_file(target / location) as writer:
                shutil.copyfileobj(reader, writer)
            copied.append(target / location)
        yield
    except BaseException:
        for path in copied:
            path.unlink(missing_ok=True)
        raise
