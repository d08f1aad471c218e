from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hccs_onnx.params import DATA_FREE, OUTPUT_TYPES, HccsParams, HeadParams, OutputType, Profile, Reciprocal
from hccs_onnx.reference import hccs

INTEGER_OUTPUTS: tuple[OutputType, ...] = ("uint8", "int16")
PAPER_RECIPROCALS: tuple[Reciprocal, ...] = ("div", "clb")


def flat(offset: int, floor: int | None = None) -> HeadParams:
    """A head with offset B and floor F: all the drop in one gap code, or none."""
    return HeadParams(offset, 0 if floor is None else offset - floor, 1)


def of(*heads: HeadParams, **attributes: object) -> HccsParams:
    return HccsParams(heads=heads, **attributes)  # type: ignore[arg-type]


@pytest.mark.parametrize("output", OUTPUT_TYPES)
@pytest.mark.parametrize(
    "head",
    [
        HeadParams(1, 0, 1),
        HeadParams(32767, 0, 1),
        HeadParams(32767, 127, 1),
        HeadParams(32767, 127, 127),
        HeadParams(16129, 127, 127),  # F = 0
        HeadParams(300, 2, 100, scale=2.0**-149),  # smallest float32
        HeadParams(300, 2, 100, scale=float(np.finfo(np.float32).max)),
    ],
    ids=str,
)
def test_head_is_legal_at_each_bound(head: HeadParams, output: OutputType) -> None:
    assert of(head).violations(output) == ()
    assert of(head).violations(output, n=65536) == ()


@pytest.mark.parametrize("output", OUTPUT_TYPES)
@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (HeadParams(0, 0, 1), "offset B out of range (0, needs >= 1)"),
        (HeadParams(32768, 0, 1), "offset B out of range (32768, needs <= 32767)"),
        (HeadParams(300, -1, 1), "slope S out of range (-1, needs >= 0)"),
        (HeadParams(300, 128, 1), "slope S out of range (128, needs <= 127)"),
        (HeadParams(300, 2, 0), "clip distance Dmax out of range (0, needs >= 1)"),
        (HeadParams(300, 2, 128), "clip distance Dmax out of range (128, needs <= 127)"),
        (HeadParams(16128, 127, 127), "floor B - S*Dmax is negative (-1, needs >= 0)"),
        (HeadParams(300, 2, 100, scale=0.0), "scale is not positive and finite (0.0, needs > 0)"),
        (HeadParams(300, 2, 100, scale=-0.5), "scale is not positive and finite (-0.5, needs > 0)"),
        (HeadParams(300, 2, 100, scale=math.nan), "scale is not positive and finite (nan, needs > 0)"),
        (HeadParams(300, 2, 100, scale=math.inf), "scale is not positive and finite (inf, needs > 0)"),
    ],
)
def test_head_is_illegal_one_beyond_each_bound(head: HeadParams, reason: str, output: OutputType) -> None:
    assert of(head).violations(output) == (f"head 0: {reason}",)


@pytest.mark.parametrize("scale", [1e-46, 1e39], ids=["rounds to 0", "rounds to infinity"])
def test_scale_is_illegal_when_float32_cannot_hold_it(scale: float) -> None:
    reason = f"head 0: scale is not positive and finite ({scale}, needs > 0)"
    assert of(HeadParams(300, 2, 100, scale)).violations("float") == (reason,)


