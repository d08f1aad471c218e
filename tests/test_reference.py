"""`hccs_onnx.reference` against SPEC sections 2 and 3, written once more: row by row, in Python integers."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hccs_onnx.reference import _reciprocal, hccs

Array = np.ndarray[Any, Any]
f32 = np.float32

FORMS = list(itertools.product(["uint8", "int16"], ["div", "clb", "norm"]))
forms = pytest.mark.parametrize(("output", "reciprocal"), FORMS)
both_masks = pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])

# B, S, Dmax: every extreme, floors of 0 and 1, powers of two and their neighbours
HEADS = [
    (1, 0, 1),
    (255, 2, 127),
    (256, 0, 127),
    (300, 2, 100),
    (127, 1, 127),
    (128, 127, 1),
    (16129, 127, 127),
    (16259, 127, 127),
    (16384, 90, 5),
    (32767, 0, 1),
    (32767, 127, 127),
]


def slow_integer_row(
    x: Sequence[int], output: str, B: int, S: int, Dmax: int, reciprocal: str, masked: bool
) -> list[int]:
    """SPEC section 2, word by word."""
    seen = [not (masked and code == -128) for code in x]
    if not any(seen):
        return [0] * len(x)
    m = max(code for code, visible in zip(x, seen, strict=True) if visible)
    scores = [B - S * min(m - code, Dmax) if visible else 0 for code, visible in zip(x, seen, strict=True)]
    Z = sum(scores)
    k = Z.bit_length() - 1
    if reciprocal == "norm":
        rho = min(32767, (1 << (15 + k)) // Z)
        if output == "uint8":
            return [min(255, (s * rho + (1 << (k + 6))) >> (k + 7)) for s in scores]
        return [min(32767, (s * rho + ((1 << k) >> 1)) >> k) for s in scores]
    if output == "uint8":
        if reciprocal == "div":
            rho = min(32767, (255 << 15) // Z)
        else:
            rho = min(32767, 255 << (15 - k) if k <= 15 else 255 >> (k - 15))
        return [min(255, (s * rho) >> 15) for s in scores]
    if reciprocal == "div":
        return [s * (32767 // Z) for s in scores]
    return [min(32767, s * (32767 >> k)) for s in scores]


def slow_float_row(
    x: Sequence[np.float32], B: int, S: int, Dmax: int, scale: float, mask_gap: float | None
) -> list[Any]:
    """SPEC section 3, word by word; `mask_gap` is None where masked=0."""
    if any(np.isnan(value) or value == np.inf for value in x):
        return [f32(np.nan)] * len(x)
    m = max(x)
    if m == -np.inf:
        return [f32(0)] * len(x)
    scores = []
    for value in x:
        with np.errstate(over="ignore"):
            difference = f32(m - value)
            gap = float(difference / f32(scale))
        d = Dmax if gap > Dmax else round(gap)  # Python rounds half to even
        scores.append(0 if mask_gap is not None and difference > f32(mask_gap) else B - S * d)
    inverse = f32(1) / f32(sum(scores))
    return [f32(s) * inverse for s in scores]


def slow_hccs(
    x: Array,
    output: str,
    *,
    B: Sequence[int],
    S: Sequence[int],
    Dmax: Sequence[int],
    scale: Sequence[float] = (1.0,),
    head_axis: int = -3,
    reciprocal: str = "norm",
    masked: bool = False,
    mask_gap: float = 64.0,
) -> Array:
    """Row by row, the head of each from its index along `head_axis`."""
    y = np.zeros(x.shape, output)
    count = max(len(B), len(S), len(Dmax), len(scale))
    for index in np.ndindex(x.shape[:-1]):
        head = index[head_axis % x.ndim] % count if count > 1 else 0
        b, s, d, step = (values[head if len(values) > 1 else 0] for values in (B, S, Dmax, scale))
        if output == "float32":
            y[index] = slow_float_row(list(x[index]), b, s, d, step, mask_gap if masked else None)
        else:
            y[index] = slow_integer_row(x[index].tolist(), output, b, s, d, reciprocal, masked)
    return y


def assert_same(actual: Array, expected: Array) -> None:
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    if actual.dtype == f32:
        assert not np.signbit(actual[actual == 0]).any()


def check(x: Array, output: str, **parameters: Any) -> None:
    assert_same(hccs(x, output, **parameters), slow_hccs(x, output, **parameters))


def lists(heads: Sequence[Sequence[float]]) -> dict[str, list[Any]]:
    names = ("B", "S", "Dmax", "scale")
    return {name: [head[i] for head in heads] for i, name in enumerate(names[: len(heads[0])])}


codes = st.sampled_from([-128, -127, 127]) | st.integers(-128, 127)


@st.composite
def integer_heads(draw: st.DrawFn) -> tuple[int, int, int]:
    slope = draw(st.sampled_from([0, 127]) | st.integers(0, 127))
    clip = draw(st.sampled_from([1, 127]) | st.integers(1, 127))
    least = max(1, slope * clip)
    return draw(st.just(least) | st.integers(least, 32767)), slope, clip


@st.composite
def float_heads(draw: st.DrawFn) -> tuple[int, int, int, float]:
    scale = draw(st.sampled_from([0.25, 3.3 / 127, 1e-45, 3e38]) | st.floats(2.0**-149, 100.0, width=32))
    return (*draw(integer_heads()), scale)


finite_logits = st.integers(-40, 40).map(lambda i: f32(i) / f32(8)) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
)
logits = st.sampled_from([-np.inf, -3.4e38, -1e4, 0.0, 1e-45]).map(f32) | finite_logits
wild_logits = st.sampled_from([np.nan, np.inf, -np.inf]).map(f32) | logits


# Integer logits


@both_masks
@forms
def test_integer_rows_of_length_one_equal_slow_arithmetic(output: str, reciprocal: str, masked: bool) -> None:
    x = np.broadcast_to(np.arange(-128, 128, dtype=np.int8)[:, None], (len(HEADS), 256, 1))
    check(x, output, **lists(HEADS), reciprocal=reciprocal, masked=masked)


@both_masks
@forms
def test_all_integer_rows_of_length_two_equal_slow_arithmetic(output: str, reciprocal: str, masked: bool) -> None:
    """The slow side computes each gap once, and every pair with the mask code; the fast side all 65536 pairs."""
    first, second = (side.ravel() for side in np.meshgrid(np.arange(-128, 128), np.arange(-128, 128), indexing="ij"))
    pairs = np.stack([first, second], -1).astype(np.int8)
    actual = hccs(np.broadcast_to(pairs, (len(HEADS), *pairs.shape)), output, **lists(HEADS), reciprocal=reciprocal,
                  masked=masked)  # fmt: skip
    for head, result in zip(HEADS, actual, strict=True):
        rows = [(min(127, 127 + gap), min(127, 127 - gap)) for gap in range(-255, 256)]
        by_gap = np.array([slow_integer_row(row, output, *head, reciprocal, masked) for row in rows])
        expected = by_gap[first - second + 255]
        for index in np.flatnonzero((pairs == -128).any(axis=-1)):
            expected[index] = slow_integer_row(pairs[index].tolist(), output, *head, reciprocal, masked)
        np.testing.assert_array_equal(result, expected)


@both_masks
@forms
@given(data=st.data())
def test_integer_rows_equal_slow_arithmetic(output: str, reciprocal: str, masked: bool, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 70)), label="shape")
    x = data.draw(arrays(np.int8, shape, elements=codes), label="x")
    head = data.draw(integer_heads(), label="head")
    check(x, output, **lists([head]), reciprocal=reciprocal, masked=masked)


@both_masks
@forms
@pytest.mark.parametrize("head", [(32767, 127, 127), (16129, 127, 127), (1, 0, 1)], ids=str)
def test_integer_rows_of_length_65536_equal_slow_arithmetic(
    head: tuple[int, int, int], output: str, reciprocal: str, masked: bool
) -> None:
    x = np.random.default_rng(3).integers(-128, 128, (2, 65536)).astype(np.int8)
    x[1] = 127  # the largest row sum there is
    check(x, output, **lists([head]), reciprocal=reciprocal, masked=masked)


@forms
def test_integer_row_is_zero_when_all_is_masked(output: str, reciprocal: str) -> None:
    x = np.full((2, 5), -128, np.int8)
    x[1, 3] = -127
    y = hccs(x, output, B=[300], S=[2], Dmax=[100], reciprocal=reciprocal, masked=True)
    assert y[0].tolist() == [0] * 5
    assert y[1, 3] > 0 and y[1].sum() == y[1, 3]


@forms
@given(data=st.data())
def test_masked_positions_change_nothing_for_the_others(output: str, reciprocal: str, data: st.DataObject) -> None:
    x = data.draw(arrays(np.int8, st.integers(1, 30), elements=codes), label="x")
    parameters = {**lists([data.draw(integer_heads(), label="head")]), "reciprocal": reciprocal, "masked": True}
    y = hccs(x, output, **parameters)
    assert not y[x == -128].any()
    np.testing.assert_array_equal(y[x != -128], hccs(x[x != -128], output, **parameters))


@forms
@given(data=st.data())
def test_integer_row_is_unchanged_when_shifted(output: str, reciprocal: str, data: st.DataObject) -> None:
    x = data.draw(arrays(np.int8, st.integers(1, 30), elements=st.integers(-128, 0)), label="x")
    parameters = {**lists([data.draw(integer_heads(), label="head")]), "reciprocal": reciprocal}
    shifted = (x + np.int8(data.draw(st.integers(1, 127), label="shift"))).astype(np.int8)
    np.testing.assert_array_equal(hccs(shifted, output, **parameters), hccs(x, output, **parameters))


@forms
@given(data=st.data())
def test_integer_probabilities_rise_with_their_logits(output: str, reciprocal: str, data: st.DataObject) -> None:
    x = data.draw(arrays(np.int8, st.integers(2, 40), elements=codes), label="x")
    masked = data.draw(st.booleans(), label="masked")
    head = data.draw(integer_heads(), label="head")
    y = hccs(np.sort(x), output, **lists([head]), reciprocal=reciprocal, masked=masked)
    assert (np.diff(y.astype(int)) >= 0).all()


@given(data=st.data())
@pytest.mark.parametrize(("output", "one"), [("uint8", 256), ("int16", 32768)])
def test_norm_error_stays_within_its_bound(output: str, one: int, data: st.DataObject) -> None:
    """Rounding gives half a code, the floor in rho a relative error below 2^-14 and saturation at most one code."""
    x = data.draw(arrays(np.int8, st.integers(1, 200), elements=codes), label="x")
    B, S, Dmax = data.draw(integer_heads(), label="head")
    gap = x.max().astype(int) - x.astype(int)
    exact = B - S * np.minimum(gap, Dmax)
    exact = exact * one / exact.sum()
    y = hccs(x, output, B=[B], S=[S], Dmax=[Dmax])
    limit = 0.5 + exact / 2**14 + (exact > one - 1.5)
    assert (np.abs(y - exact) <= limit).all()
    assert abs(int(y.sum()) - one) <= x.size / 2 + one / 2**14 + 1


@pytest.mark.parametrize("output", ["uint8", "int16"])
def test_norm_reciprocal_keeps_fifteen_bits_for_every_row_sum(output: str) -> None:
    powers = 1 << np.arange(17, 32)
    total = np.concatenate([np.arange(1, 1 << 16), powers - 1, powers, powers + 1, [65536 * 32767]])
    rho, _, _ = _reciprocal(total, np.dtype(output), "norm")
    assert rho.min() == 1 << 14
    assert rho.max() == (1 << 15) - 1


def aie4ml_row(x: Sequence[int], output: str, B: int, S: int, Dmax: int, reciprocal: str) -> list[int]:
    """The published kernels' arithmetic at their own widths, in the arrangement of the tiled one (aie4ml 0.2.1)."""
    m = max(x)
    lowest = max(m - Dmax, -128)
    c = B - S * m
    raised = [max(code, lowest) for code in x]
    row_sum = ctypes.c_int32(len(x) * c + S * sum(raised)).value
    scores = [ctypes.c_int16(c + S * code).value for code in raised]
    if reciprocal == "div":
        inverse = (255 * 32768 if output == "uint8" else 32767) // row_sum
    else:
        leading = 31 - (32 - row_sum.bit_length())
        inverse = 255 << (15 - leading) if output == "uint8" else 32767 >> leading
    rho = ctypes.c_int16(ctypes.c_int32(inverse).value).value
    products = [ctypes.c_int32(score * rho).value for score in scores]
    if output == "uint8":
        return [max(0, min(255, product // 32768)) for product in products]
    return [max(-32768, min(32767, product)) for product in products]


@st.composite
def paper_rows(draw: st.DrawFn) -> tuple[Array, tuple[int, int, int]]:
    """A row and a head that are legal in profile 'paper': n*B <= 32767 and n*F >= 256."""
    n = draw(st.integers(1, 200))
    lowest, most = -(-256 // n), 32767 // n
    assume(lowest <= most)
    floor = draw(st.just(lowest) | st.integers(lowest, most))
    clip = draw(st.integers(1, 127))
    slope = draw(st.integers(0, min(127, (most - floor) // clip)))
    offset = floor + slope * clip
    return draw(arrays(np.int8, n, elements=codes)), (offset, slope, clip)


@pytest.mark.parametrize("reciprocal", ["div", "clb"])
@pytest.mark.parametrize("output", ["uint8", "int16"])
@given(case=paper_rows())
def test_div_and_clb_equal_aie4ml_when_legal_in_paper(
    output: str, reciprocal: str, case: tuple[Array, tuple[int, int, int]]
) -> None:
    row, head = case
    y = hccs(row, output, **lists([head]), reciprocal=reciprocal)
    assert y.tolist() == aie4ml_row(row.tolist(), output, *head, reciprocal)


# Heads and shapes


@pytest.mark.parametrize("axis", [0, 1, 2, -4, -3, -2])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_every_row_uses_its_own_head_on_any_axis_but_the_last(dtype: str, axis: int) -> None:
    rng = np.random.default_rng(11)
    shape = [2, 3, 2, 5]
    shape[axis] = 6  # twice as many as heads, as in [batch*heads, q, k]
    x = rng.integers(-20, 20, shape).astype(np.int8 if dtype != "float32" else f32)
    heads = lists([(300, 2, 100, 0.5), (16259, 127, 127, 0.1), (32767, 9, 7, 2.0)])
    check(x, dtype, **heads, head_axis=axis)


@pytest.mark.parametrize("long", [("B",), ("S",), ("Dmax",), ("scale",), ("B", "scale"), ("S", "Dmax")], ids="+".join)
def test_lists_of_one_entry_serve_all_heads(long: tuple[str, ...]) -> None:
    heads = lists([(300, 2, 100, 0.5), (32767, 1, 127, 0.1)])
    mixed = {name: values if name in long else values[:1] for name, values in heads.items()}
    x = np.random.default_rng(12).normal(0, 5, (2, 4, 3, 6)).astype(f32)
    check(x, "float32", **mixed, head_axis=1)


@given(data=st.data())
def test_tensors_equal_slow_arithmetic_whatever_heads_and_axes(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "int16", "float32"]), label="output")
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4), label="shape")
    axis = data.draw(st.integers(0, len(shape) - 2), label="head axis")
    count = data.draw(st.integers(1, 3), label="heads")
    shape[axis] *= count
    heads = data.draw(st.lists(float_heads(), min_size=count, max_size=count), label="parameters")
    elements, kind = (logits, f32) if dtype == "float32" else (codes, np.int8)
    x = data.draw(arrays(kind, tuple(shape), elements=elements), label="x")
    check(
        x,
        dtype,
        **lists(heads),
        head_axis=data.draw(st.sampled_from([axis, axis - len(shape)])),
        reciprocal=data.draw(st.sampled_from(["div", "clb", "norm"])),
        masked=data.draw(st.booleans()),
    )


@pytest.mark.parametrize("output", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("head_axis", [-3, -1, 0, 7])
def test_head_axis_is_not_looked_at_when_there_is_one_head(output: str, head_axis: int) -> None:
    x = np.array([3, 1, -5], f32 if output == "float32" else np.int8)
    check(x, output, B=[300], S=[2], Dmax=[100], head_axis=head_axis)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 3, 0)], ids=str)
@pytest.mark.parametrize("output", ["uint8", "int16", "float32"])
def test_result_is_empty_when_the_logits_are(output: str, shape: tuple[int, ...], masked: bool) -> None:
    heads = lists([(300, 2, 100), (400, 3, 100)]) if len(shape) == 4 else lists([(300, 2, 100)])
    y = hccs(np.zeros(shape, f32 if output == "float32" else np.int8), output, **heads, masked=masked)
    assert (y.shape, y.dtype) == (shape, np.dtype(output))


def test_logits_are_not_changed() -> None:
    x = np.array([[3.0, -np.inf, 1.0], [np.nan, 0.0, 0.0]], f32)
    before = x.copy()
    hccs(x, f32, B=[300], S=[2], Dmax=[100], masked=True)
    np.testing.assert_array_equal(x, before)


# Float logits


@both_masks
@given(data=st.data())
def test_float_rows_equal_slow_arithmetic(masked: bool, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 40)), label="shape")
    elements = data.draw(st.sampled_from([finite_logits, logits, wild_logits]), label="elements")
    x = data.draw(arrays(f32, shape, elements=elements), label="x")
    head = data.draw(float_heads(), label="head")
    mask_gap = data.draw(st.sampled_from([64.0, 0.3, 2.0**-149, np.inf]), label="mask_gap")
    check(x, "float32", **lists([head]), masked=masked, mask_gap=mask_gap)


