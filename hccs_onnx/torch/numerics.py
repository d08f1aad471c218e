"""The numbers of HCCS on torch tensors, equal to `hccs_onnx.reference` bit for bit, and the gradients behind them.

Written for training on CPUs as well: only operations that torch vectorises, in place, on blocks that stay in cache.
Scores are whole numbers below 2^15, exact in float32, and so is a sum of 512 of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hccs_onnx.params import DEFAULT_MASK_GAP, PROBABILITY_UNIT, OutputType, Reciprocal

_EXACT_LENGTH = 512  # 512 * 32767 < 2^24
_LOWEST = torch.finfo(torch.float32).min
_keep_above = torch.ops.aten.threshold_backward.grad_input  # (values, x, t, grad_input=values): 0 where x <= t


@dataclass(frozen=True)
class Profile:
    """What is computed, apart from the heads' parameters; names as in `hccs_onnx.HccsParams`."""

    output: OutputType = "float"
    reciprocal: Reciprocal = "norm"
    masked: bool = True
    mask_gap: float = DEFAULT_MASK_GAP


@dataclass(frozen=True)
class Rows:
    """Parameters of every row: float32 tensors that broadcast against the logits, shape (..., head, ..., 1).

    `scale` is the size of a code: of a gap code (float output), or of a code of the logits' quantiser, whose
    `zero_point` is read for integer output only.
    """

    B: Tensor
    S: Tensor
    Dmax: Tensor
    scale: Tensor
    zero_point: Tensor

    @property
    def floor(self) -> Tensor:
        """Score floor F."""
        return self.B - self.S * self.Dmax


def float_forward(x: Tensor, rows: Rows, profile: Profile, y: Tensor) -> Tensor:
    """Probabilities of float logits.

    Parameters
    ----------
    x : Tensor of float32, shape (..., n)
        Logits.
    rows, profile
        What to compute.
    y : Tensor of float32, shape (..., n)
        Where the probabilities go; may be `x`.

    Returns
    -------
    Tensor of float32, shape (..., 1)
        Factor from scores to probabilities, 1/Z; 0 for a row of -inf.
    """
    maximum = x.amax(-1, keepdim=True)
    masked = profile.masked and math.isfinite(profile.mask_gap)
    fall = torch.sub(x, maximum.clamp(min=_LOWEST), out=None if masked else y)  # of a row of -inf: -inf, not NaN
    torch.div(fall, -rows.scale, out=y)
    _line(y.round_(), rows)
    if masked:
        _keep_above(y, fall, -_next_float(profile.mask_gap), grad_input=y)
    rho = _row_sum(y).to(torch.float32).clamp_(min=1).reciprocal_()
    rho.mul_(maximum > -math.inf)
    y.mul_(rho)
    return rho


