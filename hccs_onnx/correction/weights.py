"""A projection's weight or bias as a model stores it: floats, or codes that the graph turns into floats; and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto

from hccs_onnx.graph.patterns.base import NoMatch
from hccs_onnx.graph.view import LOADABLE, GraphView
from hccs_onnx.reference import Array

_STEPS = 8  # nodes between an initializer and where it is read


@dataclass(frozen=True)
class Step:
    """What one node does to a stored weight: ``transpose((w - zero_point) * scale)``, then rounding to `dtype`.

    Parameters
    ----------
    scale, zero_point : ndarray of float64
        Broadcast against the weight.
    order : tuple of int or None
        Axes of a Transpose.
    dtype : str or None
        Floating-point type that a Cast rounds to.
    """

    scale: Array | None = None
    zero_point: Array | None = None
    order: tuple[int, ...] | None = None
    dtype: str | None = None

    def forwards(self, value: Array) -> Array:
        """What the node makes of a value."""
        if self.zero_point is not None:
            value = value - self.zero_point
        if self.scale is not None:
            value = value * self.scale
        if self.dtype is not None:
            value = value.astype(self.dtype).astype(np.float64)
        return value if self.order is None else value.transpose(self.order)

    def backwards(self, value: Array) -> Array:
        """Of what the node makes this value."""
        if self.order is not None:
            value = value.transpose(np.argsort(self.order))
        if self.scale is not None:
            value = np.divide(value, self.scale, out=np.zeros_like(value), where=self.scale != 0)  # of 0, all is one
        return value if self.zero_point is None else value + self.zero_point


@dataclass(frozen=True)
class Weight:
    """A constant that one node alone reads, and how it is stored.

    Parameters
    ----------
    tensor : str
        Initializer, or output of a Constant node.
    stored : ndarray
        Its value.
    steps : tuple of Step
        What the graph does to it, in order.

    Examples
    --------
    >>> weight = Weight("w", np.array([2, -128], np.int8), (Step(scale=np.float64(0.5)),))
    >>> weight.value, weight.nearest(np.array([1.2, -99.0])), weight.read(weight.nearest(np.array([1.2, -99.0])))
    (array([  1., -64.]), array([   2, -128], dtype=int8), array([  1., -64.]))
    """

    tensor: str
    stored: Array
    steps: tuple[Step, ...]

    @cached_property
    def value(self) -> Array:
        """What the node reads, float64."""
        return self.read(self.stored)

    def read(self, stored: Array) -> Array:
        """What the node would read if `stored` were stored, float64."""
        value = stored.astype(np.float64)
        for step in self.steps:
            value = step.forwards(value)
        return value

    def change_when_stored(self, change: Array) -> Array:
        """What is left of a change of `value` once the sum is stored."""
        return self.read(self.nearest(self.value + change)) - self.value

    def nearest(self, value: Array) -> Array:
        """What to store, in the form that the model has, to come closest to a value."""
        for step in reversed(self.steps):
            value = step.backwards(value)
        dtype = self.stored.dtype
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            # Codes of symmetric quantisers leave the lowest out.
            lowest = limits.min + (dtype.kind == "i" and int(self.stored.min(initial=0)) > limits.min)
            value = np.clip(np.rint(value), lowest, limits.max)
        return value.astype(dtype)


def find_weight(view: GraphView, name: str, reader: gs.Node) -> Weight | NoMatch:
    """The constant behind tensor `name`, if `reader` alone depends on it, or the reason why it cannot be changed.

    Parameters
    ----------
    view : GraphView
        The main graph.
    name : str
        Input of `reader`.
    reader : onnx_graphsurgeon.Node
        The node that is to read something else.
    """
    steps: list[Step] = []
    for _ in range(_STEPS):
        if not view.only_used_by(name, reader):
            count = view.uses(name)
            return NoMatch(f"'{name}' is shared, by {count} readers")
        node = view.producer(name)
        if node is None or (node.op == "Constant" and "value" in node.attrs):
            stored, dtype = view.constant(name), view.dtype(name)
            if stored is None:
                return NoMatch(f"'{name}' cannot be read, or has more than {LOADABLE} elements")
            # Older versions of onnx read types that NumPy lacks as others.
            if dtype != stored.dtype.name or (stored.dtype.kind not in "fiu" and dtype != "bfloat16"):
                return NoMatch(f"'{name}' is of type {dtype}")
            return Weight(name, stored, tuple(reversed(steps)))
        found = _step(view, node)
        if isinstance(found, NoMatch):
            return found
        step, name = found
        reader = node
        if step is not None:
            steps.append(step)
    return NoMatch(f"'{name}' is computed by too many nodes")


def store(model: onnx.ModelProto, name: str, value: Array) -> None:
    """Put a value in the place of an initializer or a Constant node's, into the model itself where it was external."""
    made = (node.attribute[0].t for node in model.graph.node if node.op_type == "Constant" and name in node.output)
    tensor = next(chain((tensor for tensor in model.graph.initializer if tensor.name == name), made))
    raw = np.ascontiguousarray(value)
    new = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, doc_string=tensor.doc_string)
    new.raw_data = raw.astype(raw.dtype.newbyteorder("<")).tobytes()
    tensor.CopyFrom(new)


def _step(view: GraphView, node: gs.Node) -> tuple[Step | None, str] | NoMatch:
    """What a node does, and to which of its inputs."""
    if not node.inputs:
        return NoMatch(f"'{node.outputs[0].name}' is made by {node.op}")
    source = node.inputs[0].name
    if node.op == "Identity":
        return None, source
    if node.op == "Cast":
        dtype = view.dtype(node.outputs[0].name)
        return Step(dtype=dtype if dtype in ("float16", "float32") else None), source
    if node.op == "Transpose":
        rank = len(view.dims(source) or ())
        return Step(order=tuple(node.attrs.get("perm", range(rank)[::-1]))), source
    if node.op == "DequantizeLinear":
        return _dequantize(view, node)
    if node.op == "Mul":
        for data, factor in ((0, 1), (1, 0)):
            scale = view.constant(node.inputs[factor].name)
            shape, whole = view.dims(node.inputs[factor].name), view.dims(node.outputs[0].name)
            if scale is not None and shape is not None and whole is not None and _broadcasts(shape, whole):
                return Step(scale=scale.astype(np.float64)), node.inputs[data].name
    return NoMatch(f"'{node.outputs[0].name}' is made by {node.op}")


def _dequantize(view: GraphView, node: gs.Node) -> tuple[Step, str] | NoMatch:
    source = node.inputs[0].name
    scale = view.constant(node.inputs[1].name)
    zero_point = view.constant(node.inputs[2].name) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1)
    rank = len(view.dims(source) or ())
    if scale is None or zero_point is None or node.attrs.get("block_size", 0):
        return NoMatch(f"'{node.outputs[0].name}' is dequantised by something computed, or block by block")
    shape = [1] * rank
    if scale.size > 1:
        shape[node.attrs.get("axis", 1)] = -1
    along = [value.astype(np.float64).reshape(shape if value.size > 1 else [1] * rank) for value in (scale, zero_point)]
    return Step(scale=along[0], zero_point=along[1]), source


def _broadcasts(shape: tuple[object, ...], whole: tuple[object, ...]) -> bool:
    """Whether a factor leaves the other the larger one, so that it is a scale and no weight itself."""
    return len(shape) <= len(whole) and shape != whole
