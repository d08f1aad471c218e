"""An attention block in integers: what aie4ml computes, in powers of two with zero point 0.

B, S and Dmax are those of the rewritten model, so the logit codes that they were fitted to have to be kept as well. The
scale of the codes goes into the weights of the queries. Their zero point goes into columns that queries and keys get
beside their own: constants, whose products add up to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hccs_onnx.aie.aie4ml_block import AttentionBlock, Projection
from hccs_onnx.errors import CodegenError
from hccs_onnx.params import PROBABILITY_UNIT
from hccs_onnx.reference import Array

LANES = 16
"""Depths are filled up to multiples of this; aie4ml's matrix kernels compute them anyway."""

_FINER = 2  # powers of two that are tried below the one that saturates nothing
_LARGEST_CONSTANT = 64  # of the powers of two that are int8 codes
_CONSTANT_COLUMNS = 4  # at least, so that logit codes can be rounded from up to 2**8 times finer products


@dataclass(frozen=True)
class Layer:
    """A projection in integers: ``x @ weight + bias`` counts in ``2**-(fraction of x + weight_fraction)``.

    Parameters
    ----------
    weight : ndarray of int8, shape (in, out)
        Weights, in units of ``2**-weight_fraction``.
    weight_fraction : int
        Of the weights.
    bias : ndarray of int32, shape (out,)
        Bias.
    fraction : int
        Of the results, rounded to int8.
    """

    weight: Array
    weight_fraction: int
    bias: Array
    fraction: int


@dataclass(frozen=True)
class HeadLayers:
    """Layers of one head; queries times keys are logit codes, times ``2**(query.fraction + key.fraction)``."""

    query: Layer
    key: Layer
    value: Layer


@dataclass(frozen=True)
class QuantizedBlock:
    """An attention block in integers.

    Parameters
    ----------
    x_fraction, context_fraction : int
        Of the int8 codes that the block reads, and of those of every head's context.
    heads : tuple of HeadLayers
        By head.
    output : Layer
        The projection of the heads side by side.
    """

    x_fraction: int
    context_fraction: int
    heads: tuple[HeadLayers, ...]
    output: Layer


