"""Function body (onnxruntime and the ONNX evaluator), Python op, OpRun and NumPy agree bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import helper
from onnx.reference import ReferenceEvaluator
from operator_models import (
    IMPLEMENTATIONS,
    OPSETS,
    PROFILES,
    Array,
    Run,
    assert_same_bits,
    compute,
    legal_head,
    numpy_result,
    onnxruntime_opsets,
)

from hccs_onnx.operator.body import MIN_OPSET
from hccs_onnx.params import DATA_FREE, HccsParams, HeadParams, OutputType, Reciprocal

f32 = np.float32

profiles = pytest.mark.parametrize(("output", "reciprocal"), PROFILES)
implementations = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
both_masks = pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])


@cache
def evaluator_keeps_empty_shapes() -> bool:
    """onnx 1.16's evaluator gathers no rows into shape (0,), whatever the shape of the indices."""
    gather = ReferenceEvaluator(helper.make_node("Gather", ["x", "i"], ["y"]))
    (y,) = gather.run(None, {"x": np.zeros(1, f32), "i": np.zeros((0, 1), np.int64)})
    return bool(y.shape == (0, 1))


def check_all(run: Run, params: HccsParams, output: OutputType, x: Array) -> None:
    assert params.violations(output, n=x.shape[-1]) == ()
    expected = numpy_result(params, output, x)
    for implementation in IMPLEMENTATIONS:
        assert_same_bits(compute(implementation, run, params, output, x), expected)


def logits_from_codes(codes: Array, output: OutputType) -> Array:
    """The codes themselves, or float logits a quarter as large: half of them are ties for scale 0.5."""
    return codes.astype(f32) / f32(4) if output == "float" else codes.astype(np.int8)


# Rows of length one and two, all there are

SHORT_ROW_HEADS = (
    HeadParams(16129, 127, 127, 0.5),
    HeadParams(300, 2, 100, 0.5),
)  # legal up to n = 2, floors 0 and 100


@both_masks
@implementations
@pytest.mark.parametrize("n", [1, 2])
@profiles
def test_all_short_rows_agree(
    run: Run, output: OutputType, reciprocal: Reciprocal, n: int, implementation: str, masked: bool
) -> None:
    rows = np.stack(np.meshgrid(*[np.arange(-128, 128)] * n, indexing="ij"), -1).reshape(-1, n)
    x = np.ascontiguousarray(np.broadcast_to(logits_from_codes(rows, output), (2, *rows.shape)))
    params = HccsParams(SHORT_ROW_HEADS, head_axis=0, reciprocal=reciprocal, masked=masked, mask_gap=20.0)
    actual = compute(implementation, run, params, output, x)
    assert_same_bits(actual, numpy_result(params, output, x))


# Every opset


def mixed_batch(output: OutputType) -> Array:
    """Shape (2, 4, 3, 9): random rows, a row of one value, and where masked a row with little or nothing left."""
    rng = np.random.default_rng(8)
    codes = rng.integers(-128, 128, (2, 4, 3, 9))
    codes[:, :, 1] = codes[:, :, 1, :1]
    codes[0, :, 2] = -128
    codes[1, :, 2, 1:] = -128
    return logits_from_codes(codes, output)


SMALL_HEADS = (HeadParams(3000, 20, 127, 0.25), HeadParams(300, 2, 100, 0.3))


@both_masks
@pytest.mark.parametrize("optimise", [True, False], ids=["optimised", "as is"])
@pytest.mark.parametrize("opset", OPSETS)
@profiles
def test_body_agrees_in_onnxruntime_at_every_opset(
    run: Run, output: OutputType, reciprocal: Reciprocal, opset: int, optimise: bool, masked: bool
) -> None:
    if opset not in onnxruntime_opsets():
        pytest.skip(f"this onnxruntime does not know opset {opset}")
    params = HccsParams(SMALL_HEADS, reciprocal=reciprocal, masked=masked, mask_gap=30.0)
    x = mixed_batch(output)
    implementation = "function" if optimise else "function, not optimised"
    assert_same_bits(compute(implementation, run, params, output, x, opset=opset), numpy_result(params, output, x))


@both_masks
@pytest.mark.parametrize("opset", OPSETS)
@profiles
def test_body_agrees_in_the_evaluator_at_every_opset(
    run: Run, output: OutputType, reciprocal: Reciprocal, opset: int, masked: bool
) -> None:
    params = HccsParams(SMALL_HEADS, reciprocal=reciprocal, masked=masked, mask_gap=30.0)
    x = mixed_batch(output)
    actual = compute("evaluated body", run, params, output, x, opset=opset)
    assert_same_bits(actual, numpy_result(params, output, x))


def test_both_ends_of_the_opset_range_run_in_onnxruntime() -> None:
    assert {MIN_OPSET, 17} <= set(onnxruntime_opsets())


# Anything legal

