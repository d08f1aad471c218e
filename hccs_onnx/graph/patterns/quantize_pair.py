"""QuantizeLinear and DequantizeLinear one after the other, as quantised models in QDQ form hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.view import GraphView
from hccs_onnx.reference import Array


@dataclass(frozen=True)
class QuantizePair:
    """The two nodes behind some probabilities.

    Parameters
    ----------
    nodes : tuple of int
        Positions of QuantizeLinear and DequantizeLinear.
    output : str
        What the second makes.
    """

    nodes: tuple[int, int]
    output: str


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step over both nodes; what it leaves out when absorbed is the rounding of the logits."""
    quantize = quantizer_of(view, node)
    if quantize is None:
        return []
    return [Step(view.index(node), quantize.inputs[0].name, factor=1.0, reader=view.index(quantize))]


def quantizer_of(view: GraphView, dequantize: gs.Node) -> gs.Node | None:
    """The QuantizeLinear before a DequantizeLinear with the same constant scale and zero point."""
    if dequantize.op != "DequantizeLinear":
        return None
    quantize = view.producer(dequantize.inputs[0].name)
    if quantize is None or quantize.op != "QuantizeLinear" or not view.holds(quantize):
        return None
    ours, theirs = (_parameters(view, node) for node in (quantize, dequantize))
    if ours is None or theirs is None:
        return None
    return quantize if all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True)) else None


def pair_behind(view: GraphView, quantize: gs.Node) -> QuantizePair | None:
    """The pair that begins with this QuantizeLinear, if nothing else reads its codes."""
    codes = quantize.outputs[0].name if quantize.op == "QuantizeLinear" else ""
    readers = view.consumers(codes)
    if view.uses(codes) != 1 or not readers or not view.holds(readers[0]):
        return None
    if quantizer_of(view, readers[0]) is not quantize:
        return None
    return QuantizePair((view.index(quantize), view.index(readers[0])), readers[0].outputs[0].name)


def _parameters(view: GraphView, node: gs.Node) -> tuple[Array, Array] | None:
    """Scale and zero point, if they are constants."""
    scale = view.constant(node.inputs[1].name)
    zero_point = view.constant(node.inputs[2].name) if len(node.inputs) > 2 else np.zeros(1)
    return None if scale is None or zero_point is None else (scale.reshape(-1), zero_point.reshape(-1))
