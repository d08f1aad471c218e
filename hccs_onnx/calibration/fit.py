"""The fit: head parameters of least mean KL divergence, from a sketch.

KL depends on the clip range c and the floor ratio r = F/B, and on little else: the rounding of gaps to codes. A coarse
search over a grid of both finds the basin, a few rounds of ever smaller local grids its bottom; then c and r become
integers B, S, Dmax and a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hccs_onnx.calibration.sketch import CLIPS, FIXED_POINT, GAP_BINS, GAP_STEP, LOG_FIXED_POINT, Sketch
from hccs_onnx.params import MAX_CLIP_DISTANCE, MAX_OFFSET, MAX_SLOPE, HeadParams
from hccs_onnx.reference import Array

_LOWEST_RATIO = 1.0 / (MAX_SLOPE * MAX_CLIP_DISTANCE + 1)  # F = 1 at the largest slope and clip distance
_RATIOS = np.geomspace(_LOWEST_RATIO, 0.999, 40)
_LOCAL = np.linspace(-1.0, 1.0, 9)
_ROUNDS = 4
# Bin 0 holds the row maxima, whose gap is 0 exactly, and is taken to lie there.
_BIN_EDGES = np.append(0.0, (np.arange(GAP_BINS) + 0.5) * GAP_STEP)


@dataclass(frozen=True)
class HeadFit:
    """Fitted parameters of one head.

    Parameters
    ----------
    params : HeadParams
        Scale in nats.
    kl : float
        Mean KL(softmax || HCCS) over rows, nats; infinite where integers leave nothing of a row.
    deficit : float
        Mean of 1 - (sum of a row's probabilities): what the reciprocal loses. 0 for float output.
    zero_point : int
        Code of logit 0, -128..127. Integer output only.
    """

    params: HeadParams
    kl: float
    deficit: float
    zero_point: int = 0


def fit_heads(sketch: Sketch) -> list[HeadParams]:
    """Parameters of least KL for each head of a sketch, float output.

    Parameters
    ----------
    sketch : Sketch
        At least one row a head.

    Returns
    -------
    list of HeadParams
        Legal in the extended profile for any row length; scale in nats.

    Examples
    --------
    >>> sketch = Sketch.empty(heads=1)
    >>> sketch.add(np.random.default_rng(0).normal(0, 2, (1, 1, 64, 64)), masked=False, self_attention=False)
    >>> 2 < fit_heads(sketch)[0].clip_range < 5
    True
    """
    return [_fit_head(_Objective(sketch, head)) for head in range(sketch.rows.size)]


def mean_kl(sketch: Sketch, params: list[HeadParams]) -> list[float]:
    """Mean KL(softmax || HCCS) of each head for given parameters, nats.

    Examples
    --------
    >>> sketch = Sketch.empty(heads=1)
    >>> sketch.add(np.zeros((1, 1, 4, 4)), masked=False, self_attention=False)
    >>> abs(mean_kl(sketch, [HeadParams(16259, 127, 127, 0.026)])[0]) < 1e-6
    True
    """
    values = []
    for head, item in enumerate(params):
        objective = _Objective(sketch, head)
        at = np.array([item.clip_range]), np.array([item.floor_ratio])
        values.append(max(0.0, float(objective(*at, item.Dmax)[0, 0])))  # bins can put it just below 0
    return values


class _Objective:
    """Mean KL of one head as a function of clip range and floor ratio."""

    def __init__(self, sketch: Sketch, head: int) -> None:
        rows = float(sketch.rows[head])
        unit = FIXED_POINT * rows
        self._constant = (float(sketch.log_length[head]) - float(sketch.entropy[head])) / (LOG_FIXED_POINT * rows)
        self._mass_below = np.append(sketch.mass[head, 0], sketch.mass[head].cumsum()) / unit
        counts = sketch.headroom_rows[head]
        self._clip, self._bin = np.nonzero(counts)
        count = counts[self._clip, self._bin]
        self._weight = count / rows
        self._headroom = sketch.headroom[head][self._clip, self._bin] / (FIXED_POINT * count)
        self._starts = np.searchsorted(self._clip, np.arange(CLIPS.size + 1))

    def __call__(self, clips: Array, ratios: Array, distance: int = MAX_CLIP_DISTANCE) -> Array:
        """KL in nats for gaps rounded to `distance` codes within the clip range, shape (clip, ratio)."""
        return self._constant - self._mass_term(clips, ratios, distance) + self._total_term(clips, ratios)

    def on_grid(self, ratios: Array) -> Array:
        """KL on all clip ranges of the sketch's grid, shape (clip, ratio)."""
        mass = self._mass_term(CLIPS, ratios, MAX_CLIP_DISTANCE)
        return self._constant - mass + self._totals(0, CLIPS.size, ratios)

    def _mass_term(self, clips: Array, ratios: Array, distance: int) -> Array:
        """Mean of sum_i p_i * log(s_i/B), shape (clip, ratio)."""
        upper = np.outer(clips, (np.arange(distance) + 0.5) / distance)  # edges of the gap codes below the floor
        below = np.interp(upper, _BIN_EDGES, self._mass_below)
        mass = np.diff(below, axis=1, prepend=0.0)
        floor = self._mass_below[-1] - below[:, -1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            sloped = mass @ np.log1p(-np.outer(np.arange(distance) / distance, 1.0 - ratios))
            result: Array = sloped + np.where(floor > 0, floor * np.log(ratios), 0.0)
        return result

    def _totals(self, first: int, last: int, ratios: Array) -> Array:
        """Mean of log(Z / (n*B)) for clip ranges first..last-1 of the grid, shape (clip, ratio)."""
        part = slice(self._starts[first], self._starts[last])
        logs = np.log(ratios + np.outer(self._headroom[part], 1.0 - ratios)) * self._weight[part, None]
        starts = self._starts[first:last] - self._starts[first]
        totals: Array = np.add.reduceat(logs, starts, axis=0)
        return totals

    def _total_term(self, clips: Array, ratios: Array) -> Array:
        """The same for any clip ranges: a cubic through the four nearest of the grid, in log(clip)."""
        logs = np.log(CLIPS)
        result = np.empty((clips.size, ratios.size))
        first = np.clip(np.searchsorted(CLIPS, clips) - 2, 0, CLIPS.size - 4)
        for start in np.unique(first):
            chosen = first == start
            nodes, at = logs[start : start + 4], np.log(clips[chosen])
            weights = np.ones((at.size, 4))
            for i in range(4):
                for j in range(4):
                    if i != j:
                        weights[:, i] *= (at - nodes[j]) / (nodes[i] - nodes[j])
            result[chosen] = weights @ self._totals(start, start + 4, ratios)
        return result


def _fit_head(objective: _Objective) -> HeadParams:
    coarse = objective.on_grid(_RATIOS)
    clip_index, ratio_index = np.unravel_index(np.nanargmin(coarse), coarse.shape)
    clip, ratio = CLIPS[clip_index], _RATIOS[ratio_index]
    reach_clip, reach_ratio = 0.15, np.log(_RATIOS[1] / _RATIOS[0])
    for _ in range(_ROUNDS):
        clips = np.unique(np.clip(clip * np.exp(_LOCAL * reach_clip), CLIPS[0], CLIPS[-1]))
        ratios = np.unique(np.clip(ratio * np.exp(_LOCAL * reach_ratio), _LOWEST_RATIO, 0.9999))
        values = objective(clips, ratios)
        i, j = np.unravel_index(np.nanargmin(values), values.shape)
        clip, ratio = clips[i], ratios[j]
        reach_clip, reach_ratio = reach_clip / 3, reach_ratio / 3
    return legal_head(float(clip), float(ratio))


def legal_head(clip_range: float, floor_ratio: float) -> HeadParams:
    """Legal integers with the finest steps that come closest to a clip range and a floor ratio.

    Parameters
    ----------
    clip_range : float
        Nats, > 0.
    floor_ratio : float
        F/B, 0..1.

    Examples
    --------
    >>> legal_head(3.3, 0.008)
    HeadParams(B=16259, S=127, Dmax=127, scale=0.025984251871705055)
    """
    step = float(np.float32(clip_range / MAX_CLIP_DISTANCE))
    fall = 1.0 - floor_ratio
    slope = min(MAX_SLOPE, int(MAX_OFFSET * fall / MAX_CLIP_DISTANCE))
    if slope == 0:
        return HeadParams(MAX_OFFSET, 0, MAX_CLIP_DISTANCE, step)
    offset = min(MAX_OFFSET, max(round(slope * MAX_CLIP_DISTANCE / fall), slope * MAX_CLIP_DISTANCE + 1))
    return HeadParams(offset, slope, MAX_CLIP_DISTANCE, step)
