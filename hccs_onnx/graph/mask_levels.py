"""Which values an additive mask can take, as far as the graph tells."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from hccs_onnx.graph.memo import once_per_view
from hccs_onnx.graph.quantisation import codes_of
from hccs_onnx.graph.view import GraphView
from hccs_onnx.reference import Array

MASKS = 32.0  # nats; an addend at or below minus this leaves next to no probability (1.3e-14)
HUGE = 1000.0  # logits; nothing that is added on purpose as a bias is this large
_MOVES = ("Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose", "Slice", "Gather", "Identity", "Flatten", "Tile")
_DEPTH = 16
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@dataclass(frozen=True)
class MaskLevels:
    """Values that are added to logits.

    Parameters
    ----------
    masks : bool
        Some position may be masked: a value at or below -32 occurs, or cannot be ruled out.
    magnitude : float
        If every value is 0 or masks, the smallest magnitude of those that mask (inf if none does); 0 if there are other
        values, such as a position bias, or it cannot be told.

    Examples
    --------
    >>> MaskLevels(masks=True, magnitude=1e4).survives(0.125)
    True
    """

    masks: bool
    magnitude: float

    def survives(self, factor: float) -> bool:
        """Whether the mask still masks, and no more, if the logits it is added to are divided by `factor` first."""
        return self.magnitude * min(factor, 1.0) >= HUGE


UNKNOWN = MaskLevels(masks=True, magnitude=0.0)


@once_per_view
def mask_levels(view: GraphView, name: str, depth: int = _DEPTH) -> MaskLevels:
    """What can be said about the values of tensor `name`, an addend of logits.

    Parameters
    ----------
    view : GraphView
        The model.
    name : str
        Tensor.
    depth : int
        How many nodes to look back at most.

    Examples
    --------
    >>> mask_levels(view, "attention_mask_times_minus_1e4")  # doctest: +SKIP
    MaskLevels(masks=True, magnitude=10000.0)
    """
    value = view.constant(name)
    if value is not None:
        return UNKNOWN if view.may_be_fed(name) else _of_values(value)
    node = view.producer(name)
    if node is None or depth == 0:
        return UNKNOWN
    inputs = [tensor.name for tensor in node.inputs]
    if node.op in _MOVES or (node.op in ("Cast", "CastLike") and not _is_integer(view, inputs[0])):
        return mask_levels(view, inputs[0], depth - 1)
    if node.op == "DequantizeLinear":
        return _dequantized(view, node, depth)
    if node.op == "ConstantOfShape":
        fill = node.attrs.get("value")
        return _of_values(np.zeros(1) if fill is None else np.asarray(fill.values))
    if node.op == "Where":
        return _either(mask_levels(view, inputs[1], depth - 1), mask_levels(view, inputs[2], depth - 1))
    if node.op == "Add":
        return _sum(mask_levels(view, inputs[0], depth - 1), mask_levels(view, inputs[1], depth - 1))
    if node.op == "Mul":
        for factor, other in (inputs, inputs[::-1]):
            scalar = _number(view, factor)
            # Integers times a huge number are 0 or huge. A positive product would push the others out: a mask as well.
            if scalar is None or not math.isfinite(scalar):  # 0 times infinity is NaN
                continue
            magnitude = abs(scalar) * _smallest(view, other, depth - 1)
            if magnitude >= MASKS:
                return MaskLevels(masks=True, magnitude=magnitude)
    return UNKNOWN


def _dequantized(view: GraphView, node: gs.Node, depth: int) -> MaskLevels:
    """Levels behind a pair, which rounds and cannot reach below its lowest code; 0 stays 0."""
    codes = codes_of(view, node)
    if codes is None:
        return UNKNOWN
    levels = mask_levels(view, codes.data, depth - 1)
    if not levels.masks:
        return levels
    magnitude = min(levels.magnitude - codes.scale / 2, -codes.lowest)
    return MaskLevels(True, magnitude) if magnitude >= MASKS else UNKNOWN


def _of_values(values: Array) -> MaskLevels:
    numbers = np.asarray(values, np.float64)
    masking = numbers[numbers <= -MASKS]
    if masking.size + np.count_nonzero(numbers == 0) < numbers.size:
        return MaskLevels(masks=bool(masking.size), magnitude=0.0)
    return MaskLevels(masks=bool(masking.size), magnitude=float(-masking.max()) if masking.size else math.inf)


def _either(one: MaskLevels, other: MaskLevels) -> MaskLevels:
    return MaskLevels(one.masks or other.masks, min(one.magnitude, other.magnitude))


_sum = _either  # two masks: 0, the one, the other, or both, which is larger than either


def _is_integer(view: GraphView, name: str) -> bool:
    return view.dtype(name) in _INTEGERS


def _number(view: GraphView, name: str) -> float | None:
    """Value of a constant with one element, also behind a pair."""
    node = view.producer(name)
    codes = None if node is None else codes_of(view, node)
    if codes is None:
        return view.scalar(name)
    value = view.scalar(codes.data)
    with np.errstate(over="ignore"):
        return None if value is None else float(np.float32(codes.value(value)))


def _smallest(view: GraphView, name: str, depth: int) -> float:
    """The smallest magnitude but 0 that a tensor of whole numbers can hold, also behind a pair; 0 for other tensors."""
    node = view.producer(name)
    codes = None if node is None else codes_of(view, node)
    if codes is None or depth == 0:
        return float(_integral(view, name, depth))
    whole = _smallest(view, codes.data, depth - 1)
    ends = [end for end in (-codes.lowest, codes.highest) if end > 0]
    return max(codes.scale, min(whole - codes.scale / 2, *ends)) if whole > 0 else 0.0


@once_per_view
def _integral(view: GraphView, name: str, depth: int) -> bool:
    """Whether a float tensor can only hold whole numbers."""
    if _is_integer(view, name):
        return True
    value = view.constant(name)
    if value is not None:
        return bool(np.all(value == np.rint(value)))
    node = view.producer(name)
    if node is None or depth == 0:
        return False
    inputs = [tensor.name for tensor in node.inputs]
    if node.op in ("Add", "Sub", "Mul"):
        return all(_integral(view, item, depth - 1) for item in inputs)
    return (node.op in _MOVES or node.op == "Cast") and _integral(view, inputs[0], depth - 1)