def quantize(block: AttentionBlock) -> QuantizedBlock:
    """Choose powers of two from the block's data and round its weights.

    Parameters
    ----------
    block : AttentionBlock
        Weights and data.

    Raises
    ------
    CodegenError
        If products of queries and keys cannot be rounded to logit codes by a shift.

    Examples
    --------
    >>> quantize(block).heads[0].query.weight.dtype  # doctest: +SKIP
    dtype('int8')
    """
    cut, x = block.cut, block.x.astype(np.float64)
    scales, zero_points = _per_head(cut.quantizer.scale, block.heads), _per_head(cut.quantizer.zero_point, block.heads)
    x_fraction = best_fraction(x)
    depth = block.query.weight.shape[-1]
    keys_depth = filled(depth + _CONSTANT_COLUMNS * any(zero_points))
    heads = []
    for index, (scale, zero_point) in enumerate(zip(scales, zero_points, strict=True)):
        query = _head(block.query, index, cut.factor / scale)
        key, value = _head(block.key, index), _head(block.value, index)
        key_layer = _layer(key, x, x_fraction, keys_depth)
        spare = keys_depth - depth
        # A shift turns products into codes: not negative, and no more than the spare columns can make up for.
        lowest = -key_layer.fraction
        highest = lowest + int(math.log2(_LARGEST_CONSTANT * spare)) if zero_point else None
        query_layer = _layer(query, x, x_fraction, keys_depth, lowest, highest)
        shift = query_layer.fraction + key_layer.fraction
        if shift < 0:
            problem = f"queries and keys of head {index} are too large to be rounded to codes"
            raise CodegenError(f"node '{cut.node}'", problem, remedy="Calibrate again with data of this kind")
        if zero_point:
            constant = min(1 << shift, _LARGEST_CONSTANT)
            columns = slice(depth, depth + (1 << shift) // constant)
            _set_constant(query_layer, columns, constant, x_fraction)
            _set_constant(key_layer, columns, int(zero_point), x_fraction)
        heads.append(HeadLayers(query_layer, key_layer, _layer(value, x, x_fraction, filled(depth_of(value)))))
    context = (block.probabilities * PROBABILITY_UNIT[cut.output]) @ block.value(x)
    context_fraction = best_fraction(context)
    joined = context.swapaxes(1, 2).reshape(*x.shape[:2], -1)
    output = Projection(_between(block.output.weight, depth_of(block.value), block.heads), block.output.bias)
    return QuantizedBlock(
        x_fraction,
        context_fraction,
        tuple(heads),
        _rounded(output, context_fraction, best_fraction(block.output(joined)), output.weight.shape[-1]),
    )


def best_fraction(values: Array) -> int:
    """The fraction f with which int8 codes of 2**-f lose least of these values, in mean squares.

    Examples
    --------
    >>> best_fraction(np.array([0.5, -0.9])), best_fraction(np.array([100.0, 3.0])), best_fraction(np.zeros(2))
    (7, 0, 7)
    """
    largest = float(np.abs(values).max())
    if largest == 0:
        return 7
    widest = math.floor(math.log2(127 / largest))
    return min(range(widest, widest + _FINER + 1), key=lambda fraction: _loss(values, fraction))


def _loss(values: Array, fraction: int) -> float:
    codes = np.clip(np.rint(np.ldexp(values, fraction)), -128, 127)
    return float(np.square(np.ldexp(codes, -fraction) - values).mean())


def depth_of(projection: Projection) -> int:
    """Width of its results."""
    return int(projection.weight.shape[-1])


def _layer(
    projection: Projection,
    x: Array,
    x_fraction: int,
    width: int,
    lowest: int | None = None,
    highest: int | None = None,
) -> Layer:
    """A projection in integers, its results filled up with zeros, their fraction within bounds."""
    fraction = best_fraction(projection(x))
    fraction = fraction if highest is None else min(fraction, highest)
    return _rounded(projection, x_fraction, fraction if lowest is None else max(fraction, lowest), width)


def _rounded(projection: Projection, x_fraction: int, fraction: int, width: int) -> Layer:
    """A projection of one head in integers. No result is finer than the products that it is summed from."""
    weight, bias = projection.weight[0], projection.bias[0]
    weight_fraction = best_fraction(weight)
    weight_codes = np.clip(np.rint(np.ldexp(weight, weight_fraction)), -128, 127).astype(np.int8)
    unit = x_fraction + weight_fraction
    bias_codes = np.clip(np.rint(np.ldexp(bias, unit)), -(2**31), 2**31 - 1).astype(np.int32)
    missing = width - weight.shape[-1]
    return Layer(
        np.pad(weight_codes, ((0, 0), (0, missing))), weight_fraction, np.pad(bias_codes, (0, missing)),
        min(fraction, unit),
    )  # fmt: skip


def _set_constant(layer: Layer, columns: slice, code: int, x_fraction: int) -> None:
    """Let columns without weights put out `code`."""
    layer.bias[columns] = code << (x_fraction + layer.weight_fraction - layer.fraction)


def _head(projection: Projection, index: int, factor: float = 1.0) -> Projection:
    """One head of a projection, multiplied."""
    one = slice(index, index + 1)
    return Projection(projection.weight[one] * factor, projection.bias[one] * factor)


def _between(weight: Array, depth: int, heads: int) -> Array:
    """Weights of the output projection, with zeros for what each head's context is filled up with."""
    rows = weight[0].reshape(heads, depth, -1)
    wide = np.pad(rows, ((0, 0), (0, filled(depth) - depth), (0, 0)))
    return wide.reshape(1, -1, weight.shape[-1])


def filled(depth: int) -> int:
    """The next multiple of `LANES`."""
    return -(-depth // LANES) * LANES


def _per_head(values: tuple[float, ...] | tuple[int, ...], heads: int) -> tuple[float, ...]:
    return tuple(values) * (heads if len(values) == 1 else 1)