def test_violations_name_every_illegal_head_and_nothing_else() -> None:
    params = of(HeadParams(0, 200, 1), HeadParams(300, 2, 100), HeadParams(300, 3, 101))
    assert params.violations("float") == (
        "head 0: offset B out of range (0, needs >= 1)",
        "head 0: slope S out of range (200, needs <= 127)",
        "head 2: floor B - S*Dmax is negative (-3, needs >= 0)",
    )


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        (of(), "no head parameters (0 entries, needs 1 or one a head)"),
        (of(DATA_FREE, DATA_FREE, head_axis=-1), "head_axis is the last axis (-1, needs any other)"),
        (of(DATA_FREE, reciprocal="exact"), "unknown reciprocal ('exact', needs one of div, clb, norm)"),
        (of(DATA_FREE, mask_gap=0.0), "mask_gap is not positive (0.0, needs > 0)"),
        (of(DATA_FREE, mask_gap=-64.0), "mask_gap is not positive (-64.0, needs > 0)"),
        (of(DATA_FREE, mask_gap=math.nan), "mask_gap is not positive (nan, needs > 0)"),
    ],
)
def test_attributes_are_illegal_with_a_reason(params: HccsParams, reason: str) -> None:
    assert params.violations("float") == (reason,)


@pytest.mark.parametrize(
    "params",
    [
        of(DATA_FREE, head_axis=-1),  # one entry: the axis is not looked at
        of(DATA_FREE, DATA_FREE, head_axis=0),
        of(DATA_FREE, mask_gap=2.0**-149),
        of(DATA_FREE, mask_gap=math.inf),
    ],
)
def test_attributes_are_legal_at_their_bounds(params: HccsParams) -> None:
    assert params.violations("float") == ()


@pytest.mark.parametrize(
    ("entries", "size", "legal"),
    [(3, 3, True), (3, 12, True), (3, 0, True), (1, 7, True), (3, None, True), (3, 4, False), (3, 1, False)],
)
def test_head_axis_is_a_multiple_of_the_entries(entries: int, size: int | None, legal: bool) -> None:
    reason = f"head axis does not divide into the heads (size {size}, needs a multiple of {entries})"
    assert of(*[DATA_FREE] * entries).violations("float", heads=size) == (() if legal else (reason,))


OVERFLOW = "head 0: row sum overflows int16: n*B for n = {n} ({value}, needs <= 32767)"
SMALL = "head 0: row sum too small: n*F for n = {n} ({value}, needs >= 256)"
SMALL_UINT8 = "head 0: row sum can be too small for uint8: B + (n-1)*F for n = {n} ({value}, needs >= 256)"


@pytest.mark.parametrize("reciprocal", PAPER_RECIPROCALS)
@pytest.mark.parametrize("output", INTEGER_OUTPUTS)
@pytest.mark.parametrize(
    ("head", "n", "reason"),
    [
        (flat(217), 151, None),  # n*B = 32767
        (flat(218), 151, OVERFLOW.format(n=151, value=32918)),
        (flat(217), 152, OVERFLOW.format(n=152, value=32984)),
        (flat(1), 32767, None),
        (flat(1), 32768, OVERFLOW.format(n=32768, value=32768)),
        (flat(257, 256), 1, None),
        (flat(257, 255), 1, SMALL.format(n=1, value=255)),
        (flat(100, 1), 256, None),
        (flat(100, 1), 255, SMALL.format(n=255, value=255)),
        (flat(127, 0), 256, SMALL.format(n=256, value=0)),
    ],
)
def test_paper_bounds_the_row_length(
    head: HeadParams, n: int, reason: str | None, output: OutputType, reciprocal: Reciprocal
) -> None:
    params = of(head, reciprocal=reciprocal)
    assert params.violations(output, profile="paper", n=n) == (() if reason is None else (reason,))
    assert params.violations(output, profile="paper") == ()


@pytest.mark.parametrize(
    ("output", "attributes", "reason"),
    [
        ("uint8", {"reciprocal": "norm"}, "profile 'paper' has no reciprocal 'norm' (norm, needs div or clb)"),
        ("int16", {"reciprocal": "div", "masked": True}, "profile 'paper' has no mask (masked = 1, needs 0)"),
        ("float", {"reciprocal": "clb"}, "profile 'paper' has no float output (float, needs uint8 or int16)"),
    ],
)
def test_paper_refuses_what_is_extended(output: OutputType, attributes: dict[str, object], reason: str) -> None:
    assert of(flat(300), **attributes).violations(output, profile="paper", n=100) == (reason,)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reciprocal", PAPER_RECIPROCALS)
