"""QuantizeLinear and DequantizeLinear one after the other, as quantised models in QDQ form hold them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.quantisation import quantizer_of
from hccs_onnx.graph.view import GraphView


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


def pair_behind(view: GraphView, quantize: gs.Node) -> QuantizePair | None:
    """The pair that begins with this QuantizeLinear, if nothing else reads its codes."""
    codes = quantize.outputs[0].name if quantize.op == "QuantizeLinear" else ""
    readers = view.consumers(codes)
    if view.uses(codes) != 1 or not readers or not view.holds(readers[0]):
        return None
    if quantizer_of(view, readers[0]) is not quantize:
        return None
    return QuantizePair((view.index(quantize), view.index(readers[0])), readers[0].outputs[0].name)