@pytest.mark.parametrize(
    ("head", "masked"), [((32767, 127, 127, 0.03), True), ((16129, 127, 127, 0.2), False)], ids=["masked", ""]
)
def test_float_row_of_length_65536_equals_slow_arithmetic(head: tuple[int, int, int, float], masked: bool) -> None:
    x = np.random.default_rng(4).normal(0, 12, (1, 65536)).astype(f32)
    check(x, "float32", **lists([head]), masked=masked)


@pytest.mark.parametrize("n", [1, 3, 65536])
def test_float_row_is_flat_when_all_logits_are_equal(n: int) -> None:
    y = hccs(np.full(n, -3.5, f32), f32, B=[32767], S=[127], Dmax=[127], masked=True)
    assert_same(y, np.full(n, f32(32767) * (f32(1) / f32(32767 * n)), f32))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([np.nan, 0, 1], [np.nan] * 3),
        ([np.inf, 0, 1], [np.nan] * 3),
        ([np.inf, -np.inf, np.inf], [np.nan] * 3),
        ([-np.inf, np.nan, -np.inf], [np.nan] * 3),
        ([-np.inf, -np.inf, -np.inf], [0, 0, 0]),
        ([-3.4e38, -3.4e38, -3.4e38], [1 / 3, 1 / 3, 1 / 3]),
        ([0.0, -0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]),
        ([3e38, -3e38, 3e38], [0.5, 0, 0.5]),  # the gap overflows to infinity
        ([2.0, -np.inf, 2.0], [0.5, 0, 0.5]),
        ([5.0], [1.0]),
    ],
    ids=str,
)
def test_float_row_follows_softmax_when_special(row: list[float], expected: list[float]) -> None:
    y = hccs(np.array(row, f32), f32, B=[16129], S=[127], Dmax=[127], scale=[0.1], masked=True)
    assert_same(y, np.array(expected, f32))