@pytest.mark.parametrize(
    ("head", "n", "reason"),
    [
        (flat(217), 151, None),
        (flat(218), 151, OVERFLOW.format(n=151, value=32918)),
        (flat(217), 152, OVERFLOW.format(n=152, value=32984)),
        (flat(32767, 32700), 1, None),
        (flat(32767, 32700), 2, OVERFLOW.format(n=2, value=65534)),
    ],
)
def test_extended_int16_bounds_the_row_sum_from_above(
    head: HeadParams, n: int, reason: str | None, reciprocal: Reciprocal, masked: bool
) -> None:
    params = of(head, reciprocal=reciprocal, masked=masked)
    assert params.violations("int16", n=n) == (() if reason is None else (reason,))
    assert params.violations("int16") == ()


@pytest.mark.parametrize("reciprocal", PAPER_RECIPROCALS)
@pytest.mark.parametrize(
    ("head", "n", "reason"),
    [
        (flat(256, 255), 1, None),
        (flat(255, 254), 1, SMALL_UINT8.format(n=1, value=255)),
        (flat(100, 1), 157, None),
        (flat(100, 1), 156, SMALL_UINT8.format(n=156, value=255)),
        (flat(100, 0), 65536, SMALL_UINT8.format(n=65536, value=100)),
        (HeadParams(32767, 0, 1), 65536, None),
    ],
)
def test_extended_uint8_bounds_the_row_sum_from_below(
    head: HeadParams, n: int, reason: str | None, reciprocal: Reciprocal
) -> None:
    params = of(head, reciprocal=reciprocal)
    assert params.violations("uint8", n=n) == (() if reason is None else (reason,))
    assert params.violations("uint8") == ()


@pytest.mark.parametrize("n", [None, 1, 65536])
@pytest.mark.parametrize("reciprocal", PAPER_RECIPROCALS)
def test_extended_uint8_bounds_the_offset_when_masked(reciprocal: Reciprocal, n: int | None) -> None:
    reason = "head 0: row sum can be too small for uint8: B when masked (255, needs >= 256)"
    assert of(HeadParams(256, 2, 127), reciprocal=reciprocal, masked=True).violations("uint8", n=n) == ()
    assert of(flat(255), reciprocal=reciprocal, masked=True).violations("uint8", n=n) == (reason,)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("output", "reciprocal"), [("float", "div"), ("float", "norm"), ("uint8", "norm"), ("int16", "norm")]
)
@pytest.mark.parametrize("head", [HeadParams(1, 0, 1), HeadParams(127, 127, 1), HeadParams(32767, 0, 127)], ids=str)
def test_extended_norm_and_float_have_no_bound_on_the_row(
    head: HeadParams, output: OutputType, reciprocal: Reciprocal, masked: bool
) -> None:
    params = of(head, reciprocal=reciprocal, masked=masked)
    assert [params.violations(output, n=n) for n in (1, 65536, None)] == [(), (), ()]


@pytest.mark.parametrize("profile", ["paper", "extended"])
def test_row_length_0_is_legal_as_there_is_nothing_to_compute(profile: Profile) -> None:
    assert of(flat(300), reciprocal="div").violations("uint8", profile=profile, n=0) == ()


near = st.sampled_from