def integer_forward(x: Tensor, rows: Rows, profile: Profile, y: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of logits that are quantised to int8 first, by integer arithmetic.

    Parameters
    ----------
    x : Tensor of float32, shape (..., n)
        Logits.
    rows, profile
        What to compute.
    y, shares : Tensor of float32, shape (..., n)
        Where the probabilities go, codes times 2^-8 or 2^-15, and s/Z, which is what gradients are made of.

    Returns
    -------
    tuple of Tensor of float32, shape (..., 1)
        1/Z, and the factor from scores to probabilities before rounding.
    """
    codes = (x / rows.scale).round_().add_(rows.zero_point).clamp_(-128, 127)
    torch.sub(codes.amax(-1, keepdim=True), codes, out=shares)
    _line(shares, rows)
    if profile.masked:
        _keep_above(shares, codes, -127.5, grad_input=shares)
    total = _row_sum(shares).to(torch.float64).nan_to_num_(1.0).clamp_(min=1)
    rho, half, shift = _reciprocal(total, profile)
    unit = PROBABILITY_UNIT[profile.output]
    wide = shares.to(torch.float64).mul_(rho).add_(half)  # whole numbers below 2^53
    wide.mul_(torch.ldexp(torch.ones_like(total), -shift)).floor_()
    y.copy_(wide.clamp_(max=255 if profile.output == "uint8" else 32767).mul_(unit))
    inverse = total.reciprocal()
    shares.mul_(inverse)
    return inverse.to(torch.float32), torch.ldexp(rho * unit, -shift).to(torch.float32)


def backward(grad: Tensor, shares: Tensor, inverse: Tensor, factor: Tensor, rows: Rows, out: Tensor) -> Tensor:
    """Gradient of the logits, as if nothing were rounded.

    With scores s = B - S*gap/scale inside the clip range, shares p = s/Z and probabilities y = factor*s, where factor*Z
    is held constant (it is what the reciprocal's rounding loses or adds): dL/ds = factor*(g - sum g*p), and ds/dx =
    S/scale inside, 0 at the floor and where masked. The row's maximum, from which gaps are taken, gets minus the sum of
    the row; keys whose gap rounds to 0 share that.

    Parameters
    ----------
    grad : Tensor of float32, shape (..., n)
        g, gradient of the probabilities.
    shares : Tensor of float32, shape (..., n)
        s/Z.
    inverse, factor : Tensor of float32, shape (..., 1)
        1/Z, and the factor from scores to probabilities.
    rows : Rows
        Parameters.
    out : Tensor of float32, shape (..., n)
        Where the gradient goes; none of the above.

    Returns
    -------
    Tensor of float32, shape (..., 1)
        Sum of g*p over the row.
    """
    work = grad * shares
    mean = work.sum(-1, keepdim=True)
    torch.sub(grad, mean, out=out)
    torch.sub(shares, inverse * (rows.floor + rows.S / 2), out=work)  # half a step above the floor
    _keep_above(out, work, 0.0, grad_input=out)
    out.mul_(factor * rows.S / rows.scale)
    torch.sub(shares, inverse * (rows.B - rows.S / 2), out=work).clamp_(min=0)  # only the row's maxima are above 0
    weight = work.sum(-1, keepdim=True)
    work.mul_(out.sum(-1, keepdim=True) / weight.masked_fill_(weight == 0, 1))
    out.sub_(work)
    return mean


def line_gradients(
    grad: Tensor, mean: Tensor, shares: Tensor, inverse: Tensor, factor: Tensor, rows: Rows
) -> tuple[Tensor, Tensor]:
    """Gradients of the logarithm of the clip range and of the floor ratio, a row each.

    With u = min(gap/c, 1) and r = F/B, s = B*(1 - (1-r)*u): ds/d(log c) = B - s inside the clip range, and ds/dr = B*u.
    Arguments as for `backward`, and what it returns; scores of keys that are not masked have to be above 0.

    Returns
    -------
    tuple of Tensor of float32, shape (..., 1)
    """
    centred = (grad - mean) * factor
    _keep_above(centred, shares, 0.0, grad_input=centred)  # not the masked ones
    fallen = torch.sub(rows.B, shares / inverse.clamp(min=torch.finfo(torch.float32).tiny))  # B - s
    ratio = (centred * fallen).sum(-1, keepdim=True) * (rows.B / (rows.B - rows.floor).clamp(min=1))
    inside = torch.sub(shares, inverse * (rows.floor + rows.S / 2))
    _keep_above(centred, inside, 0.0, grad_input=centred)
    return (centred * fallen).sum(-1, keepdim=True), ratio


def _line(gaps: Tensor, rows: Rows) -> None:
    """Gap codes to scores, in place."""
    torch.minimum(gaps, rows.Dmax, out=gaps)
    gaps.mul_(-rows.S).add_(rows.B)


def _row_sum(scores: Tensor) -> Tensor:
    """Exact sums of rows, shape (..., 1): float32 where that holds them, float64 where it may not."""
    if scores.shape[-1] <= _EXACT_LENGTH:
        return scores.sum(-1, keepdim=True)
    parts = [part.sum(-1) for part in scores.split(_EXACT_LENGTH, -1)]
    return torch.stack(parts, -1).sum(-1, keepdim=True, dtype=torch.float64)


def _reciprocal(total: Tensor, profile: Profile) -> tuple[Tensor, Tensor, Tensor]:
    """(rho, half, shift) of ``y = (s*rho + half) >> shift``, the first two as float64 whole numbers."""
    exponent = torch.frexp(total).exponent - 1  # floor(log2 Z)
    power = torch.ldexp(torch.ones_like(total), exponent)
    zero = torch.zeros_like(total)
    is_uint8 = profile.output == "uint8"
    if profile.reciprocal == "norm":
        rho = _quotient(power * 32768, total).clamp_(max=32767)
        return (rho, power * 64, exponent + 7) if is_uint8 else (rho, (power / 2).floor_(), exponent)
    divisor = total if profile.reciprocal == "div" else power
    if is_uint8:
        return _quotient(zero + (255 << 15), divisor).clamp_(max=32767), zero, torch.full_like(exponent, 15)
    return _quotient(zero + 32767, divisor), zero, torch.zeros_like(exponent)


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Floor of the quotient of whole numbers below 2^53."""
    return torch.div(numerator.long(), denominator.long(), rounding_mode="floor").to(torch.float64)


def _next_float(value: float) -> float:
    """The float32 after a float32."""
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))