codes = st.sampled_from([-128, -127, 127]) | st.integers(-128, 127)
logits = (
    st.sampled_from([np.nan, np.inf, -np.inf, -3.4e38, -1e4, 0.0, 2.0**-149]).map(f32)
    | st.integers(-60, 60).map(lambda i: f32(i) / f32(8))
    | st.integers(-60, 60).map(lambda i: f32(i) / f32(8))
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
)


@profiles
@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=30,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking opens thousands of sessions
)
def test_any_tensor_agrees(run: Run, output: OutputType, reciprocal: Reciprocal, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=0, max_size=4), label="leading axes")
    shape.append(data.draw(st.integers(1, 40), label="n"))
    count = data.draw(st.integers(1, 3), label="heads") if len(shape) > 1 else 1
    axis = data.draw(st.integers(0, len(shape) - 2), label="head axis") if count > 1 else 0
    shape[axis] *= count
    head = legal_head(output, reciprocal, shape[-1])
    params = HccsParams(
        tuple(data.draw(st.lists(head, min_size=count, max_size=count), label="parameters")),
        head_axis=data.draw(st.sampled_from([axis, axis - len(shape)]), label="as written"),
        reciprocal=reciprocal,
        masked=data.draw(st.booleans(), label="masked"),
        mask_gap=data.draw(st.sampled_from([64.0, 0.3, 2.0**-149, 1e38]), label="mask_gap"),
    )
    dtype, elements = (f32, logits) if output == "float" else (np.int8, codes)
    check_all(run, params, output, data.draw(arrays(dtype, tuple(shape), elements=elements), label="x"))


# Extremes