def test_float_row_of_minus_infinity_keeps_the_floor_when_not_masked() -> None:
    y = hccs(np.array([0, -np.inf], f32), f32, B=[300], S=[2], Dmax=[100])
    assert_same(y, np.array([300, 100], f32) * (f32(1) / f32(400)))


@pytest.mark.parametrize(("gap", "code"), [(0.5, 0), (1.5, 2), (2.5, 2), (3.5, 4), (126.5, 126), (127.5, 127)])
def test_float_gap_rounds_half_to_even(gap: float, code: int) -> None:
    score = 20000 - 100 * code
    y = hccs(np.array([0, -gap], f32), f32, B=[20000], S=[100], Dmax=[127])
    assert_same(y, np.array([20000, score], f32) * (f32(1) / f32(20000 + score)))


@pytest.mark.parametrize(
    ("difference", "scale", "code"),
    [
        (0.35, 0.1, 4),  # the float32 quotient is 3.5, the exact one 3.4999999
        (0.85, 0.1, 8),  # 8.5, exactly 8.5000001
        (1.55, 0.1, 15),  # 15.499999, by multiplication with the reciprocal 15.5, which would give 16
        (8.25, 0.3, 27),  # 27.499998, by multiplication 27.5
    ],
)
def test_float_gap_is_one_float32_division(difference: float, scale: float, code: int) -> None:
    score = 20000 - 100 * code
    y = hccs(np.array([0, -difference], f32), f32, B=[20000], S=[100], Dmax=[127], scale=[scale])
    assert_same(y, np.array([20000, score], f32) * (f32(1) / f32(20000 + score)))


