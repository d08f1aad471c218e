"""From statistics to fitted heads, with parameters shared as the granularity says."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeVar

from hccs_onnx.calibration.file import Granularity
from hccs_onnx.calibration.fit import HeadFit, fit_heads, mean_kl
from hccs_onnx.calibration.integer_fit import Numerics, QuantizerForm, fit_integer_heads
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.calibration.squares_fit import fit_squares
from hccs_onnx.errors import CalibrationError
from hccs_onnx.params import HeadParams
from hccs_onnx.progress import progress

Statistics = TypeVar("Statistics", Sketch, RowSample)
Fits = list[tuple[HeadFit, ...]]
"""Fitted heads for each Softmax."""


def fit_floats(sketches: Sequence[Sketch], granularity: Granularity, samples: Sequence[RowSample] = ()) -> Fits:
    """Fits for float output: of least KL from the sketch of each Softmax, or of least squares from their row samples.

    Examples
    --------
    >>> fit_floats([sketch], "head")[0][0].params.clip_range  # doctest: +SKIP
    3.1
    """
    counts = [sketch.rows.size for sketch in sketches]
    if samples:
        params = _shared(samples, counts, granularity, fit_squares)
    else:
        params = _shared(sketches, counts, granularity, fit_heads)
    return [
        tuple(HeadFit(head, kl, 0.0) for head, kl in zip(heads, mean_kl(sketch, heads), strict=True))
        for heads, sketch in zip(params, sketches, strict=True)
    ]


def _shared(
    statistics: Sequence[Statistics],
    counts: Sequence[int],
    granularity: Granularity,
    fit: Callable[[Statistics], list[HeadParams]],
) -> list[list[HeadParams]]:
    """Parameters of each head of each Softmax, the same where the granularity says so."""
    if granularity == "head":
        return [fit(one) for one in statistics]
    pooled = [one.pooled() for one in statistics]
    if granularity == "global":
        pooled = [reduce(operator.add, pooled)]
    shared = [fit(one)[0] for one in pooled] * (len(counts) // len(pooled))
    return [[head] * count for head, count in zip(shared, counts, strict=True)]


def fit_integers(
    samples: Sequence[RowSample],
    fits: Fits,
    granularity: Granularity,
    numerics: list[Numerics],
    forms: list[QuantizerForm],
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
    forms : list of QuantizerForm
        Which quantisers of its logits each node may have.

    Raises
    ------
    CalibrationError
        If no parameters are legal, or no quantiser fits the forms of all nodes that share one.

    Examples
    --------
    >>> fit_integers([sample], fits, "head", [numerics], [QuantizerForm()])[0][0].zero_point  # doctest: +SKIP
    -59
    """
    if granularity == "head":
        searched = list(zip(samples, fits, numerics, forms, strict=True))
        return [
            tuple(fit_integer_heads(sample, [fit.params for fit in heads], each, form))
            for sample, heads, each, form in progress(searched, "fitting", len(searched))
        ]
    pooled = [sample.pooled() for sample in samples]
    if granularity == "global":
        pooled = [sum(pooled[1:], start=pooled[0])]
        longest = max(each.longest for each in numerics)
        masked = any(each.masked for each in numerics)
        numerics = [replace(each, longest=longest, masked=masked) for each in numerics]
        _check_one_unit(forms)
    shared_fits = [
        fit_integer_heads(sample, [heads[0].params], each, form)[0]
        for sample, heads, each, form in zip(pooled, fits, numerics, forms, strict=False)
    ] * (len(fits) // len(pooled))
    return [(fit,) * len(heads) for fit, heads in zip(shared_fits, fits, strict=True)]


def _check_one_unit(forms: list[QuantizerForm]) -> None:
    """Nodes share a code size; it is a power of two for each only if their scales differ by powers of two."""
    units = {math.frexp(form.unit)[0] for form in forms if form.unit is not None}
    if len(units) > 1:
        problem = "no code size is a power of two for all nodes, whose logits are scaled differently"
        raise CalibrationError("granularity global", problem, remedy="Use granularity layer or head")
