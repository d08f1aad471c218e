"""What a pair of QuantizeLinear and DequantizeLinear makes of the tensor that goes through it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from hccs_onnx.graph.view import GraphView
from hccs_onnx.reference import Array


@dataclass(frozen=True)
class Codes:
    """Codes of a pair with one scale.

    Parameters
    ----------
    scale : float
        Size of a code, > 0.
    zero_point : int
        Code of 0.
    dtype : str
        An integer type as NumPy spells it.
    data : str
        The tensor that is quantised.

    Examples
    --------
    >>> codes = Codes(scale=0.5, zero_point=-128, dtype="int8", data="x")
    >>> codes.lowest, codes.highest, codes.value(3.2)
    (0.0, 127.5, 3.0)
    """

    scale: float
    zero_point: int
    dtype: str
    data: str

    @property
    def lowest(self) -> float:
        """Smallest value that the pair makes."""
        return (int(np.iinfo(self.dtype).min) - self.zero_point) * self.scale

    @property
    def highest(self) -> float:
        """Largest value that the pair makes."""
        return (int(np.iinfo(self.dtype).max) - self.zero_point) * self.scale

    def value(self, value: float) -> float:
        """What the pair makes of a number."""
        rounded = float(np.rint(value / self.scale)) * self.scale
        return min(max(rounded, self.lowest), self.highest)


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


def codes_of(view: GraphView, dequantize: gs.Node) -> Codes | None:
    """Codes of the pair that ends with a DequantizeLinear; None without a pair, or where it has more scales than one.

    Examples
    --------
    >>> codes_of(view, view.producer("logits"))  # doctest: +SKIP
    Codes(scale=0.148, zero_point=131, dtype='uint8', data='logits_before')
    """
    quantize = quantizer_of(view, dequantize)
    parameters = None if quantize is None else _parameters(view, quantize)
    if quantize is None or parameters is None or any(each.size != 1 for each in parameters):
        return None
    scale, zero_point = float(parameters[0][0]), parameters[1]
    given = zero_point.dtype.name if len(quantize.inputs) > 2 else "uint8"
    dtype = view.dtype(quantize.outputs[0].name) or given
    if not (math.isfinite(scale) and scale > 0 and dtype in ("int8", "uint8", "int16", "uint16")):
        return None
    return Codes(scale, int(zero_point[0]), dtype, str(quantize.inputs[0].name))


def _parameters(view: GraphView, node: gs.Node) -> tuple[Array, Array] | None:
    """Scale and zero point, if they are constants."""
    scale = view.constant(node.inputs[1].name)
    zero_point = view.constant(node.inputs[2].name) if len(node.inputs) > 2 else np.zeros(1)
    return None if scale is None or zero_point is None else (scale.reshape(-1), zero_point.reshape(-1))