@pytest.mark.parametrize("mask_gap", [64.0, 0.1, 64.1, 1e30])  # 0.1 and 64.1 are not float32: their float32 counts
def test_float_position_is_masked_only_beyond_the_mask_gap(mask_gap: float) -> None:
    beyond = np.nextafter(f32(mask_gap), f32(np.inf))
    parameters = {"B": [200], "S": [1], "Dmax": [100], "mask_gap": mask_gap, "scale": [1e-30]}
    x = np.array([[0, -f32(mask_gap)], [0, -beyond]], f32)
    third = f32(1) / f32(300)
    kept, hidden = [f32(200) * third, f32(100) * third], [f32(1), f32(0)]
    assert_same(hccs(x, f32, **parameters, masked=True), np.array([kept, hidden], f32))
    assert_same(hccs(x, f32, **parameters, masked=False), np.array([kept, kept], f32))


@both_masks
@given(data=st.data())
def test_float_probabilities_sum_to_one_and_rise_with_their_logits(masked: bool, data: st.DataObject) -> None:
    x = data.draw(arrays(f32, st.integers(1, 60), elements=finite_logits), label="x")
    y = hccs(np.sort(x), f32, **lists([data.draw(float_heads(), label="head")]), masked=masked)
    assert abs(y.sum(dtype=np.float64) - 1) < 1e-5
    assert (np.diff(y) >= 0).all()


