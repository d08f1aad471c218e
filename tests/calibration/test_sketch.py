"""Sketches: sums of parts equal the whole, what is masked never enters, and KL from them equals KL from all rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx.calibration.fit import fit_heads, mean_kl
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.params import DATA_FREE, HeadParams
from hccs_onnx.reference import hccs

MASKS = [-1e4, -65504.0, -3.4e38, -np.inf]


def sketch_of(logits: np.ndarray, heads: int = 1, masked: bool = False, self_attention: bool = False) -> Sketch:
    sketch = Sketch.empty(heads)
    sketch.add(logits, masked=masked, self_attention=self_attention)
    return sketch


def assert_equal(one: Sketch, other: Sketch, leave_out: Sequence[str] = ()) -> None:
    for field in fields(Sketch):
        if field.name not in leave_out:
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def size(sketch: Sketch) -> int:
    return sum(np.asarray(getattr(sketch, field.name)).nbytes for field in fields(Sketch))


@st.composite
def logit_arrays(draw: st.DrawFn, heads: int = 2) -> np.ndarray:
    """Logits (batch, head, query, key) as float32, from flat to sharp, also with masked keys."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 4)), heads, draw(st.integers(1, 6)), draw(st.integers(1, 20)))
    logits = rng.normal(0, draw(st.sampled_from([0.0, 0.1, 1.0, 4.0, 12.0])), shape)
    hidden = rng.random((shape[0], 1, 1, shape[-1])) < draw(st.sampled_from([0.0, 0.0, 0.4]))
    return (logits + np.where(hidden, draw(st.sampled_from(MASKS[:3])), 0.0)).astype(np.float32)


def softmax_kl(rows: np.ndarray, head: HeadParams, masked: bool = False) -> float:
    """Mean KL(softmax || HCCS) over float32 rows, with the exact operator."""
    y = hccs(rows, np.float32, B=[head.B], S=[head.S], Dmax=[head.Dmax], scale=[head.scale], masked=masked)
    q = y.astype(np.float64)
    p = np.exp((rows - rows.max(-1, keepdims=True)).astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    q /= q.sum(-1, keepdims=True)
    live = p > 1e-30
    return float(np.where(live, p * np.log(np.where(live, p, 1) / np.where(live, q, 1)), 0).sum(-1).mean())


def assert_kl_close(sketched: float, exact: float) -> None:
    assert abs(sketched - exact) <= max(0.01 * exact, 1e-4)


# --- merging -------------------------------------------------------------------------------------------------------


@given(st.lists(logit_arrays(), min_size=1, max_size=4), st.booleans(), st.booleans(), st.data())
def test_sum_of_sketches_equals_sketch_of_all_in_any_order(
    batches: list[np.ndarray], masked: bool, self_attention: bool, data: st.DataObject
) -> None:
    whole = Sketch.empty(2)
    for batch in batches:
        whole.add(batch, masked=masked, self_attention=self_attention)
    parts = [part[None] for batch in batches for part in batch]
    shuffled = data.draw(st.permutations(parts))
    sketches = [sketch_of(part, 2, masked, self_attention) for part in shuffled]
    assert_equal(reduce(add, sketches), whole)
    cut = data.draw(st.integers(0, len(sketches)))  # merged in another grouping
    left, right = reduce(add, sketches[:cut], Sketch.empty(2)), reduce(add, sketches[cut:], Sketch.empty(2))
    assert_equal(right + left, whole)


@given(logit_arrays(heads=1), st.booleans(), st.data())
def test_rows_may_be_split_anywhere_when_no_query_is_padding(
    logits: np.ndarray, masked: bool, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(logits.shape[2])))
    sketches = [sketch_of(logits[:, :, [row]], masked=masked) for row in order]
    assert_equal(reduce(add, sketches), sketch_of(logits, masked=masked))


@given(logit_arrays(), logit_arrays())
def test_adding_changes_neither_sketch(one: np.ndarray, other: np.ndarray) -> None:
    first, second = sketch_of(one, 2), sketch_of(other, 2)
    total = first + second
    assert_equal(first, sketch_of(one, 2))
    assert_equal(second, sketch_of(other, 2))
    assert total.rows.sum() == first.rows.sum() + second.rows.sum()
    assert total.longest == max(one.shape[-1], other.shape[-1])


@given(logit_arrays(heads=3), st.booleans())
def test_pooled_equals_the_sketch_of_all_heads_as_one(logits: np.ndarray, masked: bool) -> None:
    one_head = logits.reshape(-1, 1, *logits.shape[2:])
    assert_equal(sketch_of(logits, 3, masked).pooled(), sketch_of(one_head, 1, masked))


@given(logit_arrays(heads=3))
def test_heads_are_kept_apart(logits: np.ndarray) -> None:
    sketch = sketch_of(logits, 3)
    for head in range(3):
        alone = sketch_of(logits[:, head : head + 1])
        for field in fields(Sketch):
            if field.name != "longest":
                np.testing.assert_array_equal(getattr(sketch, field.name)[[head]], getattr(alone, field.name))


