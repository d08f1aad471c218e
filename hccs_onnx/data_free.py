"""Integer parameters without data, for logits that a QDQ model has quantised itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hccs_onnx.errors import CalibrationError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.own_quantizer import OwnQuantizer
from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.params import (
    DATA_FREE,
    MAX_CLIP_DISTANCE,
    MAX_OFFSET,
    MAX_SLOPE,
    HccsParams,
    HeadParams,
    LogitQuantizer,
    OutputType,
    Profile,
    Reciprocal,
)

LEAST_DISTANCE = 4
"""Codes within 3.3 nats: down to 4 the MiniLM and digits models lose nothing that can be measured, below they do."""

_HIGHEST_CODE, _CODES = 127, 256


@dataclass(frozen=True)
class DataFreeIntegers:
    """Parameters of a Softmax for the codes that its logits have in the model already.

    Parameters
    ----------
    item : AttentionSoftmax
        The Softmax, with the scales that the replacement may absorb.
    params : HccsParams
        For logits in nats.
    quantizer : LogitQuantizer
        The model's own.
    """

    item: AttentionSoftmax
    params: HccsParams
    quantizer: LogitQuantizer


def integer_parameters(
    item: AttentionSoftmax, output: OutputType, reciprocal: Reciprocal, profile: Profile
) -> DataFreeIntegers:
    """What takes the place of a Softmax whose logits a QDQ model has quantised.

    Parameters
    ----------
    item : AttentionSoftmax
        To be rewritten.
    output : {'uint8', 'int16'}
        Output type.
    reciprocal : {'norm', 'div', 'clb'}
        How the row sum is inverted.
    profile : {'extended', 'paper'}
        What is legal.

    Raises
    ------
    CalibrationError
        If the model's quantiser does not do, or no parameters are legal for all rows that may come.

    Notes
    -----
    Where the node is masked, code -128 is the mask. A quantiser that uses it for logits is moved up by a code: logits
    of the highest code then share it with those one below, so that gaps to them shrink by a code. The pair before the
    mask is kept in this case, since it alone keeps logits below its range from being taken for masked ones.

    Examples
    --------
    >>> integer_parameters(item, "uint8", "norm", "extended").quantizer  # doctest: +SKIP
    LogitQuantizer(scale=(0.148,), zero_point=(4,))
    """
    masked = item.masked and profile == "extended"
    problem = item.own_quantizers.problem
    for own in item.own_quantizers.pairs:
        unfit = _unfit(own, masked)
        if unfit is None:
            head = _legal_head(own.scale, item, masked, output, reciprocal, profile)
            params = HccsParams((head,), item.head_axis, reciprocal, masked)
            if not masked or own.symmetric:
                return DataFreeIntegers(item, params, LogitQuantizer((own.scale,), (own.zero_point,)))
            moved = LogitQuantizer((own.scale,), (own.zero_point + 1,))
            return DataFreeIntegers(replace(item, scales=_nearer(item.scales, own.node)), params, moved)
        problem = unfit  # in the end that of the pair nearest to the product, which no mask has widened
    problem = f"integers without data need logits that the model has quantised: {problem}"
    raise CalibrationError(f"node '{item.node}'", problem, remedy="Add --data DATA, to which a quantiser is fitted")


def data_free_head(scale: float, slope: int = MAX_SLOPE, least_floor: int = 0) -> HeadParams:
    """The data-free line for codes of a given size: 3.3 nats long, or as long as the clip distance can be.

    Parameters
    ----------
    scale : float
        Nats a code, > 0.
    slope : int
        Largest S.
    least_floor : int
        Smallest F.

    Notes
    -----
    A line of c < 3.3 nats ends at F/B = exp(-c), where the exponential does: a model has such fine codes where its
    logits lie so close together that few gaps go beyond c.

    Examples
    --------
    >>> data_free_head(0.15)
    HeadParams(B=2817, S=127, Dmax=22, scale=0.15)
    >>> fine = data_free_head(0.01)
    >>> fine.Dmax, round(fine.floor_ratio, 2)
    (127, 0.28)
    """
    distance = min(MAX_CLIP_DISTANCE, max(1, round(DATA_FREE.clip_range / scale)))
    short = (distance + 0.5) * scale < DATA_FREE.clip_range
    fall = 1.0 - (math.exp(-distance * scale) if short else DATA_FREE.floor_ratio)
    slope = max(1, min(slope, int(MAX_OFFSET * fall / distance)))
    drop = slope * distance
    return HeadParams(max(round(drop / fall), drop + least_floor), slope, distance, scale)


def _nearer(scales: tuple[Step, ...], node: int) -> tuple[Step, ...]:
    """Those between a pair and the Softmax, which is all of them where the pair is not absorbed anyway."""
    positions = [step.node for step in scales]
    return scales[: positions.index(node)] if node in positions else scales


def _unfit(own: OwnQuantizer, masked: bool) -> str | None:
    """Why a pair does not do."""
    widest = DATA_FREE.clip_range / (LEAST_DISTANCE - 0.5)
    if not 0 < own.scale <= widest:
        return f"its quantiser is too coarse (a code is {own.scale:.3g} nats, needs <= {widest:.2f})"
    if not masked:
        return None
    if own.masked_before:
        return "it is quantised behind a mask, with nothing to tell masked logits from the lowest"
    if _CODES * own.scale > own.mask:
        found = f"{_CODES * own.scale:.3g} nats"
        return f"its codes span more than the mask takes off ({found}, needs <= {own.mask:.3g})"
    if own.zero_point == _HIGHEST_CODE:
        return (
            f"its quantiser leaves no code for the mask (zero point as int8 {own.zero_point}, needs < {_HIGHEST_CODE})"
        )
    return None


def _legal_head(
    scale: float, item: AttentionSoftmax, masked: bool, output: OutputType, reciprocal: Reciprocal, profile: Profile
) -> HeadParams:
    """The data-free line with the largest slope that is legal."""
    length = item.axis_length if isinstance(item.axis_length, int) else None
    if length is None and (profile == "paper" or (output == "int16" and reciprocal != "norm")):
        problem = f"no parameters are legal for {output} {reciprocal}, profile {profile}, and rows of any length"
        remedy = "Use reciprocal norm and profile extended, or add --data DATA"
        raise CalibrationError(f"node '{item.node}'", problem, remedy=remedy)
    least_floor = -(-256 // length) if length and profile == "paper" else 0
    for slope in range(MAX_SLOPE, 0, -1):
        head = data_free_head(scale, slope, least_floor)
        params = HccsParams((head,), reciprocal=reciprocal, masked=masked)
        if not params.violations(output, profile=profile, n=length):
            return head
    problem = f"no parameters are legal for {output} {reciprocal}, profile {profile}, and rows of {length}"
    raise CalibrationError(f"node '{item.node}'", problem, remedy="Use reciprocal norm and profile extended")
