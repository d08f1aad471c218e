"""The fit by squares: head parameters of least squared difference between the probabilities of HCCS and of Softmax.

What attention puts out is a mean of values weighted by probabilities, so an error in a probability counts by its size.
KL counts by ratios: it keeps a high floor for far keys, which together then weigh more than they should.
"""

from __future__ import annotations

import numpy as np

from hccs_onnx.calibration.fit import legal_head
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.params import HeadParams
from hccs_onnx.reference import Array

_CLIPS = np.geomspace(0.5, 16.0, 21)  # nats
_RATIOS = np.append(0.0, np.geomspace(1e-4, 0.9, 28))
_LOCAL = np.linspace(-1.0, 1.0, 7)
_ROUNDS = 3


def fit_squares(sample: RowSample) -> list[HeadParams]:
    """Parameters of least mean squared difference for each head of a sample, float output.

    Parameters
    ----------
    sample : RowSample
        At least one row a head.

    Returns
    -------
    list of HeadParams
        Legal in the extended profile for any row length; scale in nats.

    Examples
    --------
    >>> sample = RowSample.empty(heads=1)
    >>> sample.add(np.random.default_rng(0).normal(0, 2, (1, 1, 64, 64)), masked=False, self_attention=False)
    >>> 2 < fit_squares(sample)[0].clip_range < 5
    True
    """
    return [_fit(_Rows(sample.matrix(head))) for head in range(len(sample.rows))]


def _fit(rows: _Rows) -> HeadParams:
    clip, ratio = _best(rows, _CLIPS, _RATIOS)
    reach_clip, reach_ratio = np.log(_CLIPS[1] / _CLIPS[0]), np.log(_RATIOS[2] / _RATIOS[1])
    for _ in range(_ROUNDS):
        clip, ratio = _best(
            rows, clip * np.exp(_LOCAL * reach_clip), np.minimum(0.9, ratio * np.exp(_LOCAL * reach_ratio))
        )
        reach_clip, reach_ratio = reach_clip / 3, reach_ratio / 3
    return legal_head(clip, ratio)


def _best(rows: _Rows, clips: Array, ratios: Array) -> tuple[float, float]:
    losses = np.array([rows.losses(float(clip), ratios) for clip in clips])
    i, j = np.unravel_index(np.argmin(losses), losses.shape)
    return float(clips[i]), float(ratios[j])


class _Rows:
    """Rows of one head, shape (row, key): logits in nats, -inf where masked, NaN behind a row's end."""

    def __init__(self, rows: Array) -> None:
        self._gap = np.nanmax(rows, axis=-1, keepdims=True) - rows
        live = np.isfinite(self._gap)
        self._gap[~live] = np.inf
        self._count = np.count_nonzero(live, axis=-1)[:, None]
        weight = np.exp(-self._gap)
        self._p = weight / weight.sum(axis=-1, keepdims=True)

    def losses(self, clip: float, ratios: Array) -> Array:
        """Mean over rows of sum (q - p)^2 less sum p^2, for scores r + (1-r) * max(0, 1 - gap/clip); shape (ratio,)."""
        score = np.maximum(0.0, 1.0 - self._gap / clip)
        first, second, common = (
            (a * b).sum(axis=-1)[:, None] for a, b in ((score, 1.0), (score, score), (score, self._p))
        )
        rest = 1.0 - ratios
        total = ratios * self._count + rest * first
        squares = ratios**2 * self._count + 2.0 * ratios * rest * first + rest**2 * second
        result: Array = (squares / total**2 - 2.0 * (ratios + rest * common) / total).mean(axis=0)
        return result
