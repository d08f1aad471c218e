"""The HCCS nodes of a rewritten model: parameters, static shapes, and the codes that they read."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from hccs_onnx.calibration.collect import run, with_outputs
from hccs_onnx.calibration.data import DataSource, Samples, input_specs
from hccs_onnx.errors import CodegenError, DataError
from hccs_onnx.graph.names import all_nodes
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.graph.shapes import tensor_types
from hccs_onnx.operator.schema import ELEMENT_TYPES, is_hccs, read_attributes
from hccs_onnx.params import HccsParams, OutputType
from hccs_onnx.reference import MASK_CODE, Array

logger = logging.getLogger(__name__)

Shapes = Mapping[str, Sequence[int]]
_OUTPUTS = {element: output for output, element in ELEMENT_TYPES.items()}


@dataclass(frozen=True)
class HccsNode:
    """An HCCS node with int8 logits.

    Parameters
    ----------
    name : str
        Node name; that of its output where it has none, or shares it.
    x, y : str
        Tensors that it reads and writes.
    output : {'uint8', 'int16'}
        Type of `y`.
    params : HccsParams
        Its attributes.
    """

    name: str
    x: str
    y: str
    output: OutputType
    params: HccsParams


@dataclass(frozen=True)
class NodeCodes:
    """What a node reads in the project's test vectors.

    Parameters
    ----------
    codes : ndarray of int8
        Its X, in the shape that the project is made for.
    origin : str
        Where they come from, in words.
    """

    codes: Array
    origin: str


def named_nodes(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The HCCS nodes of the main graph in its order, none of them lost where names are missing or not unique.

    Such a node is called by its output. Nodes in bodies of If, Loop and Scan are left out, which is logged.

    Examples
    --------
    >>> text = '''<ir_version: 8, opset_import: ["": 17, "hccs": 1]> g (int8[n] x, uint8 z) => (uint8[n] y) {
    ...     a = hccs.HCCS (x, z)
    ...     y = hccs.HCCS (x, z)
    ... }'''
    >>> list(named_nodes(onnx.parser.parse_model(text)))
    ['a', 'y']
    """
    inside = sum(map(is_hccs, all_nodes(model.graph.node))) - sum(map(is_hccs, model.graph.node))
    if inside:
        logger.warning("%d HCCS nodes in bodies of If, Loop or Scan are left out", inside)
    nodes = list(filter(is_hccs, model.graph.node))
    times = Counter(node.name for node in nodes)
    names = [node.name if node.name and times[node.name] == 1 else node.output[0] for node in nodes]
    if len(set(names)) < len(names):  # an output is called like another node
        names = [node.output[0] for node in nodes]
    return dict(zip(names, nodes, strict=True))


def find_nodes(model: onnx.ModelProto, path: Path, names: Sequence[str] = ()) -> tuple[HccsNode, ...]:
    """The HCCS nodes with int8 logits, in graph order.

    Parameters
    ----------
    model : onnx.ModelProto
        A rewritten model.
    path : pathlib.Path
        Where it was read from.
    names : sequence of str
        Only nodes of these names; by default all.

    Raises
    ------
    CodegenError
        If there are none, a name is unknown, or a node named or all nodes read floats.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) { y = Neg (x) }'
    >>> find_nodes(onnx.parser.parse_model(text), Path("m.onnx"))
    Traceback (most recent call last):
    hccs_onnx.errors.CodegenError: m.onnx: holds no HCCS node. Rewrite it first: python -m hccs_onnx rewrite m.onnx ...
    """
    nodes = named_nodes(model)
    if not nodes:
        remedy = f"Rewrite it first: python -m hccs_onnx rewrite {path} --data DATA --to uint8"
        raise CodegenError(str(path), "holds no HCCS node", remedy=remedy)
    unknown = [name for name in names if name not in nodes]
    if unknown:
        needs = f"one of {', '.join(nodes)}"
        raise CodegenError("--node", "is no HCCS node of the model", found=unknown[0], needs=needs)
    types = tensor_types(model, path.parent)
    floats, found = [], []
    for name, node in nodes.items():
        if names and name not in names:
            continue
        output = _output_type(types, name, node)
        if output == "float":
            floats.append(name)
        else:
            found.append(HccsNode(name, node.input[0], node.output[0], output, read_attributes(node)))
    if floats and (names or not found):
        raise CodegenError(
            f"node '{floats[0]}'", "reads float logits, which AI Engine kernels do not", found="float", needs="int8",
            remedy="Rewrite the original with --to uint8 or --to int16 first",
        )  # fmt: skip
    return tuple(found)


def _output_type(types: Mapping[str, onnx.TypeProto], name: str, node: onnx.NodeProto) -> OutputType:
    zero = types.get(node.input[1]) if len(node.input) > 1 else None
    element = zero.tensor_type.elem_type if zero is not None else TensorProto.UNDEFINED
    if element not in _OUTPUTS:
        raise CodegenError(f"node '{name}'", "output type is not known", remedy="Rewrite the original again")
    return _OUTPUTS[element]


