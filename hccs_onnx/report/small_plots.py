"""The plot of one head: exp against the calibrated line over the histogram of gaps, as SVG paths. Pure.

There is one for each head, so they are written as text: a path for each curve, axes that all of them share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hccs_onnx.params import HeadParams
from hccs_onnx.report.content import Gaps, Head

WIDTH, HEIGHT = 180, 98  # of the view box, units of the SVG
_LEFT, _RIGHT, _TOP, _BOTTOM = 5.0, 175.0, 5.0, 80.0
_EXP_POINTS = 40
_STEPS = 40
"""Largest clip distance whose steps are drawn as such; finer ones look like a line."""


@dataclass(frozen=True)
class HeadPlot:
    """Paths of one plot, and what it says in words.

    Parameters
    ----------
    exponential, line : str
        exp(-gap), and the score relative to its maximum: path data.
    histogram : str or None
        Outline of the histogram; None without data.
    clip : float
        Where the clip range ends: x.
    ticks : tuple of (float, str)
        x and label of the marks along the axis.
    description : str
        Alternative text.
    """

    exponential: str
    line: str
    histogram: str | None
    clip: float
    ticks: tuple[tuple[float, str], ...]
    description: str


def head_plot(head: Head, reach: float) -> HeadPlot:
    """The plot of a head over gaps from 0 to `reach` nats.

    Examples
    --------
    >>> from hccs_onnx.calibration.fit import HeadFit
    >>> from hccs_onnx.params import DATA_FREE
    >>> plot = head_plot(Head(0, 0, "softmax", HeadFit(DATA_FREE, 0.1, 0.0), masked=True), reach=4.0)
    >>> plot.line
    'M5.0 5.0 L145.2 79.4 H175.0'
    """
    return HeadPlot(
        exponential=_exponential(reach),
        line=_line(head.fit.params, reach),
        histogram=None if head.gaps is None else _histogram(head.gaps, reach),
        clip=_x(min(head.fit.params.clip_range, reach), reach),
        ticks=tuple((_x(gap, reach), f"{gap:g}") for gap in _marks(reach)),
        description=_describe(head),
    )


def _x(gap: float, reach: float) -> float:
    return round(_LEFT + (_RIGHT - _LEFT) * gap / reach, 1)


def _y(score: float) -> float:
    return round(_BOTTOM - (_BOTTOM - _TOP) * score, 1)


def _exponential(reach: float) -> str:
    points = [reach * index / _EXP_POINTS for index in range(_EXP_POINTS + 1)]
    return "M" + " L".join(f"{_x(gap, reach)} {_y(math.exp(-gap))}" for gap in points)


def _line(params: HeadParams, reach: float) -> str:
    """Score over gap: steps where they can be seen, else a slope; level beyond the clip range."""
    if params.Dmax > _STEPS:
        edge = min(params.clip_range, reach)
        at_edge = 1.0 - (1.0 - params.floor_ratio) * edge / params.clip_range
        return f"M{_x(0, reach)} {_y(1.0)} L{_x(edge, reach)} {_y(at_edge)} H{_x(reach, reach)}"
    path = f"M{_x(0, reach)} {_y(1.0)}"
    for code in range(1, params.Dmax + 1):  # gaps round to codes
        edge = (code - 0.5) * params.scale
        if edge > reach:
            break
        path += f" H{_x(edge, reach)} V{_y((params.B - params.S * code) / params.B)}"
    return f"{path} H{_x(reach, reach)}"


def _histogram(gaps: Gaps, reach: float) -> str:
    path = f"M{_x(0, reach)} {_y(0)}"
    for index, share in enumerate(gaps.shares):
        path += f" V{_y(min(share, 1.0))} H{_x((index + 1) * gaps.width, reach)}"
    return f"{path} V{_y(0)} Z"


def _marks(reach: float) -> list[int]:
    step = 1 if reach <= 5 else 2 if reach <= 10 else 4
    return list(range(0, math.floor(reach) + 1, step))


def _describe(head: Head) -> str:
    params = head.fit.params
    text = (
        f"Layer {head.layer}, head {head.index}: exp(-gap), and the HCCS line, which falls from 1 to "
        f"{params.floor_ratio:.3f} at {params.clip_range:.2f} nats and stays there."
    )
    if head.gaps is None:
        return text
    return text + (
        f" Of the probability {head.gaps.top:.0%} lies at the row's maximum and {head.gaps.beyond:.0%} beyond the clip"
        f" range; a row spreads over {head.gaps.effective_keys:.1f} of {head.gaps.keys:.0f} keys."
    )
