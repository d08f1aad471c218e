"""The fit for integer output: head parameters and the quantiser of the logits together, on real integer results.

The shape of the line is known from the float fit (`fit`). What is left is where int8 codes are spent - how many nats a
code is, which logit the top code stands for - and which legal integers B, S, Dmax lose least under the chosen
reciprocal. Both are judged on a sample of whole rows by what the operator would really put out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hccs_onnx.calibration.fit import HeadFit
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.errors import CalibrationError
from hccs_onnx.params import (
    MAX_CLIP_DISTANCE,
    MAX_OFFSET,
    MAX_SLOPE,
    PROBABILITY_UNIT,
    HccsParams,
    HeadParams,
    OutputType,
    Profile,
    Reciprocal,
)
from hccs_onnx.reference import Array, probabilities_from_scores

TOP_CODE, LOWEST_CODE, MASK_CODE = 127, -127, -128
_NOTHING = 0.25  # of a code: what a code of 0 counts as in logarithms, the mean of what rounds to it
_CODE_SHARES = (2.4, 1.8, 1.35, 1.0, 0.85, 0.7, 0.55, 0.42, 0.32)  # of the code size that covers all row maxima
_TOP_SHARES = (1.0, 0.9, 0.75, 0.5)  # how much of what the codes cannot cover is given up at the bottom
_STRETCH = (0.7, 0.85, 1.0, 1.2, 1.45)  # of the float fit's clip range
_LIFT = (0.4, 0.65, 1.0, 1.5, 2.3)  # of the float fit's floor ratio
_SLOPES = np.unique(np.rint(np.geomspace(1, MAX_SLOPE, 28)).astype(int))


@dataclass(frozen=True)
class Numerics:
    """What integer results depend on besides the parameters.

    Parameters
    ----------
    output : {'uint8', 'int16'}
        Output type.
    reciprocal : {'norm', 'div', 'clb'}
        How the row sum is inverted.
    profile : {'extended', 'paper'}
        What is legal.
    masked : bool
        Whether code -128 masks (extended) or is a code like any other (paper).
    longest : int
        Longest row that parameters must be legal for.
    """

    output: OutputType
    reciprocal: Reciprocal
    profile: Profile
    masked: bool
    longest: int


@dataclass(frozen=True)
class QuantizerForm:
    """Which quantisers of the logits are allowed.

    Parameters
    ----------
    per_tensor : bool
        One code size and zero point for all heads, instead of one a head.
    unit : float, optional
        Nats: code sizes are this times a power of two. Default: any size.
    symmetric : bool
        Zero point 0.
    """

    per_tensor: bool = False
    unit: float | None = None
    symmetric: bool = False

    def sizes(self, wanted: float) -> tuple[float, ...]:
        """Allowed code sizes nearest to a wanted one, nats.

        Examples
        --------
        >>> QuantizerForm(unit=0.75).sizes(0.1)
        (0.09375, 0.1875)
        """
        if self.unit is None:
            return (float(np.float32(wanted)),)
        exponent = math.floor(math.log2(wanted / self.unit))
        return math.ldexp(self.unit, exponent), math.ldexp(self.unit, exponent + 1)


def fit_integer_heads(
    sample: RowSample, shapes: list[HeadParams], numerics: Numerics, form: QuantizerForm | None = None
) -> list[HeadFit]:
    """Parameters, code size and zero point of each head that lose least with integer output.

    Parameters
    ----------
    sample : RowSample
        At least one row a head.
    shapes : list of HeadParams
        The float fit of each head: its clip range and floor ratio are where the search starts.
    numerics : Numerics
        What the node will compute.
    form : QuantizerForm, optional
        Which quantisers are allowed; default: any, one a head.

    Returns
    -------
    list of HeadFit
        Legal for rows up to `numerics.longest`; scale in nats a code, with the zero point of the logits.

    Raises
    ------
    CalibrationError
        If no parameters are legal for rows that long.

    Examples
    --------
    >>> sample = RowSample.empty(heads=1)
    >>> sample.add(np.random.default_rng(0).normal(0, 2, (1, 1, 64, 64)), masked=False, self_attention=False)
    >>> numerics = Numerics("uint8", "norm", "extended", masked=False, longest=64)
    >>> fit = fit_integer_heads(sample, [HeadParams(16259, 127, 127, 3.3 / 127)], numerics)[0]
    >>> fit.kl < 0.3 and abs(fit.deficit) < 0.05
    True
    """
    form = form or QuantizerForm()
    heads = [_Head(sample, index, shape, numerics) for index, shape in enumerate(shapes)]
    groups = [heads] if form.per_tensor else [[head] for head in heads]
    return [head.fit(quantizer) for group in groups for quantizer in [_best_quantizer(group, form)] for head in group]


@dataclass(frozen=True)
class _Quantizer:
    """Code of logit x: rint(x/size) + zero_point, within the codes."""

    size: float  # nats
    zero_point: int

    def codes(self, rows: Array) -> Array:
        """Codes as QuantizeLinear makes them; -inf gives the mask code."""
        divided = np.rint(rows.astype(np.float32) / np.float32(self.size)) + self.zero_point
        result: Array = np.clip(divided, MASK_CODE, TOP_CODE).astype(np.int64)
        return result


def _best_quantizer(heads: list[_Head], form: QuantizerForm) -> _Quantizer:
    """The quantiser with which the float fits of these heads lose least in all."""
    return min(_quantizers(heads, form), key=lambda quantizer: sum(head.shape_loss(quantizer) for head in heads))


def _quantizers(heads: list[_Head], form: QuantizerForm) -> Iterator[_Quantizer]:
    """Code sizes around that which covers every row's maximum and clip range, each with several top codes."""
    highest = max(head.highest for head in heads)
    lowest = min(head.lowest - head.clip for head in heads)
    longest_clip = max(head.clip for head in heads)
    if form.symmetric:
        highest = max(highest, -lowest)
        lowest = -highest
    steps = TOP_CODE - LOWEST_CODE
    wanted = [max((highest - lowest) * share / steps, longest_clip / MAX_CLIP_DISTANCE) for share in _CODE_SHARES]
    for size in dict.fromkeys(size for each in wanted for size in form.sizes(each)):
        if form.symmetric:
            yield _Quantizer(size, 0)
            continue
        spare = highest - lowest - size * steps  # nats that no code is left for
        for top_share in _TOP_SHARES if spare > 0 else (1.0,):
            top = highest - max(spare, 0.0) * (1.0 - top_share)
            zero_point = int(np.clip(TOP_CODE - math.ceil(top / size), MASK_CODE, TOP_CODE))
            yield _Quantizer(size, zero_point)


