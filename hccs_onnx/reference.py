"""The numerics of HCCS in NumPy: the definition that every other implementation equals bit for bit.

Integer rows follow arXiv 2604.02292 and, for the ``div`` and ``clb`` reciprocals, the arithmetic of the authors'
package `aie4ml` 0.2.1; ``norm``, masks and float rows are this project's extension. Nothing here checks whether
parameters are legal (see `hccs_onnx.params`); out of their legal range results saturate as int16 hardware does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MASK_CODE = -128
UINT8_SCALE = 2.0**-8
INT16_SCALE = 2.0**-15


def hccs(
    x: Array,
    output: npt.DTypeLike,
    *,
    B: int | Sequence[int] | Array,
    S: int | Sequence[int] | Array,
    Dmax: int | Sequence[int] | Array,
    scale: float | Sequence[float] | Array = 1.0,
    head_axis: int = -3,
    reciprocal: str = "norm",
    masked: bool = False,
    mask_gap: float = 64.0,
) -> Array:
    """Clipped-linear Softmax along the last axis.

    Parameters
    ----------
    x : ndarray of int8 or float32, shape (..., head, ..., n)
        Logits: codes or float.
    output : dtype
        ``uint8`` (scale 2^-8) or ``int16`` (scale 2^-15) for int8 `x`, ``float32`` for float32 `x`.
    B, S, Dmax : int, or sequence of int of length 1 or H
        Offset 1..32767, slope 0..127 and clip distance 1..127 of each head, with B - S*Dmax >= 0.
    scale : float, or sequence of float of length 1 or H
        Size of a gap code in the units of `x`, > 0. Float logits only.
    head_axis : int
        Axis of `x` along which heads lie, any but the last; its size is a multiple of H. Not looked at when H is 1.
    reciprocal : {'norm', 'div', 'clb'}
        How the row sum is inverted. Integer output only.
    masked : bool
        Give probability 0 to the code -128 (int8) or to gaps above `mask_gap` (float32).
    mask_gap : float
        Gap in the units of `x`. Float logits only.

    Returns
    -------
    ndarray of `output`, shape of `x`
        Probabilities. A row in which all is masked, or whose maximum is -inf, is all 0; a float row with NaN or +inf is
        all NaN.

    Raises
    ------
    TypeError
        If there is no such pair of input and output type.
    ValueError
        If the parameters' lengths do not fit each other or the head axis, or `reciprocal` is unknown.

    Examples
    --------
    >>> hccs(np.array([[10, 9, -128]], np.int8), np.uint8, B=300, S=10, Dmax=20, masked=True)
    array([[130, 126,   0]], dtype=uint8)
    """
    x = np.asarray(x)
    kind = f"{x.dtype} to {np.dtype(output)}"
    if kind == "float32 to float32":
        offset, slope, clip, step = _per_row(x, head_axis, B, S, Dmax, scale)
        return _float_rows(x, offset, slope, clip, step.astype(np.float32), masked, np.float32(mask_gap))
    if kind in ("int8 to uint8", "int8 to int16"):
        offset, slope, clip = _per_row(x, head_axis, B, S, Dmax)
        return _integer_rows(x, np.dtype(output), offset, slope, clip, reciprocal, masked)
    raise TypeError(f"HCCS has no {kind} form (needs int8 to uint8 or int16, or float32 to float32)")


def scores(x: Array, B: Array, S: Array, Dmax: Array) -> Array:
    """Scores ``B - S*min(gap, Dmax)`` of unmasked int8 rows, int64, with B, S, Dmax broadcast against `x`.

    Examples
    --------
    >>> scores(np.array([5, 3, -90], np.int8), np.array(100), np.array(4), np.array(20))
    array([100,  92,  20])
    """
    codes = x.astype(np.int64)
    gap = codes.max(axis=-1, keepdims=True, initial=MASK_CODE) - codes
    result: Array = B - S * np.minimum(gap, Dmax)
    return result


def _per_row(x: Array, head_axis: int, *parameters: float | Sequence[float] | Array) -> list[Array]:
    """Each parameter list as an array that broadcasts against `x`: its head's value for every row."""
    arrays = [np.atleast_1d(values) for values in parameters]
    if x.ndim < 1:
        raise ValueError("HCCS needs logits of rank >= 1")
    count = max(array.size for array in arrays)
    for array in arrays:
        if array.ndim != 1 or array.size not in (1, count):
            needs = "(1,)" if count == 1 else f"(1,) or ({count},)"
            raise ValueError(f"HCCS parameters have shapes {[a.shape for a in arrays]}, needs {needs}")
    if count == 1:
        return [array.reshape([1] * x.ndim) for array in arrays]
    axis = head_axis + x.ndim if head_axis < 0 else head_axis
    if not 0 <= axis < x.ndim - 1:
        raise ValueError(f"HCCS head_axis {head_axis} is not an axis before the last of rank {x.ndim}")
    if x.shape[axis] % count:
        raise ValueError(f"HCCS head axis has size {x.shape[axis]}, needs a multiple of {count}")
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    heads = np.arange(x.shape[axis]) % count
    return [array[heads % array.size].reshape(shape) for array in arrays]


