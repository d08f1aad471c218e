"""Tensors whose data lies in files beside the model: where, and reading and moving them."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.names import subgraphs


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
    if is_odd(path):
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


def is_odd(path: Path) -> bool:
    """Whether there is something that is no file, so that opening it may never end."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


@contextmanager
def relocated(model: onnx.ModelProto, locations: Mapping[str, str]) -> Iterator[None]:
    """`model` with other locations of external data while the block runs, by the present ones.

    Raises
    ------
    ModelError
        If a location is no text, which protobuf has no place for.
    """
    entries = (
        entry
        for tensor in all_tensors(model)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location" and os.fsdecode(entry.value) in locations
    )
    before = [(entry, entry.SerializeToString()) for entry in entries]
    try:
        for entry, _ in before:
            entry.value = _text(locations[os.fsdecode(entry.value)])
        yield
    finally:
        for entry, data in before:
            entry.ParseFromString(data)


def _text(location: str) -> str:
    """A location, if protobuf has a place for it."""
    try:
        location.encode()
    except UnicodeEncodeError as error:
        problem = "has a name that is no text"
        raise ModelError(f"external data '{location}'", problem, remedy="Rename it") from error
    return location
