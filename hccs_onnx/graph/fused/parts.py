"""What all families share: what is known around a node, and a builder of the nodes that take its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper

from hccs_onnx.graph.names import NameGenerator
from hccs_onnx.graph.opset import default_opset
from hccs_onnx.graph.shapes import tensor_types
from hccs_onnx.reference import Array

NOT_COMPUTED = "which onnxruntime's CPU provider does not compute"
_FLOATS: dict[int, type[np.floating[Any]]] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_FLOATING = (*_FLOATS, TensorProto.BFLOAT16)
_AXES_AS_INPUT = 13  # opset from which Squeeze, Unsqueeze and Split take axes and sizes as an input


@dataclass(frozen=True)
class Surroundings:
    """The model around a fused node, as far as it is known.

    Parameters
    ----------
    opset : int
        Version of the default operator domain.
    types : mapping of str to TypeProto
        Type and shape by tensor name.
    names : NameGenerator
        Names that are free.
    float_type : int
        The one floating-point type of the weights; 0 if there are several or none.
    """

    opset: int
    types: Mapping[str, TypeProto]
    names: NameGenerator
    float_type: int = TensorProto.UNDEFINED

    def rank(self, name: str) -> int | None:
        """Number of axes; None if it is not known."""
        kind = self.types.get(name, TypeProto()).tensor_type
        return len(kind.shape.dim) if kind.HasField("shape") else None

    def size(self, name: str, axis: int) -> int | None:
        """Length of an axis; None if it is dynamic or not known."""
        rank = self.rank(name)
        if rank is None or not -rank <= axis < rank:
            return None
        dim = self.types[name].tensor_type.shape.dim[axis]
        return int(dim.dim_value) if dim.HasField("dim_value") else None

    def element_type(self, *names: str) -> int:
        """Element type of the first tensor of which it is known, or the one of the weights; 0 if there is none."""
        known = (self.types.get(name, TypeProto()).tensor_type.elem_type for name in names)
        return next((kind for kind in known if kind), self.float_type)


def surroundings_of(model: onnx.ModelProto, folder: Path) -> Surroundings:
    """What is known around the nodes of a model; its external data need not be loaded."""
    floats = {tensor.data_type for tensor in model.graph.initializer if tensor.data_type in _FLOATING}
    float_type = floats.pop() if len(floats) == 1 else TensorProto.UNDEFINED
    return Surroundings(default_opset(model), tensor_types(model, folder), NameGenerator(model.graph), float_type)


def inputs_of(node: NodeProto, count: int) -> list[str]:
    """The node's first `count` inputs, an empty name for each that it does not have."""
    return [*node.input, *[""] * count][:count]


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def float_problem(node: NodeProto, around: Surroundings, *names: str) -> str | None:
    """Why constants of the node's type cannot be written."""
    kind = around.element_type(*names)
    if kind in _FLOATS:
        return None
    if not kind:
        return f"the element type of input '{names[0]}' is not known"
    return f"it computes in {TensorProto.DataType.Name(kind).lower()}, not in float or float16"


def heads_problem(width: int | None, heads: int, what: str) -> str | None:
    """Why something of a width cannot be shared out among heads."""
    if heads < 1:
        return "its attribute num_heads is missing"
    if width is None:
        return f"the width of {what} is not known"
    if width < heads or width % heads:
        return f"the width of {what} is {width}, not a multiple of its {heads} heads"
    return None


class Parts:
    """The nodes that together compute what a fused node does, in order.

    Parameters
    ----------
    node : NodeProto
        The fused node; names of its parts begin with its own.
    around : Surroundings
        The model around it.
    kind : int
        Floating-point type that it computes in.
    """

    def __init__(self, node: NodeProto, around: Surroundings, kind: int = TensorProto.FLOAT) -> None:
        self.nodes: list[NodeProto] = []
        self.kind = kind
        self._stem = node.name or node.output[0]
        self._around = around

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node and return its output's name: `output`, or a new one."""
        name = self._around.names.fresh(f"{self._stem}/{op}")
        self.nodes.append(helper.make_node(op, list(inputs), [output or name], name, **attributes))
        return output or name

    def constant(self, value: Array) -> str:
        """A constant tensor."""
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def ints(self, *values: int) -> str:
        """A constant list of int64."""
        return self.constant(np.array(values, np.int64))

    def index(self, value: int) -> str:
        """A constant int64 scalar."""
        return self.constant(np.array(value, np.int64))

    def number(self, value: float) -> str:
        """A constant scalar of the node's type; what is beyond its range becomes its largest or lowest number."""
        dtype = _FLOATS[self.kind]
        limit = float(np.finfo(dtype).max)
        return self.constant(np.array(np.clip(value, -limit, limit), dtype))

    @property
    def lowest(self) -> float:
        """The lowest number of the node's type."""
        return float(np.finfo(_FLOATS[self.kind]).min)

    def reshape(self, x: str, *shape: int, output: str = "") -> str:
        """Reshape; 0 keeps an axis."""
        return self.add("Reshape", x, self.ints(*shape), output=output)

    def transpose(self, x: str, *order: int, output: str = "") -> str:
        """Transpose."""
        return self.add("Transpose", x, output=output, perm=list(order))

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Unsqueeze."""
        if self._around.opset < _AXES_AS_INPUT:
            return self.add("Unsqueeze", x, axes=list(axes))
        return self.add("Unsqueeze", x, self.ints(*axes))

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        """The pieces that Split makes."""
        outputs = [self._around.names.fresh(f"{self._stem}/Split") for _ in sizes]
        if self._around.opset < _AXES_AS_INPUT:
            node = helper.make_node("Split", [x], outputs, outputs[0], axis=axis, split=sizes)
        else:
            node = helper.make_node("Split", [x, self.ints(*sizes)], outputs, outputs[0], axis=axis)
        self.nodes.append(node)
        return outputs

    def take(self, x: str, start: str, end: str, axis: int) -> str:
        """Elements from `start` to `end` (lists of one int64) along an axis."""
        return self.add("Slice", x, start, end, self.ints(axis))

    def dim(self, x: str, axis: int) -> str:
        """Length of an axis, as an int64 scalar."""
        return self.add("Gather", self.add("Shape", x), self.index(axis), axis=0)

    def counted(self, length: str, *shape: int) -> str:
        """0, 1, ... below `length` (an int64 scalar), in a shape."""
        return self.reshape(self.add("Range", self.index(0), length, self.index(1)), *shape)

    def as_int64(self, x: str) -> str:
        """Cast to int64."""
        return self.add("Cast", x, to=TensorProto.INT64)