class _Head:
    """One head's rows, and what a quantiser and parameters make of them."""

    def __init__(self, sample: RowSample, head: int, shape: HeadParams, numerics: Numerics) -> None:
        rows = sample.matrix(head)
        self._numerics = numerics
        self._present = ~np.isnan(rows)
        self._rows = np.where(self._present, rows, -np.inf)
        self._live = np.isfinite(self._rows)
        weight = np.exp(self._rows - self._rows.max(axis=-1, keepdims=True))
        self._p = weight / weight.sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._entropy = np.where(self._live & (self._p > 0), self._p * np.log(self._p), 0.0).sum(axis=-1)
        self.clip, self._ratio = shape.clip_range, shape.floor_ratio
        self.highest, self.lowest = float(sample.highest[head]), float(sample.lowest[head])

    def fit(self, quantizer: _Quantizer) -> HeadFit:
        """The best line for a quantiser, then its best integers."""
        lines = [(self.clip * stretch, min(0.9, self._ratio * lift)) for stretch in _STRETCH for lift in _LIFT]
        clip, ratio = min(lines, key=lambda line: self._line_loss(quantizer, *line))
        legal = [(self._loss(quantizer, head), head) for head in self._legal_heads(quantizer, clip, ratio)]
        if not legal:
            n, output = self._numerics.longest, self._numerics.output
            problem = f"no parameters are legal for {output} {self._numerics.reciprocal} with rows of {n}"
            remedy = "Use reciprocal norm and profile extended, or shorter rows"
            raise CalibrationError("calibration", problem, remedy=remedy)
        _, head = min(legal, key=lambda item: item[0])
        probabilities = self._probabilities(quantizer, head)
        deficit = float(np.mean(1.0 - probabilities.sum(axis=-1)))
        return HeadFit(head, self._kl(probabilities), deficit, quantizer.zero_point)

    def shape_loss(self, quantizer: _Quantizer) -> float:
        """Loss of the float fit's line with a quantiser's codes."""
        return self._line_loss(quantizer, self.clip, self._ratio)

    def _legal_heads(self, quantizer: _Quantizer, clip: float, ratio: float) -> Iterator[HeadParams]:
        numerics = self._numerics
        nearest = max(1.0, clip / quantizer.size)
        for distance in {math.floor(nearest), math.ceil(nearest)}:
            clip_distance = min(MAX_CLIP_DISTANCE, distance)
            for slope in _SLOPES:
                drop = int(slope) * clip_distance
                for offset in {round(drop / (1.0 - ratio)), drop + self._least_floor()}:
                    if not drop <= offset <= MAX_OFFSET:
                        continue
                    head = HeadParams(offset, int(slope), clip_distance, quantizer.size)
                    params = HccsParams((head,), reciprocal=numerics.reciprocal, masked=numerics.masked)
                    if not params.violations(numerics.output, profile=numerics.profile, n=numerics.longest):
                        yield head

    def _least_floor(self) -> int:
        """A floor that keeps the row sum legal: matters where the profile bounds it from below."""
        return max(1, -(-256 // self._numerics.longest))

    def _line_loss(self, quantizer: _Quantizer, clip: float, ratio: float) -> float:
        """Loss of a line with real codes but scores that are not rounded."""
        codes = quantizer.codes(self._rows)
        gap = codes.max(axis=-1, keepdims=True) - codes
        distance = min(MAX_CLIP_DISTANCE, max(1, round(clip / quantizer.size)))
        score = 1.0 - (1.0 - ratio) * np.minimum(gap, distance) / distance
        score = np.where(self._counted(codes), score, 0.0)
        total = score.sum(axis=-1, keepdims=True)
        return self._divergence(score / np.where(total > 0, total, 1.0))

    def _loss(self, quantizer: _Quantizer, head: HeadParams) -> float:
        """Loss of the real integer output."""
        return self._divergence(self._probabilities(quantizer, head))

    def _counted(self, codes: Array) -> Array:
        """Positions that get a score."""
        hidden = codes == MASK_CODE if self._numerics.masked else np.zeros((), bool)
        result: Array = self._present & ~hidden
        return result

    def _probabilities(self, quantizer: _Quantizer, head: HeadParams) -> Array:
        codes = quantizer.codes(self._rows)
        gap = codes.max(axis=-1, keepdims=True) - codes
        score = np.where(self._counted(codes), head.B - head.S * np.minimum(gap, head.Dmax), 0)
        dtype = np.dtype(self._numerics.output)
        y = probabilities_from_scores(score, dtype, self._numerics.reciprocal)
        return y.astype(np.float64) * PROBABILITY_UNIT[self._numerics.output]

    def _divergence(self, q: Array) -> float:
        """Mean of sum p*log(p/q) - p + q: KL for rows that sum to 1, and what is lost or gained in mass beside it."""
        return float(np.mean(self._entropy - (self._p * self._logs(q)).sum(axis=-1) - 1.0 + q.sum(axis=-1)))

    def _kl(self, q: Array) -> float:
        """Mean KL(softmax || q), rows of q brought to the sum 1, nats; infinite where a row is all zeros."""
        total = q.sum(axis=-1)
        if not total.all():
            return math.inf
        value = np.mean(self._entropy - (self._p * self._logs(q)).sum(axis=-1) + np.log(total))
        return max(0.0, float(value))

    def _logs(self, q: Array) -> Array:
        """log(q) of live keys, 0 elsewhere."""
        least = _NOTHING * PROBABILITY_UNIT[self._numerics.output]
        result: Array = np.where(self._live, np.log(np.maximum(q, least)), 0.0)
        return result