def extreme_heads(output: OutputType, reciprocal: Reciprocal, n: int) -> tuple[HeadParams, ...]:
    bounded = output != "float" and reciprocal != "norm"
    highest = 32767 // n if bounded and output == "int16" else 32767
    lowest = 256 if bounded and output == "uint8" else 1
    steep = min(127, highest)
    return (
        HeadParams(lowest, 0, 1, 2.0**-149),
        HeadParams(lowest, 1, 1, 0.5),
        HeadParams(highest, 0, 127, 1.0),
        HeadParams(highest, steep, 1, 3e38),
        HeadParams(max(lowest, steep * (highest // steep)), steep, min(127, highest // steep), 0.25),
        HeadParams(highest, steep, min(127, highest // steep), 1e-38),
    )


@both_masks
@profiles
def test_extremes_of_all_parameters_agree(run: Run, output: OutputType, reciprocal: Reciprocal, masked: bool) -> None:
    x = np.random.default_rng(9).integers(-128, 128, (3, 12, 4, 17))
    x[..., :5] = np.random.default_rng(10).choice([-128, -127, 127], (3, 12, 4, 5))
    x[0, :, 0] = -128
    x[1, :, 0] = 127
    heads = extreme_heads(output, reciprocal, 17)
    assert len(set(heads)) == 6
    params = HccsParams(heads, head_axis=1, reciprocal=reciprocal, masked=masked, mask_gap=40.0)
    check_all(run, params, output, logits_from_codes(x, output))


@both_masks
@profiles
def test_longest_rows_agree(run: Run, output: OutputType, reciprocal: Reciprocal, masked: bool) -> None:
    bounded = output == "int16" and reciprocal != "norm"  # n*B <= 32767
    n, head = (32767, HeadParams(1, 0, 1)) if bounded else (65536, HeadParams(32767, 127, 127, 0.25))
    x = np.random.default_rng(2).integers(-128, 128, (4, n))
    x[1], x[2] = 127, -128  # the largest row sum, and nothing where masked
    x[3, 1:] = -128
    params = HccsParams((head,), reciprocal=reciprocal, masked=masked, mask_gap=30.0)
    check_all(run, params, output, logits_from_codes(x, output))


def rows_with_sums(sums: Sequence[int]) -> tuple[Array, tuple[HeadParams, ...]]:
    """For each sum a row of scores B and B - 1, padded with the mask code, and its head."""
    lengths = [total // 32767 + 1 for total in sums]
    heads = tuple(HeadParams(-(-total // n), 1, 1) for total, n in zip(sums, lengths, strict=True))
    x = np.full((len(sums), max(lengths)), -128, np.int8)
    for row, head, total, n in zip(x, heads, sums, lengths, strict=True):
        row[:n] = 5
        row[: n * head.B - total] = 4
    return x, heads


@pytest.mark.parametrize("implementation", ["function", "function, not optimised", "evaluated body"])
@pytest.mark.parametrize(("output", "reciprocal"), [("int16", "norm"), ("int16", "clb")])
@pytest.mark.parametrize("exponents", [range(1, 23), range(23, 31)], ids=["small", "large"])
def test_body_finds_the_power_of_two_below_any_row_sum(
    run: Run, output: OutputType, reciprocal: Reciprocal, exponents: Sequence[int], implementation: str
) -> None:
    """Float logarithms are off by one next to powers of two; the body puts them right, also beyond the legal sums."""
    x, heads = rows_with_sums([(1 << k) + offset for k in exponents for offset in (-1, 0, 1)])
    params = HccsParams(heads, head_axis=0, reciprocal=reciprocal, masked=True)
    actual = compute(implementation, run, params, output, x)
    assert_same_bits(actual, numpy_result(params, output, x))


SPECIAL_ROWS = [
    [np.nan, 0, 1],
    [np.nan, np.nan, np.nan],
    [np.inf, 0, 1],
    [np.inf, np.inf, -np.inf],
    [np.inf, np.nan, -np.inf],
    [-np.inf, -np.inf, -np.inf],
    [-np.inf, np.nan, -np.inf],
    [-np.inf, 0, -np.inf],
    [3e38, -3e38, -np.inf],
    [-3.4e38, -3.4e38, -3.4e38],
    [0.0, -0.0, 0.0],
    [2.0**-149, 0, -(2.0**-149)],
]


@both_masks
@implementations
@pytest.mark.parametrize("scale", [2.0**-149, 1.0, 3e38], ids=["denormal scale", "", "large scale"])
def test_special_float_rows_agree(run: Run, implementation: str, scale: float, masked: bool) -> None:
    params = HccsParams((HeadParams(16129, 127, 127, scale),), masked=masked)
    x = np.array(SPECIAL_ROWS, f32)
    assert_same_bits(compute(implementation, run, params, "float", x), numpy_result(params, "float", x))


@both_masks
@implementations
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 3.4e38, 0.0], ids=str)
@pytest.mark.parametrize("shape", [(1,), (1, 1, 1, 1), (3, 1)], ids=str)
def test_rows_of_one_special_value_agree(
    run: Run, implementation: str, special: float, shape: tuple[int, ...], masked: bool
) -> None:
    """Tensors of one element take a path of their own in onnxruntime's element-wise operators."""
    params = HccsParams((HeadParams(16129, 127, 127, 0.5),), masked=masked)
    x = np.full(shape, special, f32)
    assert_same_bits(compute(implementation, run, params, "float", x), numpy_result(params, "float", x))


@both_masks
@implementations
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("rest", [-np.inf, 0.0], ids=["of -inf", "finite"])
def test_special_value_acts_alike_wherever_it_lies_in_a_long_row(
    run: Run, implementation: str, special: float, rest: float, masked: bool
) -> None:
    """Vectorised maxima treat NaN by its position."""
    x = np.full((67, 67), rest, f32)
    np.fill_diagonal(x, special)
    params = HccsParams((DATA_FREE,), masked=masked)
    assert_same_bits(compute(implementation, run, params, "float", x), numpy_result(params, "float", x))


@implementations
@pytest.mark.parametrize("mask_gap", [64.0, 0.1])
def test_mask_gap_boundary_agrees(run: Run, implementation: str, mask_gap: float) -> None:
    beyond = np.nextafter(f32(mask_gap), f32(np.inf))
    x = np.array([[0, -f32(mask_gap)], [0, -beyond]], f32)
    params = HccsParams((HeadParams(200, 1, 100, 1e-3),), masked=True, mask_gap=mask_gap)
    y = compute(implementation, run, params, "float", x)
    assert y[0, 1] > 0
    assert y[1].tolist() == [1, 0]


@implementations
@pytest.mark.parametrize("long", [("B",), ("S",), ("Dmax",), ("scale",), ("B", "scale")], ids="+".join)
def test_lists_of_one_entry_beside_longer_ones_agree(run: Run, implementation: str, long: tuple[str, ...]) -> None:
    heads = (HeadParams(3000, 9, 100, 0.25), HeadParams(3001, 8, 60, 0.5))
    params = HccsParams(tuple(replace(heads[0], **{k: getattr(head, k) for k in long}) for head in heads), head_axis=1)
    x = np.random.default_rng(1).normal(0, 9, (2, 4, 3, 6)).astype(f32)
    actual = compute(implementation, run, params, "float", x, short={"B", "S", "Dmax", "scale"} - set(long))
    assert_same_bits(actual, numpy_result(params, "float", x))


@implementations
@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 3, 0)], ids=str)
@pytest.mark.parametrize("output", ["float", "uint8", "int16"])
def test_empty_tensors_agree(run: Run, output: OutputType, shape: tuple[int, ...], implementation: str) -> None:
    rows = int(np.prod(shape[:-1]))
    if implementation == "evaluated body" and rows == 0 and not evaluator_keeps_empty_shapes():
        pytest.skip("this onnx evaluator loses the shape of empty tensors")
    if implementation == "function, not optimised" and shape == (0,) and ort.__version__.startswith("1.17."):
        pytest.skip("onnxruntime 1.17 gives the maximum of an empty vector the buffer of the vector")
    params = HccsParams(SMALL_HEADS if len(shape) == 4 else SMALL_HEADS[:1], masked=True)
    x = np.zeros(shape, f32 if output == "float" else np.int8)
    y = compute(implementation, run, params, output, x)
    assert_same_bits(y, numpy_result(params, output, x))