@given(
    offset=st.integers(-1, 32769) | near([0, 1, 255, 256, 32767, 32768]),
    slope=st.integers(-1, 129) | near([0, 127, 128]),
    clip=st.integers(-1, 129) | near([1, 127, 128]),
    scale=near([1.0, 0.0, -1.0, math.nan]),
    n=st.integers(1, 66000) | near([1, 2, 128, 32767]) | st.none(),
    output=near(OUTPUT_TYPES),
    reciprocal=near(["div", "clb", "norm"]),
    masked=st.booleans(),
    profile=near(["paper", "extended"]),
)
def test_parameters_are_legal_exactly_when_the_specification_says(
    offset: int,
    slope: int,
    clip: int,
    scale: float,
    n: int | None,
    output: OutputType,
    reciprocal: Reciprocal,
    masked: bool,
    profile: Profile,
) -> None:
    floor = offset - slope * clip
    legal = 1 <= offset <= 32767 and 0 <= slope <= 127 and 1 <= clip <= 127 and floor >= 0 and scale > 0
    if profile == "paper":
        legal &= output != "float" and reciprocal != "norm" and not masked
        legal &= n is None or (n * offset <= 32767 and n * floor >= 256)
    elif output == "int16" and reciprocal != "norm":
        legal &= n is None or n * offset <= 32767
    elif output == "uint8" and reciprocal != "norm":
        legal &= offset >= 256 if masked else n is None or offset + (n - 1) * floor >= 256
    params = of(HeadParams(offset, slope, clip, scale), reciprocal=reciprocal, masked=masked)
    assert (params.violations(output, profile=profile, n=n) == ()) == legal


@given(
    offset=st.integers(1, 1000),
    drop=st.integers(0, 1000),
    n=st.integers(1, 300),
    unmasked=st.integers(1, 300),
    masked=st.booleans(),
)
@example(offset=256, drop=256, n=1, unmasked=1, masked=False)
@example(offset=100, drop=99, n=157, unmasked=157, masked=False)
def test_no_row_saturates_the_reciprocal_when_legal(
    offset: int, drop: int, n: int, unmasked: int, masked: bool
) -> None:
    """What the bounds are for: within them no narrowing to int16 ever changes a reciprocal, or makes it 0."""
    head = HeadParams(offset, min(drop, offset, 127), 1)
    params = of(head, reciprocal="div", masked=masked)
    seen = min(n, unmasked) if masked else n
    least, most = head.B + (seen - 1) * head.floor, seen * head.B
    if not params.violations("uint8", n=n):
        assert (255 << 15) // least <= 32767
        assert 255 << max(0, 15 - (least.bit_length() - 1)) <= 32767
    if not params.violations("int16", n=n):
        assert 32767 // most >= 1


def test_data_free_default_is_that_of_the_specification() -> None:
    assert (DATA_FREE.B, DATA_FREE.S, DATA_FREE.Dmax, DATA_FREE.floor) == (16259, 127, 127, 130)
    assert DATA_FREE.clip_range == pytest.approx(3.3)
    assert DATA_FREE.floor_ratio == pytest.approx(0.008, abs=1e-5)
    for output in OUTPUT_TYPES:
        assert of(DATA_FREE, masked=True).violations(output, n=65536, heads=12) == ()


@pytest.mark.parametrize("factor", [0.125, 1.0, 8.0])  # powers of two, for which dividing the logits is exact
@pytest.mark.parametrize("masked", [False, True])
def test_in_units_of_gives_the_same_probabilities_on_divided_logits(factor: float, masked: bool) -> None:
    params = of(HeadParams(16259, 127, 127, 0.03), HeadParams(300, 2, 100, 0.11), masked=masked, mask_gap=7.5)
    logits = np.random.default_rng(5).normal(0, 4, (2, 8, 33)).astype(np.float32)

    def apply(x: np.ndarray, form: HccsParams) -> np.ndarray:
        lists = {name: [getattr(head, name) for head in form.heads] for name in ("B", "S", "Dmax", "scale")}
        return hccs(x, np.float32, head_axis=0, masked=form.masked, mask_gap=form.mask_gap, **lists)

    expected = apply(logits, params)
    assert (expected == 0).any() == masked  # the mask takes part
    np.testing.assert_array_equal(apply(logits / np.float32(factor), params.in_units_of(factor)), expected)


def test_in_units_of_keeps_everything_that_has_no_unit() -> None:
    params = of(flat(300), head_axis=1, reciprocal="clb", masked=True, mask_gap=32.0)
    changed = params.in_units_of(4.0)
    assert changed == dataclasses.replace(params, heads=(HeadParams(300, 0, 1, 0.25),), mask_gap=8.0)