def bind_shapes(model: onnx.ModelProto, shapes: Shapes) -> None:
    """Fix dynamic sizes of graph inputs, in place, and whatever else has the same symbolic sizes.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.
    shapes : mapping of str to sequence of int
        Shape by input name.

    Raises
    ------
    CodegenError
        If there is no such input, or it cannot have this shape.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x) => (float[n,4] y) { y = Neg (x) }'
    >>> model = onnx.parser.parse_model(text)
    >>> bind_shapes(model, {"x": (2, 4)})
    >>> [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]
    [2, 4]
    """
    inputs = {value.name: value.type.tensor_type.shape.dim for value in model.graph.input}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        subject = f"--shape {name}"
        if name not in inputs:
            raise CodegenError(subject, "is no input of the model", needs=f"one of {', '.join(inputs)}")
        dims = inputs[name]
        declared = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims]
        fixed = {axis: size for axis, size in enumerate(declared) if isinstance(size, int)}
        if len(shape) != len(dims) or any(shape[axis] != size for axis, size in fixed.items()) or min(shape) < 1:
            needs = "[" + ", ".join(map(str, declared)) + "]"
            raise CodegenError(subject, "does not fit the input", found=list(shape), needs=needs)
        for dim, size in zip(dims, shape, strict=True):
            if dim.dim_param and sizes.setdefault(dim.dim_param, size) != size:
                found = f"{dim.dim_param} = {sizes[dim.dim_param]} and {size}"
                raise CodegenError(subject, "two sizes for one axis", found=found, remedy="Give one")
            dim.dim_value = size
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]


def codes_from_data(
    model: onnx.ModelProto, path: Path, nodes: Sequence[HccsNode], data: DataSource
) -> tuple[NodeCodes, ...]:
    """What `nodes` read when the model runs on the first sample.

    Raises
    ------
    DataError
        If there is no sample that fits.
    CodegenError
        If a node has no rows on the first.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    names = [node.x for node in nodes]
    samples = Samples(data, input_specs(model))
    session = load_session(with_outputs(changed, names), path)
    feed = next(iter(samples))
    values = run(session, names, feed)
    _check_rows(nodes, [value.shape for value in values], "Give another sample")
    origin = f"first sample of {Path(samples.name).name}"
    return tuple(NodeCodes(value, origin) for value in values)


def codes_at_random(model: onnx.ModelProto, path: Path, nodes: Sequence[HccsNode]) -> tuple[NodeCodes, ...]:
    """Seeded codes of every kind (spread, flat, extreme, partly and wholly masked rows) in the nodes' static shapes.

    Raises
    ------
    CodegenError
        If a shape is not static, or has no rows.
    """
    shapes = static_shapes(model, path, nodes)
    _check_rows(nodes, shapes, "Bind other shapes with --shape")
    return tuple(
        NodeCodes(_random_codes(shape, seed, node.params.masked), f"random codes, seed {seed}")
        for seed, (node, shape) in enumerate(zip(nodes, shapes, strict=True))
    )


def static_shapes(model: onnx.ModelProto, path: Path, nodes: Sequence[HccsNode]) -> list[tuple[int, ...]]:
    """Shape of each node's X: as inferred, or where that is not enough, as it is when the model runs on zeros.

    Raises
    ------
    CodegenError
        If inputs are dynamic.
    """
    types = tensor_types(model, path.parent)
    shapes = [_static(types.get(node.x)) for node in nodes]
    if None in shapes:
        _check_inputs(model, nodes[shapes.index(None)])
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        specs = input_specs(model)
        feed = {spec.name: np.zeros([int(size or 1) for size in spec.shape or ()], spec.dtype) for spec in specs}
        names = [node.x for node in nodes]
        try:
            values = run(load_session(with_outputs(changed, names), path), names, feed)
        except DataError as error:
            remedy = "Give --data with a sample that it runs on"
            raise CodegenError(str(path), f"does not run on zeros to find shapes: {error}", remedy=remedy) from error
        shapes = [value.shape for value in values]
    return [shape for shape in shapes if shape is not None]


def _check_inputs(model: onnx.ModelProto, node: HccsNode) -> None:
    for spec in input_specs(model):
        if spec.shape is None:
            remedy = "Give --data, whose first sample then says"
            raise CodegenError(
                f"node '{node.name}'", f"shape depends on input '{spec.name}' of unknown rank", remedy=remedy
            )
        if not all(isinstance(size, int) for size in spec.shape):
            declared = ", ".join(str(size or "?") for size in spec.shape)
            example = ",".join(str(size if isinstance(size, int) else 1 if axis == 0 else 128)
                               for axis, size in enumerate(spec.shape))  # fmt: skip
            raise CodegenError(
                f"node '{node.name}'", "shape is not static", found=f"input '{spec.name}' is [{declared}]",
                remedy=f"Bind it, as in --shape {spec.name}={example}, or give --data, whose first sample then says",
            )  # fmt: skip


def _static(kind: onnx.TypeProto | None) -> tuple[int, ...] | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None


def _check_rows(nodes: Sequence[HccsNode], shapes: Sequence[tuple[int, ...]], remedy: str) -> None:
    for node, shape in zip(nodes, shapes, strict=True):
        if 0 in shape:
            raise CodegenError(f"node '{node.name}'", "has no rows", found=list(shape), remedy=remedy)


def _random_codes(shape: tuple[int, ...], seed: int, masked: bool) -> Array:
    """Rows in turn: spread around a level, uniform, flat, two-valued, a single peak; keys masked in every third row."""
    random = np.random.default_rng(seed)
    n = shape[-1]
    count = math.prod(shape[:-1])
    low = MASK_CODE + 1 if masked else MASK_CODE
    level = random.integers(low, 128, (count, 1))
    kinds = [
        np.clip(level + random.normal(0, 20, (count, n)).astype(np.int64), low, 127),
        random.integers(low, 128, (count, n)),
        np.broadcast_to(level, (count, n)),
        random.choice([low, 127], (count, n)),
        np.where(np.arange(n) == random.integers(0, n, (count, 1)), 127, low),
    ]
    rows = np.choose(np.arange(count)[:, None] % len(kinds), kinds)
    if masked:
        seen = np.where(np.arange(count) % 3 == 0, random.integers(0, n + 1, count), n)
        rows = np.where(np.arange(n) < seen[:, None], rows, MASK_CODE)
    return rows.reshape(shape).astype(np.int8)