def _float_rows(x: Array, B: Array, S: Array, Dmax: Array, scale: Array, masked: bool, mask_gap: np.float32) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        maximum = x.max(axis=-1, keepdims=True, initial=-np.inf)
        dead = maximum == -np.inf
        delta = np.where(dead, np.float32(0), maximum) - x
        codes = np.minimum(np.rint(delta / scale), Dmax.astype(np.float32))
        invalid = ~(maximum < np.inf)  # NaN or +inf somewhere in the row
        score = B.astype(np.int64) - S.astype(np.int64) * np.where(invalid, np.float32(0), codes).astype(np.int64)
        hidden = (dead | (delta > mask_gap)) if masked else dead
        score = np.where(hidden, 0, score)
        total = np.maximum(score.sum(axis=-1, keepdims=True), 1).astype(np.float32)
        y: Array = score.astype(np.float32) * (np.float32(1) / total)
    return np.where(invalid, np.float32(np.nan), y)


def _integer_rows(
    x: Array, output: np.dtype[Any], B: Array, S: Array, Dmax: Array, reciprocal: str, masked: bool
) -> Array:
    score = scores(x, B.astype(np.int64), S.astype(np.int64), Dmax.astype(np.int64))
    if masked:  # the mask code is the lowest, so the maximum is that of the unmasked positions
        score = np.where(x == MASK_CODE, 0, score)
    return probabilities_from_scores(score, output, reciprocal)


def probabilities_from_scores(score: Array, output: np.dtype[Any], reciprocal: str) -> Array:
    """Integer probabilities of rows of scores.

    Parameters
    ----------
    score : ndarray of int64, shape (..., n)
        Scores, 0 where masked.
    output : numpy.dtype
        uint8 (units of 2^-8) or int16 (units of 2^-15).
    reciprocal : {'norm', 'div', 'clb'}
        How the row sum is inverted.

    Examples
    --------
    >>> probabilities_from_scores(np.array([300, 100]), np.dtype(np.uint8), "norm")
    array([192,  64], dtype=uint8)
    """
    total = np.maximum(score.sum(axis=-1, keepdims=True), 1)
    numerator, half, shift = _reciprocal(total, output, reciprocal)
    y = (score * numerator + half) >> shift
    result: Array = np.minimum(y, 255 if output == np.uint8 else 32767).astype(output)
    return result


def _reciprocal(total: Array, output: np.dtype[Any], reciprocal: str) -> tuple[Array, Array, Array]:
    """Integers (rho, half, shift) of ``y = (s*rho + half) >> shift`` for row sums `total` >= 1."""
    exponent = floor_log2(total)
    zero = np.zeros_like(total)
    is_uint8 = output == np.uint8
    if reciprocal == "norm":
        rho = np.minimum(32767, np.left_shift(1, 15 + exponent) // total)
        if is_uint8:
            return rho, np.left_shift(1, exponent + 6), exponent + 7
        return rho, np.left_shift(1, exponent) >> 1, exponent
    if reciprocal not in ("div", "clb"):
        raise ValueError(f"unknown HCCS reciprocal {reciprocal!r}, needs div, clb or norm")
    divisor = total if reciprocal == "div" else np.left_shift(1, exponent)
    if is_uint8:
        return np.minimum(32767, (255 << 15) // divisor), zero, zero + 15
    return 32767 // divisor, zero, zero


def floor_log2(values: Array) -> Array:
    """Exact floor(log2) of positive int64 values.

    Examples
    --------
    >>> floor_log2(np.array([1, 2, 3, 2**40 - 1, 2**40]))
    array([ 0,  1,  1, 39, 40])
    """
    rest = values.astype(np.int64)
    exponent = np.zeros_like(rest)
    for step in (32, 16, 8, 4, 2, 1):
        large = rest >= np.left_shift(np.int64(1), step)
        exponent += np.where(large, step, 0)
        rest = np.where(large, rest >> step, rest)
    return exponent
