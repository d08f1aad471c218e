"""From statistics to fitted heads, with parameters shared as the granularity says."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from hccs_onnx.calibration.file import Granularity
from hccs_onnx.calibration.fit import HeadFit, fit_heads, mean_kl
from hccs_onnx.calibration.integer_fit import Numerics, fit_integer_heads
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.progress import progress

Fits = list[tuple[HeadFit, ...]]
"""Fitted heads for each Softmax."""


def fit_floats(sketches: Sequence[Sketch], granularity: Granularity) -> Fits:
    """Fits for float output, from the sketch of each Softmax.

    Examples
    --------
    >>> fit_floats([sketch], "head")[0][0].params.clip_range  # doctest: +SKIP
    3.1
    """
    if granularity == "head":
        params = [fit_heads(sketch) for sketch in sketches]
    else:
        pooled = [sketch.pooled() for sketch in sketches]
        if granularity == "global":
            pooled = [reduce(operator.add, pooled)]
        shared = [fit_heads(sketch)[0] for sketch in pooled] * (len(sketches) // len(pooled))
        params = [[head] * sketch.rows.size for head, sketch in zip(shared, sketches, strict=True)]
    return [
        tuple(HeadFit(head, kl, 0.0) for head, kl in zip(heads, mean_kl(sketch, heads), strict=True))
        for heads, sketch in zip(params, sketches, strict=True)
    ]


def fit_integers(
    samples: Sequence[RowSample],
    fits: Fits,
    granularity: Granularity,
    numerics: list[Numerics],
    share_quantizer: list[bool],
) -> Fits:
    """Fits for integer output, from the row sample and the float fit of each Softmax.

    Parameters
    ----------
    samples : sequence of RowSample
        One a Softmax.
    fits : list of tuple of HeadFit
        From `fit_floats`, same granularity.
    granularity : {'head', 'layer', 'global'}
        What shares one set of parameters.
    numerics : list of Numerics
        What each node will compute.
    share_quantizer : list of bool
        For each Softmax, whether its logits are quantised per tensor.

    Examples
    --------
    >>> fit_integers([sample], fits, "head", [numerics], [False])[0][0].zero_point  # doctest: +SKIP
    -59
    """
    if granularity == "head":
        searched = list(zip(samples, fits, numerics, share_quantizer, strict=True))
        return [
            tuple(fit_integer_heads(sample, [fit.params for fit in heads], each, share_quantizer=shared))
            for sample, heads, each, shared in progress(searched, "fitting", len(searched))
        ]
    pooled = [sample.pooled() for sample in samples]
    if granularity == "global":
        pooled = [sum(pooled[1:], start=pooled[0])]
        longest = max(each.longest for each in numerics)
        masked = any(each.masked for each in numerics)
        numerics = [replace(each, longest=longest, masked=masked) for each in numerics]
    shared_fits = [
        fit_integer_heads(sample, [heads[0].params], each)[0]
        for sample, heads, each in zip(pooled, fits, numerics, strict=False)
    ] * (len(fits) // len(pooled))
    return [(fit,) * len(heads) for fit, heads in zip(shared_fits, fits, strict=True)]