@given(logit_arrays(heads=3))
def test_heads_are_told_apart_when_batch_and_heads_share_an_axis(logits: np.ndarray) -> None:
    assert_equal(sketch_of(logits.reshape(-1, *logits.shape[2:]), 3), sketch_of(logits, 3))


@pytest.mark.parametrize("shape", [(7,), (5, 7)])
def test_logits_have_one_head_when_their_rank_is_below_three(shape: tuple[int, ...]) -> None:
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert_equal(sketch_of(logits), sketch_of(logits.reshape(1, 1, -1, 7)))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_logits_of_other_float_types_count_alike(dtype: type) -> None:
    logits = np.random.default_rng(0).normal(size=(1, 1, 5, 7)).astype(np.float16)
    assert_equal(sketch_of(logits.astype(dtype)), sketch_of(logits.astype(np.float32)))


def test_sketch_has_the_same_size_whatever_the_data() -> None:
    rng = np.random.default_rng(0)
    sketch = Sketch.empty(2)
    before = size(sketch)
    for shape in ((1, 2, 1, 1), (3, 2, 50, 200), (1, 2, 2, 5000)):
        sketch.add(rng.normal(0, 5, shape).astype(np.float32), masked=True, self_attention=False)
        assert size(sketch) == before
    assert size(sketch + sketch) == before
    assert sketch.rows.tolist() == [153, 153]
    assert sketch.longest == 5000


# --- masks ---------------------------------------------------------------------------------------------------------


def padded(logits: np.ndarray, extra: int, mask: float, rng: np.random.Generator) -> np.ndarray:
    """Logits with `extra` masked keys behind (their logits are anything), the mask added as models do."""
    hidden = rng.normal(0, 3, (*logits.shape[:-1], extra)).astype(np.float32)
    with np.errstate(over="ignore"):
        return np.concatenate([logits, hidden + np.float32(mask)], axis=-1)


@given(logit_arrays(), st.integers(1, 9), st.sampled_from(MASKS), st.integers(0, 99))
def test_masked_keys_never_enter(logits: np.ndarray, extra: int, mask: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    long = padded(logits, extra, mask, rng)
    order = rng.permutation(long.shape[-1])  # wherever they are
    sketch = sketch_of(long[..., order], 2, masked=True)
    assert_equal(sketch, sketch_of(logits[..., order[order < logits.shape[-1]]], 2, masked=True), ["longest"])
    assert sketch.longest == long.shape[-1]


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from(MASKS), st.integers(0, 99), st.booleans())
def test_padded_queries_never_enter_when_attention_is_to_itself(
    length: int, extra: int, mask: float, seed: int, before: bool
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (2, 2, length + extra, length)).astype(np.float32)
    long = padded(logits, extra, mask, rng)
    live = slice(0, length)
    if before:  # padding on the left
        long, live = long[..., ::-1, ::-1], slice(extra, None)
    sketch = sketch_of(long, 2, masked=True, self_attention=True)
    assert_equal(sketch, sketch_of(long[..., live, live], 2, masked=True), ["longest"])
    assert sketch.rows.tolist() == [2 * length] * 2


@pytest.mark.parametrize("mask", MASKS)
def test_padded_queries_never_enter_when_the_mask_is_causal_too(mask: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (1, 1, 8, 8)).astype(np.float32)
    hidden = np.triu(np.ones((8, 8), bool), 1)
    hidden[:, :3] = True  # padding on the left: the first three rows see nothing at all
    with np.errstate(over="ignore"):
        long = logits + np.where(hidden, np.float32(mask), np.float32(0))
    sketch = sketch_of(long, masked=True, self_attention=True)
    assert_equal(sketch, sketch_of(long[..., 3:, 3:], masked=True), ["longest"])
    assert sketch.rows.tolist() == [5]


def test_padded_queries_count_when_queries_are_of_another_sequence() -> None:
    long = padded(np.zeros((1, 1, 4, 2), np.float32), 2, -1e4, np.random.default_rng(0))
    assert sketch_of(long, masked=True, self_attention=False).rows.tolist() == [4]


def test_samples_are_judged_one_by_one_when_their_padding_differs() -> None:
    rng = np.random.default_rng(0)
    short, long = (rng.normal(size=(1, 1, n, n)).astype(np.float32) for n in (3, 5))
    wide = np.full((1, 1, 5, 5), -1e4, np.float32)
    wide[..., :3] = rng.normal(size=(5, 3))
    wide[..., :3, :3] = short
    both = sketch_of(np.concatenate([wide, long]), masked=True, self_attention=True)
    assert_equal(both, sketch_of(short) + sketch_of(long), ["longest"])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("self_attention", [True, False])
