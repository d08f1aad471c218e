"""From sketches: where a head's probability lies, and what it costs to share parameters. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from hccs_onnx.calibration.file import Granularity
from hccs_onnx.calibration.fit import HeadFit, mean_kl
from hccs_onnx.calibration.granularity import fit_floats
from hccs_onnx.calibration.sketch import GAP_STEP, LOG_FIXED_POINT, Sketch
from hccs_onnx.params import DATA_FREE
from hccs_onnx.report.content import Gaps, Sharing

WIDTH = 0.5
"""Of a bin of the histogram, nats."""
_NAMES: dict[Granularity, str] = {"head": "per head", "layer": "per layer", "global": "global"}


def gaps_of(sketch: Sketch, clips: Sequence[float], reach: float) -> tuple[Gaps, ...]:
    """Histogram and spread of each head of a sketch.

    Parameters
    ----------
    sketch : Sketch
        At least one row a head.
    clips : sequence of float
        Clip range of each head, nats.
    reach : float
        Where the histogram ends, nats; what lies beyond is in no bin.

    Examples
    --------
    >>> import numpy as np
    >>> sketch = Sketch.empty(heads=1)
    >>> sketch.add(np.log([[[0.5, 0.3, 0.2]]]), masked=False, self_attention=False)
    >>> gaps = gaps_of(sketch, clips=[0.8], reach=1.0)[0]
    >>> [round(share, 3) for share in gaps.shares], round(gaps.beyond, 3), round(gaps.effective_keys, 2)
    ([0.5, 0.5], 0.2, 2.8)
    """
    step = round(WIDTH / GAP_STEP)
    found = []
    columns = (sketch.mass, sketch.rows, sketch.entropy, sketch.log_length, clips)
    for mass, rows, entropy, length, clip in zip(*columns, strict=True):
        share = mass / mass.sum()
        bins = share[: round(reach / WIDTH) * step].reshape(-1, step).sum(axis=1)
        nats = LOG_FIXED_POINT * float(rows)
        found.append(
            Gaps(
                shares=tuple(float(value) for value in bins),
                width=WIDTH,
                top=float(share[0]),
                beyond=float(share[math.ceil(clip / GAP_STEP) :].sum()),
                effective_keys=math.exp(float(entropy) / nats),
                keys=math.exp(float(length) / nats),
            )
        )
    return tuple(found)


def reach_of(fits: Sequence[HeadFit]) -> float:
    """How far plots of all heads go: half as far again as the longest clip range, 4 to 16 nats.

    Examples
    --------
    >>> reach_of([HeadFit(DATA_FREE, 0.1, 0.0)])
    5.0
    """
    longest = max(fit.params.clip_range for fit in fits)
    return float(min(16, max(4, math.ceil(1.5 * longest))))


def sharing(sketches: Sequence[Sketch]) -> tuple[Sharing, ...]:
    """KL of every head where parameters are fitted for each head, layer or all, and where no data is used.

    Examples
    --------
    >>> import numpy as np
    >>> sketch = Sketch.empty(heads=2)
    >>> sketch.add(np.random.default_rng(0).normal(0, 2, (1, 2, 64, 64)), masked=False, self_attention=False)
    >>> [item.sets for item in sharing([sketch])]
    [2, 1, 1, 1]
    """
    heads = sum(sketch.rows.size for sketch in sketches)
    sets = {"head": heads, "layer": len(sketches), "global": 1}
    found = []
    for granularity in get_args(Granularity):
        fits = fit_floats(sketches, granularity)
        kl = tuple(fit.kl for layer in fits for fit in layer)
        found.append(Sharing(_NAMES[granularity], sets[granularity], kl))
    free = tuple(kl for sketch in sketches for kl in mean_kl(sketch, [DATA_FREE] * sketch.rows.size))
    return (*found, Sharing("without data", 1, free))
