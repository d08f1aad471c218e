"""Per-head parameters of HCCS, the profiles, and which values are legal - with the reasons why not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

Reciprocal = Literal["div", "clb", "norm"]
OutputType = Literal["float", "uint8", "int16"]
Profile = Literal["extended", "paper"]

RECIPROCALS: tuple[Reciprocal, ...] = get_args(Reciprocal)
OUTPUT_TYPES: tuple[OutputType, ...] = get_args(OutputType)
PROFILES: tuple[Profile, ...] = get_args(Profile)

PROBABILITY_UNIT: dict[OutputType, float] = {"float": 1.0, "uint8": 2.0**-8, "int16": 2.0**-15}
"""Probability that an output of 1 stands for."""

MAX_OFFSET = 32767  # int16 scores
MAX_SLOPE = 127  # int8 slope
MAX_CLIP_DISTANCE = 127  # widest gap between two unmasked int8 codes that is still an int8
DEFAULT_MASK_GAP = 64.0  # nats; exp(-64) = 1.6e-28


@dataclass(frozen=True)
class HeadParams:
    """The three calibrated integers of one attention head, and the size of a gap code.

    Parameters
    ----------
    B : int
        Offset: the score of the row maximum. 1..32767.
    S : int
        Slope: score lost per gap code. 0..127.
    Dmax : int
        Clip distance in gap codes. 1..127.
    scale : float
        Size of one gap code, in the units of the logits (nats where the logits are what Softmax saw). > 0. Read for
        float logits only: integer logits are codes already.

    Notes
    -----
    Source: arXiv 2604.02292, section III (B, S, Dmax); `scale` is this project's, for float logits.

    Examples
    --------
    >>> head = HeadParams(B=16259, S=127, Dmax=127, scale=3.3 / 127)
    >>> head.floor, round(head.clip_range, 3)
    (130, 3.3)
    """

    B: int
    S: int
    Dmax: int
    scale: float = 1.0

    @property
    def floor(self) -> int:
        """Score floor F = B - S * Dmax, the score of every unmasked gap beyond the clip distance."""
        return self.B - self.S * self.Dmax

    @property
    def clip_range(self) -> float:
        """Gap beyond which scores stay at the floor, in the units of `scale`."""
        return self.Dmax * self.scale

    @property
    def floor_ratio(self) -> float:
        """Score floor as a share of the offset, F / B, 0..1."""
        return self.floor / self.B


# Clip range 3.3 nats and F/B = 0.008: chosen once on real encoders, so that a rewrite works without any data.
DATA_FREE = HeadParams(B=16259, S=127, Dmax=127, scale=3.3 / 127)


@dataclass(frozen=True)
class HccsParams:
    """All attributes of one ``hccs::HCCS`` node.

    Parameters
    ----------
    heads : tuple of HeadParams
        One entry for all heads, or one a head.
    head_axis : int
        Axis of the logits along which heads lie; never the last. Head of index i is ``i % len(heads)``. Not looked at
        when there is one entry.
    reciprocal : {'norm', 'div', 'clb'}
        How the row sum is inverted. Not used for float output.
    masked : bool
        True: code -128 (int8 logits) or a gap above `mask_gap` (float logits) gets probability 0.
    mask_gap : float
        Gap above which a float logit counts as masked, in the units of the logits. > 0.

    Examples
    --------
    >>> HccsParams(heads=(DATA_FREE,), masked=True).violations("float")
    ()
    """

    heads: tuple[HeadParams, ...]
    head_axis: int = -3
    reciprocal: Reciprocal = "norm"
    masked: bool = False
    mask_gap: float = DEFAULT_MASK_GAP

    def in_units_of(self, factor: float) -> HccsParams:
        """The same operator for logits divided by `factor`: ``HCCS(x) == HCCS.in_units_of(f)(x / f)``.

        Parameters
        ----------
        factor : float
            What the logits were multiplied with, > 0.

        Examples
        --------
        >>> HccsParams(heads=(HeadParams(20000, 100, 100, 0.5),)).in_units_of(0.125).heads[0].scale
        4.0
        """
        heads = tuple(replace(head, scale=head.scale / factor) for head in self.heads)
        return replace(self, heads=heads, mask_gap=self.mask_gap / factor)

    def violations(
        self, output: OutputType, *, profile: Profile = "extended", n: int | None = None, heads: int | None = None
    ) -> tuple[str, ...]:
        """Why these parameters must not be used, one reason a string; empty when they are legal.

        Parameters
        ----------
        output : {'float', 'uint8', 'int16'}
            Output type of the node.
        profile : {'extended', 'paper'}
            ``paper`` is what the published kernels compute exactly, ``extended`` what this project's do.
        n : int, optional
            Row length. Bounds that depend on it are left out when it is not known, or 0.
        heads : int, optional
            Size of the head axis, when known.

        Returns
        -------
        tuple of str
            Reasons, each with the value found and the bound.

        Examples
        --------
        >>> HccsParams(heads=(HeadParams(300, 127, 127),)).violations("uint8")
        ('head 0: floor B - S*Dmax is negative (-15829, needs >= 0)',)
        """
        reasons = list(_always(self, heads))
        n = n or None  # a row of length 0 has no sum to be bounded
        for index, head in enumerate(self.heads):
            bounds = _paper(head, n) if profile == "paper" else _extended(head, n, output, self.reciprocal, self.masked)
            reasons += [f"head {index}: {reason}" for reason in (*_ranges(head), *bounds)]
        if profile == "paper":
            reasons += _paper_attributes(self, output)
        return tuple(reasons)


@dataclass(frozen=True)
class LogitQuantizer:
    """How float logits become int8 codes: ``rint(x / scale) + zero_point``, saturated; one entry, or one a head.

    Parameters
    ----------
    scale : tuple of float
        Size of a code, in the units of the logits. > 0.
    zero_point : tuple of int
        Code of logit 0, -128..127. Gaps do not depend on it, so it may differ from head to head.

    Examples
    --------
    >>> LogitQuantizer((0.05,), (-20,)).in_units_of(0.125).scale
    (0.4,)
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]

    def in_units_of(self, factor: float) -> LogitQuantizer:
        """The same quantiser for logits divided by `factor`."""
        return replace(self, scale=tuple(scale / factor for scale in self.scale))