def test_fully_masked_rows_never_enter(mask: float, self_attention: bool) -> None:
    dead = np.full((1, 1, 3, 3), mask, np.float32)
    assert sketch_of(dead, masked=True, self_attention=self_attention).rows.tolist() == [0]
    alive = np.random.default_rng(0).normal(size=(1, 1, 3, 3)).astype(np.float32)
    both = sketch_of(np.concatenate([dead, alive]), masked=True, self_attention=self_attention)
    assert_equal(both, sketch_of(alive, masked=True, self_attention=self_attention))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("masked", [True, False])
def test_rows_that_are_not_finite_never_enter(value: float, masked: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(1, 1, 4, 6)).astype(np.float32)
    spoiled = rows.copy()
    spoiled[0, 0, 1, 2] = value
    assert_equal(sketch_of(spoiled, masked=masked), sketch_of(rows[:, :, [0, 2, 3]], masked=masked))


@pytest.mark.parametrize("masked", [True, False])
def test_rows_of_minus_infinity_never_enter(masked: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(1, 1, 2, 6)).astype(np.float32)
    dead = np.full((1, 1, 1, 6), -np.inf, np.float32)
    assert_equal(sketch_of(np.concatenate([rows, dead], axis=2), masked=masked), sketch_of(rows, masked=masked))


def test_minus_infinity_counts_as_a_key_at_the_floor_when_nothing_is_masked() -> None:
    row = np.array([[[[0.0, -1.0, -np.inf]]]], np.float32)
    far = np.array([[[[0.0, -1.0, -1000.0]]]], np.float32)
    assert_equal(sketch_of(row), sketch_of(far))


# --- KL ------------------------------------------------------------------------------------------------------------

SPREADS = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0]


@pytest.mark.parametrize("n", [2, 16, 128, 512])
@pytest.mark.parametrize("spread", SPREADS)
def test_kl_equals_kl_from_all_rows(spread: float, n: int) -> None:
    rows = np.random.default_rng(n).normal(0, spread, (max(200, 4000 // n), n)).astype(np.float32)
    sketch = sketch_of(rows[None, None])
    for head in (*fit_heads(sketch), DATA_FREE, HeadParams(20000, 100, 127, 6 / 127), HeadParams(32767, 64, 127, 0.01)):
        assert_kl_close(mean_kl(sketch, [head])[0], softmax_kl(rows, head))


@given(st.sampled_from(SPREADS), st.integers(1, 64), st.floats(0.5, 30), st.floats(0.001, 0.9), st.integers(0, 999))
def test_kl_is_near_kl_from_all_rows_for_any_parameters(
    spread: float, n: int, clip: float, ratio: float, seed: int
) -> None:
    rows = np.random.default_rng(seed).normal(0, spread, (max(100, 2000 // n), n)).astype(np.float32)
    slope = min(127, int(32767 * (1 - ratio) / 127))
    head = HeadParams(min(32767, round(slope * 127 / (1 - ratio))), slope, 127, clip / 127)
    exact = softmax_kl(rows, head)
    assert abs(mean_kl(sketch_of(rows[None, None]), [head])[0] - exact) <= max(0.01 * exact, 5e-4)  # few rows


@pytest.mark.parametrize("mask", MASKS)
def test_kl_equals_kl_from_all_rows_when_keys_are_masked(mask: float) -> None:
    rng = np.random.default_rng(0)
    rows = padded(rng.normal(0, 2, (1, 1, 200, 40)).astype(np.float32), 30, mask, rng)
    sketch = sketch_of(rows, masked=True)
    head = fit_heads(sketch)[0]
    assert_kl_close(mean_kl(sketch, [head])[0], softmax_kl(rows[0, 0], head, masked=True))


def test_kl_equals_kl_from_all_rows_when_heads_and_lengths_differ() -> None:
    rng = np.random.default_rng(0)
    sketch, rows = Sketch.empty(3), []
    for n in (3, 20, 70):
        logits = (rng.normal(0, 1, (2, 3, n, n)) * np.array([0.5, 2, 6])[:, None, None]).astype(np.float32)
        sketch.add(logits, masked=False, self_attention=True)
        rows.append(logits)
    heads = fit_heads(sketch)
    for head in range(3):
        weights = [logits.shape[0] * logits.shape[2] for logits in rows]
        exact = [softmax_kl(logits[:, head].reshape(-1, logits.shape[-1]), heads[head]) for logits in rows]
        assert_kl_close(mean_kl(sketch, heads)[head], float(np.average(exact, weights=weights)))


@pytest.mark.parametrize("spread", [20.0, 30.0, 100.0])
def test_kl_equals_kl_from_all_rows_when_gaps_exceed_the_mask_gap(spread: float) -> None:
    rows = np.random.default_rng(0).normal(0, spread, (5000, 32)).astype(np.float32)
    sketch = sketch_of(rows[None, None])
    head = fit_heads(sketch)[0]
    exact = softmax_kl(rows, head)
    assert_kl_close(mean_kl(sketch, [head])[0], exact)
    assert exact < softmax_kl(rows, DATA_FREE) + 1e-4
