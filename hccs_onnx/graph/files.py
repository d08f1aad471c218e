"""Model files: reading without weights, writing all or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import onnx
from google.protobuf.message import DecodeError

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.external import external_locations, is_odd, relocated
from hccs_onnx.graph.names import made_twice
from hccs_onnx.graph.placement import ExternalData, Placement, place

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
        If there is no such file, it is not an ONNX model, makes a tensor twice, or its external data leads out of its
        folder or is no file.

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
    twice = made_twice(model)
    if twice is not None:
        remedy = "Run onnx.checker on it, and export it again"
        raise ModelError(str(path), f"is not valid: a tensor is made more than once ({twice})", remedy=remedy)
    for location in external_locations(model):
        if is_odd(path.parent / location):
            remedy = "Put the file beside the model"
            raise ModelError(f"external data '{location}'", "is a folder, device or pipe, not a file", remedy=remedy)
    return model


def write_model(
    model: onnx.ModelProto, source: Path, target: Path, external_data: ExternalData | None = None
) -> tuple[Path, ...]:
    """Write `model`, read from `source`, to `target`: completely or not at all, the same bytes every time.

    External data is shared, or copied file by file, never loaded; copies are there before the model is.

    Parameters
    ----------
    model : onnx.ModelProto
        The changed model.
    source : pathlib.Path
        Where it was read from; external data is relative to its folder.
    target : pathlib.Path
        New file, replaced if it exists. Not `source`.
    external_data : {'share', 'copy'}, optional
        Whether the new model refers to the same files or to copies; default: share what can be shared, see `place`.

    Returns
    -------
    tuple of pathlib.Path
        Copies that were made.

    Raises
    ------
    ModelError
        If the target is the source, cannot be written, or the model is too large for a protobuf file.

    Examples
    --------
    >>> write_model(model, Path("a.onnx"), Path("b.onnx"))  # doctest: +SKIP
    """
    locations = external_locations(model)
    check_target(
        target, source, *(folder / location for folder in (source.parent, target.parent) for location in locations)
    )
    with writing_errors(target):
        placement = place(locations, source, target, external_data)
    with relocated(model, placement.locations):
        if model.ByteSize() > MAX_PROTO_BYTES:
            remedy = "Save the model with external data first (onnx.save_model, save_as_external_data=True)"
            raise ModelError(str(target), "model is larger than a protobuf file can be (needs < 2 GiB)", remedy=remedy)
        data = model.SerializeToString(deterministic=True)
    with writing_errors(target), _copies(placement, target), atomic_file(target) as file:
        file.write(data)
    return tuple(copy for _, copy in placement.copies)


def model_files(path: Path) -> list[Path]:
    """The files of a model: itself, and those of its external data.

    Raises
    ------
    ModelError
        As `read_model` does.
    """
    return [path, *(path.parent / location for location in external_locations(read_model(path)))]


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _copies(placement: Placement, target: Path) -> Iterator[None]:
    """Copies of external data, undone if the block fails."""
    model_before = _identity(target)
    started: list[Path] = []
    try:
        for file, copy in placement.copies:
            started.append(copy)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as reader, atomic_file(copy) as writer:
                shutil.copyfileobj(reader, writer)
        yield
    except BaseException:
        if _identity(target) == model_before:  # an interrupt may come after the new model, which needs them
            for copy in started:
                copy.unlink(missing_ok=True)
        raise


def _identity(path: Path) -> int | None:
    """What changes when a file is replaced."""
    try:
        return path.stat().st_ino
    except OSError:
        return None
