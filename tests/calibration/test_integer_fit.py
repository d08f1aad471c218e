"""The integer fit: legal, true to what the operator puts out, and close to the float fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx.calibration.fit import HeadFit, fit_heads, mean_kl
from hccs_onnx.calibration.granularity import fit_floats, fit_integers
from hccs_onnx.calibration.integer_fit import Numerics, QuantizerForm, fit_integer_heads
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.errors import CalibrationError
from hccs_onnx.params import PROBABILITY_UNIT, HccsParams, HeadParams, OutputType, Reciprocal
from hccs_onnx.reference import hccs

DTYPES = {"uint8": np.uint8, "int16": np.int16}
FORMS: list[tuple[OutputType, Reciprocal]] = [
    (output, reciprocal) for output in ("uint8", "int16") for reciprocal in ("norm", "div", "clb")
]


def logits(heads: int = 2, n: int = 64, spread: float = 3.0, offset: float = 0.0) -> np.ndarray:
    """Logits (2, head, n, n) whose row maxima differ, as real ones do."""
    random = np.random.default_rng(heads * n)
    rows = random.normal(0, spread, (2, heads, n, n)) + random.normal(offset, spread, (2, heads, n, 1))
    return rows.astype(np.float32)


def statistics(x: np.ndarray, masked: bool = False) -> tuple[Sketch, RowSample]:
    sketch, sample = Sketch.empty(x.shape[1]), RowSample.empty(x.shape[1])
    for target in (sketch, sample):
        target.add(x, masked=masked, self_attention=False)
    return sketch, sample


def output_of(x: np.ndarray, fits: list[HeadFit], numerics: Numerics) -> np.ndarray:
    """Probabilities (batch, head, query, key) by quantising as QuantizeLinear does and asking the reference."""
    scale = np.array([fit.params.scale for fit in fits], np.float32)[:, None, None]
    zero_point = np.array([fit.zero_point for fit in fits])[:, None, None]
    codes = np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8)
    heads = [fit.params for fit in fits]
    y = hccs(
        codes, DTYPES[numerics.output], B=[h.B for h in heads], S=[h.S for h in heads], Dmax=[h.Dmax for h in heads],
        reciprocal=numerics.reciprocal, masked=numerics.masked,
    )  # fmt: skip
    return y * PROBABILITY_UNIT[numerics.output]


@pytest.mark.parametrize(("output", "reciprocal"), FORMS)
@pytest.mark.parametrize("masked", [False, True])
def test_reported_deficit_is_that_of_the_operator(output: OutputType, reciprocal: Reciprocal, masked: bool) -> None:
    x = logits()
    if masked:
        x[..., 50:] = -1e4
    sketch, sample = statistics(x, masked)
    numerics = Numerics(output, reciprocal, "extended", masked, 64)
    fits = fit_integer_heads(sample, fit_heads(sketch), numerics)
    y = output_of(x, fits, numerics)
    if masked:
        assert (y[..., 50:] == 0).all()
    deficits = 1.0 - y.sum(axis=-1).mean(axis=(0, 2))  # the sample holds every row here
    np.testing.assert_allclose([fit.deficit for fit in fits], deficits, atol=1e-9)


@pytest.mark.parametrize(("output", "reciprocal"), FORMS)
def test_integer_fit_is_nearly_as_good_as_the_float_fit(output: OutputType, reciprocal: Reciprocal) -> None:
    sketch, sample = statistics(logits())
    shapes = fit_heads(sketch)
    fits = fit_integer_heads(sample, shapes, Numerics(output, reciprocal, "extended", False, 64))
    for fit, kl in zip(fits, mean_kl(sketch, shapes), strict=True):
        assert fit.kl < kl + 0.02
        below_half_a_code = 0.05 if output == "uint8" else 0.001  # lost by rounding, whatever the reciprocal
        assert abs(fit.deficit) < below_half_a_code + {"norm": 0.001, "div": 0.05, "clb": 0.5}[reciprocal]


@given(
    st.sampled_from([*FORMS, ("uint8", "div"), ("int16", "clb")]),
    st.sampled_from(["extended", "paper"]),
    st.integers(2, 255),
    st.booleans(),
)
def test_fitted_parameters_are_legal(
    form: tuple[OutputType, Reciprocal], profile: str, longest: int, masked: bool
) -> None:
    output, reciprocal = form
    if profile == "paper" and (reciprocal == "norm" or longest > 120):
        return  # no such numerics, or no legal parameters
    masked = masked and profile == "extended"
    _, sample = statistics(logits(heads=1, n=16))
    numerics = Numerics(output, reciprocal, profile, masked, longest)  # type: ignore[arg-type]
    (fit,) = fit_integer_heads(sample, [HeadParams(16259, 127, 127, 3.3 / 127)], numerics)
    params = HccsParams((fit.params,), reciprocal=reciprocal, masked=masked)
    assert params.violations(output, profile=profile, n=longest) == ()  # type: ignore[arg-type]
    assert -128 <= fit.zero_point <= 127


def test_offset_of_the_logits_costs_nothing() -> None:
    centred, shifted = (
        fit_integer_heads(sample, fit_heads(sketch), Numerics("uint8", "norm", "extended", False, 64))
        for sketch, sample in (statistics(logits(offset=offset)) for offset in (0.0, 8.0))
    )
    for one, other in zip(centred, shifted, strict=True):
        assert other.kl < one.kl + 0.01
        assert other.zero_point < one.zero_point


def test_shared_quantizer_is_one_for_all_heads() -> None:
    x = logits(heads=3) * np.array([0.5, 1.0, 2.0], np.float32)[:, None, None]
    sketch, sample = statistics(x)
    numerics = Numerics("uint8", "norm", "extended", False, 64)
    own = fit_integer_heads(sample, fit_heads(sketch), numerics)
    shared = fit_integer_heads(sample, fit_heads(sketch), numerics, QuantizerForm(per_tensor=True))
    assert len({(fit.params.scale, fit.zero_point) for fit in own}) == 3
    assert len({(fit.params.scale, fit.zero_point) for fit in shared}) == 1
    assert len({fit.params.Dmax for fit in shared}) > 1


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("unit", [1.0, 0.125, 0.17677669])
def test_code_size_is_the_unit_times_a_power_of_two_when_asked(unit: float, per_tensor: bool) -> None:
    x = logits(heads=3) * np.array([0.5, 1.0, 2.0], np.float32)[:, None, None]
    sketch, sample = statistics(x)
    numerics = Numerics("uint8", "norm", "extended", False, 64)
    free = fit_integer_heads(sample, fit_heads(sketch), numerics, QuantizerForm(per_tensor))
    fits = fit_integer_heads(sample, fit_heads(sketch), numerics, QuantizerForm(per_tensor, unit))
    assert {math.frexp(fit.params.scale / unit)[0] for fit in fits} == {0.5}
    assert {math.frexp(fit.params.scale / unit)[0] for fit in free} != {0.5}
    for fit, best in zip(fits, free, strict=True):
        assert fit.kl < best.kl + 0.05


@pytest.mark.parametrize("unit", [None, 1.0])
def test_zero_point_is_0_when_asked(unit: float | None) -> None:
    sketch, sample = statistics(logits(offset=8.0))
    numerics = Numerics("uint8", "norm", "extended", False, 64)
    free = fit_integer_heads(sample, fit_heads(sketch), numerics)
    fits = fit_integer_heads(sample, fit_heads(sketch), numerics, QuantizerForm(unit=unit, symmetric=True))
    assert all(fit.zero_point != 0 for fit in free)
    assert all(fit.zero_point == 0 for fit in fits)
    for fit, best in zip(fits, free, strict=True):
        assert fit.kl < best.kl + 0.1


@pytest.mark.parametrize(("units", "allowed"), [((0.5, 0.125), True), ((0.5, 0.75), False), ((None, None), True)])
def test_global_power_of_two_is_refused_when_units_differ_otherwise(
    units: tuple[float | None, float | None], allowed: bool
) -> None:
    sketches, samples = zip(*(statistics(logits(heads=1, n=16)) for _ in units), strict=True)
    fits = fit_floats(list(sketches), "global")
    numerics = [Numerics("uint8", "norm", "extended", False, 16)] * 2
    forms = [QuantizerForm(unit=unit) for unit in units]
    if allowed:
        (one,), (other,) = fit_integers(list(samples), fits, "global", numerics, forms)
        assert one == other
    else:
        with pytest.raises(CalibrationError, match=r"no code size is a power of two for all nodes"):
            fit_integers(list(samples), fits, "global", numerics, forms)


@pytest.mark.parametrize("output", ["uint8", "int16"])
def test_loss_is_infinite_when_integers_leave_nothing_of_a_row(output: OutputType) -> None:
    x = np.random.default_rng(0).normal(0, 0.1, (1, 1, 4, 2048))  # flat: each key's probability is below half a code
    sketch, sample = statistics(x)
    (fit,) = fit_integer_heads(sample, fit_heads(sketch), Numerics(output, "norm", "extended", False, 2048))
    if output == "uint8":
        assert (fit.kl, fit.deficit) == (math.inf, 1.0)
    else:
        assert fit.kl < 0.1


def test_fit_is_refused_when_rows_are_too_long_for_any_parameters() -> None:
    _, sample = statistics(logits(heads=1, n=16))
    numerics = Numerics("int16", "div", "extended", False, 40000)
    with pytest.raises(CalibrationError, match=r"no parameters are legal for int16 div with rows of 40000\. "):
        fit_integer_heads(sample, [HeadParams(16259, 127, 127, 3.3 / 127)], numerics)
