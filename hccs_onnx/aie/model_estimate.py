"""What a rewritten model's HCCS nodes would cost on an AI Engine array: the kernel's model, node by node."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from hccs_onnx.aie.devices import Device
from hccs_onnx.aie.estimate import KernelEstimate, node_kernel_estimate
from hccs_onnx.aie.nodes import bind_shapes, named_nodes
from hccs_onnx.aie.plan import Work, make_plan
from hccs_onnx.aie.vectors import OUT_BYTES
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.shapes import tensor_types
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.params import OutputType, Reciprocal

ROWS_A_TILE = 32
_OUTPUTS: Mapping[int, OutputType] = {TensorProto.UINT8: "uint8", TensorProto.INT16: "int16"}


@dataclass(frozen=True)
class NodeEstimate:
    """Modelled cost of one node.

    Parameters
    ----------
    node : str
        Name.
    output, reciprocal, masked : str, str, bool
        Which kernel it takes.
    rows : int or None
        Rows of all heads; None where the shape is dynamic.
    tiles : int
        Tiles that share the rows.
    kernel : KernelEstimate
        Cost of a row on a tile.
    """

    node: str
    output: OutputType
    reciprocal: Reciprocal
    masked: bool
    rows: int | None
    tiles: int
    kernel: KernelEstimate

    def microseconds(self, device: Device) -> float | None:
        """Time of all rows, streams included; None where their number is not known."""
        if self.rows is None:
            return None
        return math.ceil(self.rows / self.tiles) * self.kernel.with_streams / device.clock_mhz


def estimate_model(
    path: Path, device: Device, *, tiles: int | None = None, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[NodeEstimate, ...]:
    """Modelled cost of each HCCS node with int8 logits, in graph order.

    Parameters
    ----------
    path : pathlib.Path
        A rewritten model.
    device : Device
        The array.
    tiles : int, optional
        Tiles for a node; by default one for every 32 rows, at most all.
    shapes : mapping of str to sequence of int, optional
        Shapes of dynamic inputs by name.

    Raises
    ------
    ModelError
        If the model cannot be read, has no such node, a row length is not static, or `tiles` does not fit.
    CodegenError
        If `shapes` do not fit, or a row does not fit into a tile.
    """
    if tiles is not None and not 1 <= tiles <= device.tiles:
        raise ModelError("--tiles", f"does not fit {device.name}", found=tiles, needs=f"1..{device.tiles}")
    model = read_model(path)
    bind_shapes(model, shapes or {})
    types = tensor_types(model, path.parent)
    found = []
    for name, node in named_nodes(model).items():
        output = _OUTPUTS.get(_element_type(types, node.input[1]))
        if output is None:
            continue
        kind = types.get(node.input[0])
        dims = [dim.dim_value for dim in kind.tensor_type.shape.dim] if kind is not None else []
        if not dims or not dims[-1]:
            remedy = "Bind the inputs' shapes, as in --shape input_ids=1,128"
            raise ModelError(f"node '{name}'", "row length is not static", remedy=remedy)
        params, n = read_attributes(node), dims[-1]
        # Rows that do not fit into a tile are refused, as codegen does.
        make_plan(device, Work(1, 1, n, OUT_BYTES[output], params.masked), f"node '{name}'")
        kernel = node_kernel_estimate(device, output, params, n)
        rows = math.prod(dims[:-1]) or None
        share = tiles or min(device.tiles, math.ceil((rows or 1) / ROWS_A_TILE))
        found.append(NodeEstimate(name, output, params.reciprocal, params.masked, rows, share, kernel))
    if not found:
        remedy = f"Rewrite the original first: python -m hccs_onnx rewrite {path} --data DATA --to uint8"
        raise ModelError(str(path), "holds no HCCS node with int8 logits", remedy=remedy)
    return tuple(found)


def _element_type(types: Mapping[str, onnx.TypeProto], name: str) -> int:
    kind = types.get(name)
    return kind.tensor_type.elem_type if kind is not None else TensorProto.UNDEFINED