# What is refused


@pytest.mark.parametrize(
    ("logit_type", "output"),
    [
        ("int8", "float32"),
        ("int8", "int8"),
        ("uint8", "uint8"),
        ("float32", "uint8"),
        ("float64", "float32"),
        ("float16", "float16"),
        ("int16", "int16"),
    ],
)
def test_hccs_raises_when_there_is_no_such_type_pair(logit_type: str, output: str) -> None:
    with pytest.raises(TypeError, match=f"no {logit_type} to {output} form"):
        hccs(np.zeros((2, 3), logit_type), output, B=[300], S=[2], Dmax=[100])


def test_numbers_are_taken_for_lists_of_one() -> None:
    x = np.random.default_rng(0).normal(scale=40, size=(2, 3, 8))
    codes, lists = x.astype(np.int8), {"B": [300], "S": [2], "Dmax": [100]}
    np.testing.assert_array_equal(hccs(codes, np.uint8, B=300, S=2, Dmax=100), hccs(codes, np.uint8, **lists))
    logits = x.astype(np.float32)
    expected = hccs(logits, np.float32, **lists, scale=[0.5])
    np.testing.assert_array_equal(hccs(logits, np.float32, B=300, S=2, Dmax=100, scale=0.5), expected)


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((), {}, "rank >= 1"),
        ((2, 3), {"reciprocal": "exact"}, "unknown HCCS reciprocal 'exact'"),
        ((2, 3), {"B": [300, 300], "head_axis": 1}, "head_axis 1 is not an axis before the last of rank 2"),
        ((2, 3), {"B": [300, 300], "head_axis": -1}, "head_axis -1 is not"),
        ((2, 3), {"B": [300, 300]}, "head_axis -3 is not"),
        ((2, 3), {"B": [300, 300], "head_axis": 2}, "head_axis 2 is not"),
        ((3, 3), {"B": [300, 300], "head_axis": 0}, "head axis has size 3, needs a multiple of 2"),
        ((6, 3), {"B": [300, 300], "S": [1, 2, 3], "head_axis": 0}, r"shapes \[\(2,\), .*, needs \(1,\) or \(3,\)"),
        ((2, 3), {"B": []}, r"shapes \[\(0,\), \(1,\), \(1,\)\], needs \(1,\)$"),
        ((2, 3), {"B": [[300]]}, r"shapes \[\(1, 1\), "),
    ],
)
def test_hccs_raises_when_the_parameters_do_not_fit(
    shape: tuple[int, ...], changes: dict[str, Any], message: str
) -> None:
    parameters = {"B": [300], "S": [2], "Dmax": [100], **changes}
    with pytest.raises(ValueError, match=message):
        hccs(np.zeros(shape, np.int8), np.uint8, **parameters)