def _bound(name: str, value: float, low: float | None = None, high: float | None = None) -> tuple[str, ...]:
    if low is not None and not value >= low:
        return (f"{name} ({value}, needs >= {low})",)
    if high is not None and not value <= high:
        return (f"{name} ({value}, needs <= {high})",)
    return ()


def _ranges(head: HeadParams) -> tuple[str, ...]:
    reasons = (
        *_bound("offset B out of range", head.B, 1, MAX_OFFSET),
        *_bound("slope S out of range", head.S, 0, MAX_SLOPE),
        *_bound("clip distance Dmax out of range", head.Dmax, 1, MAX_CLIP_DISTANCE),
    )
    if not reasons:
        reasons = _bound("floor B - S*Dmax is negative", head.floor, 0)
    with np.errstate(over="ignore"):
        scale = float(np.float32(head.scale))  # what nodes and kernels hold
    if not (math.isfinite(scale) and scale > 0):
        reasons += (f"scale is not positive and finite ({head.scale}, needs > 0)",)
    return reasons


def _always(params: HccsParams, heads: int | None) -> tuple[str, ...]:
    reasons: tuple[str, ...] = ()
    count = len(params.heads)
    if count == 0:
        reasons += ("no head parameters (0 entries, needs 1 or one a head)",)
    elif heads is not None and count > 1 and heads % count:
        reasons += (f"head axis does not divide into the heads (size {heads}, needs a multiple of {count})",)
    if count > 1 and params.head_axis == -1:
        reasons += ("head_axis is the last axis (-1, needs any other)",)
    if params.reciprocal not in RECIPROCALS:
        reasons += (f"unknown reciprocal ({params.reciprocal!r}, needs one of {', '.join(RECIPROCALS)})",)
    if not params.mask_gap > 0:
        reasons += (f"mask_gap is not positive ({params.mask_gap}, needs > 0)",)
    return reasons


def _paper(head: HeadParams, n: int | None) -> tuple[str, ...]:
    if n is None:
        return ()
    return (
        *_bound(f"row sum overflows int16: n*B for n = {n}", n * head.B, high=32767),
        *_bound(f"row sum too small: n*F for n = {n}", n * head.floor, low=256),
    )


def _paper_attributes(params: HccsParams, output: OutputType) -> list[str]:
    reasons = []
    if output == "float":
        reasons.append("profile 'paper' has no float output (float, needs uint8 or int16)")
    if params.reciprocal == "norm":
        reasons.append("profile 'paper' has no reciprocal 'norm' (norm, needs div or clb)")
    if params.masked:
        reasons.append("profile 'paper' has no mask (masked = 1, needs 0)")
    return reasons


def _extended(
    head: HeadParams, n: int | None, output: OutputType, reciprocal: Reciprocal, masked: bool
) -> tuple[str, ...]:
    if output == "float" or reciprocal == "norm":
        return ()
    if output == "int16":
        return () if n is None else _bound(f"row sum overflows int16: n*B for n = {n}", n * head.B, high=32767)
    if masked:  # all but one position may be masked
        return _bound("row sum can be too small for uint8: B when masked", head.B, low=256)
    if n is None:
        return ()
    return _bound(
        f"row sum can be too small for uint8: B + (n-1)*F for n = {n}", head.B + (n - 1) * head.floor, low=256
    )
