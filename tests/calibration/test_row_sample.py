"""The row sample: bounded, uniform by hash, and the same whatever the order, split or merge of the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx.calibration.row_sample import ELEMENTS, LEAST_ROWS, RowSample, row_hashes


def logits(seed: int, batch: int = 3, heads: int = 2, n: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 4, (batch, heads, n, n)).astype(np.float32)


def sample_of(*batches: np.ndarray, masked: bool = False) -> RowSample:
    sample = RowSample.empty(heads=batches[0].shape[1])
    for batch in batches:
        sample.add(batch, masked=masked, self_attention=False)
    return sample


def assert_same(one: RowSample, other: RowSample) -> None:
    assert one.longest == other.longest
    np.testing.assert_array_equal(one.highest, other.highest)
    np.testing.assert_array_equal(one.lowest, other.lowest)
    for head in range(len(one.rows)):
        np.testing.assert_array_equal(one.matrix(head), other.matrix(head))


@given(st.permutations(range(4)), st.integers(0, 4))
def test_sample_is_the_same_for_any_order_and_split(order: list[int], cut: int) -> None:
    batches = [logits(seed, n=n) for seed, n in enumerate((16, 16, 40, 8))]
    together = sample_of(*batches)
    shuffled = [batches[i] for i in order]
    parts = [sample_of(*part) for part in (shuffled[:cut], shuffled[cut:]) if part]
    assert_same(sum(parts[1:], start=parts[0]), together)


def test_sample_is_the_same_for_any_order_when_it_overflows() -> None:
    batches = [logits(seed, batch=1, heads=1, n=256) for seed in range(4)]
    together, reverse = sample_of(*batches), sample_of(*batches[::-1])
    assert len(together.rows[0]) == together.capacity == ELEMENTS // 256
    assert_same(together, reverse)
    assert_same(sample_of(*batches[:1]) + sample_of(*batches[1:]), together)


def test_sample_shrinks_when_longer_rows_come() -> None:
    sample = sample_of(logits(0, batch=40, heads=1, n=16))
    before = len(sample.rows[0])
    sample.add(logits(1, batch=1, heads=1, n=4096), masked=False, self_attention=False)
    assert len(sample.rows[0]) == LEAST_ROWS < before


def test_sample_is_the_same_for_any_order_when_rows_of_one_feed_are_equal() -> None:
    long = logits(1, batch=1, heads=1, n=2048)
    repeated = np.repeat(logits(0, batch=1, heads=1, n=16), 40, axis=2)  # of each row more than are kept of long rows
    assert_same(sample_of(long, repeated), sample_of(repeated, long))
    assert len(sample_of(repeated, long).rows[0]) == LEAST_ROWS


def test_sample_keeps_equal_rows_once() -> None:
    batch = logits(0)
    assert_same(sample_of(batch, batch), sample_of(batch))


def test_sample_is_spread_over_all_data() -> None:
    ramp = np.arange(512)[:, None] * 1e-3 + np.arange(64) * 1e-6  # 512 rows of 64 keys, all different
    batches = [(ramp + index * 100).astype(np.float32)[None, None] for index in range(8)]
    maxima = sample_of(*batches).matrix(0).max(axis=-1)
    counts = np.histogram(maxima, bins=np.arange(-50, 800, 100))[0]
    assert (counts > ELEMENTS // 64 / 8 / 2).all()  # no batch has less than half its share


def test_masked_keys_and_rows_are_left_out() -> None:
    batch = logits(0, batch=1, heads=1)
    batch[..., 12:] = -1e4
    batch[0, 0, 3] = -1e4
    matrix = sample_of(batch, masked=True).matrix(0)
    assert matrix.shape == (15, 16)
    assert np.isneginf(matrix[:, 12:]).all()
    assert np.isfinite(matrix[:, :12]).all()


def test_shorter_rows_end_in_nan() -> None:
    sample = sample_of(logits(0, n=8), logits(1, n=16))
    lengths = {int(row.sum()) for row in ~np.isnan(sample.matrix(1))}
    assert lengths == {8, 16}


def test_pooled_sample_holds_the_rows_of_all_heads() -> None:
    sample = sample_of(logits(0))
    assert len(sample.pooled().rows) == 1
    assert set(sample.pooled().rows[0]) == set(sample.rows[0]) | set(sample.rows[1])
    assert sample.pooled().highest == sample.highest.max()
    assert sample.pooled().lowest == sample.lowest.min()


def test_hashes_tell_rows_apart() -> None:
    rows = logits(0, batch=50, heads=1, n=32).reshape(-1, 32)
    assert len(set(row_hashes(rows).tolist())) == len(rows)
    assert row_hashes(rows[:1, ::-1])[0] != row_hashes(rows[:1])[0]  # places count
    assert row_hashes(np.append(rows[0], 0.0).astype(np.float32)[None])[0] != row_hashes(rows[:1])[0]  # and lengths


@pytest.mark.parametrize("bit", range(0, 64, 7))
def test_hashes_have_even_bits(bit: int) -> None:
    rows = logits(3, batch=200, heads=1, n=16).reshape(-1, 16)
    ones = float((((row_hashes(rows) >> np.uint64(bit)) & np.uint64(1)) == 1).mean())
    assert 0.45 < ones < 0.55
