"""Masks by arithmetic, as TensorFlow models write them: logits * mask - (1 - mask) * huge, mask of ones and zeros."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from hccs_onnx.graph.mask_levels import MASKS, UNKNOWN, MaskLevels, mask_levels
from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.view import GraphView

_MOVES = ("Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose", "Slice", "Gather", "Identity", "Tile")
_TYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_DEPTH = 12


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step over a Sub of a mask, or over a Mul by ones and zeros, which alone masks nothing."""
    if node.op == "Sub":
        data, mask = (tensor.name for tensor in node.inputs)
        return [] if view.is_constant(data) else [Step(view.index(node), data, mask=_subtracted(view, mask))]
    if node.op == "Mul":
        names = [tensor.name for tensor in node.inputs]
        for data, mask in (names, names[::-1]):
            if not view.is_constant(data) and _ones_and_zeros(view, mask, _DEPTH):
                return [Step(view.index(node), data)]
    return []


def _subtracted(view: GraphView, name: str) -> MaskLevels:
    """Levels of what is subtracted, seen as what is added."""
    value = view.constant(name)
    if value is not None and not view.may_be_fed(name):
        return MaskLevels(masks=bool(np.any(value >= MASKS)), magnitude=0.0)
    levels = mask_levels(view, name)
    return levels if levels.masks else UNKNOWN


def _ones_and_zeros(view: GraphView, name: str, depth: int) -> bool:
    """Whether a tensor holds nothing but ones and zeros, or comes from integers, which then are those."""
    if view.dtype(name) in _TYPES:
        return True
    value = view.constant(name)
    if value is not None:
        return bool(np.isin(value, (0, 1)).all())
    node = view.producer(name)
    if node is None or depth == 0:
        return False
    inputs = [tensor.name for tensor in node.inputs]
    if node.op in _MOVES or node.op in ("Cast", "CastLike"):
        return _ones_and_zeros(view, inputs[0], depth - 1)
    if node.op == "Sub":  # 1 - mask
        return view.scalar(inputs[0]) == 1.0 and _ones_and_zeros(view, inputs[1], depth - 1)
    if node.op in ("Mul", "Where"):
        return all(_ones_and_zeros(view, item, depth - 1) for item in inputs)
    return False
