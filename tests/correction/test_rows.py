"""Rows that are padding, told by what the float model attends to."""

from __future__ import annotations

import numpy as np
import pytest

from hccs_onnx.correction.rows import live_positions
from hccs_onnx.graph.attention import AttentionSoftmax

EVERY = np.ones((1, 4), bool)
LIVE = np.array([[True, True, True, False], [True, False, True, True]])
LOWEST = float(np.finfo(np.float32).min)


def item(heads: int | None = 3, self_attention: bool = True) -> AttentionSoftmax:
    return AttentionSoftmax("n", 0, "x", "p", "p", heads=heads, masked=True, self_attention=self_attention)


def logits(live: np.ndarray = LIVE, fill: float = -1e4) -> np.ndarray:
    """Shape (sample, head, query, key)."""
    samples, keys = live.shape
    return np.where(live[:, None, None], np.random.default_rng(0).normal(size=(samples, 3, keys, keys)), fill)


@pytest.mark.parametrize("heads", [3, None])
@pytest.mark.parametrize("fill", [-1e4, LOWEST, -np.inf])
def test_masked_keys_are_padding(fill: float, heads: int | None) -> None:
    np.testing.assert_array_equal(live_positions(item(heads), logits(fill=fill), (2, 4)), LIVE.ravel())


def test_rows_may_lie_position_by_position() -> None:
    np.testing.assert_array_equal(live_positions(item(), logits(), (4, 2)), LIVE.T.ravel())


def test_rows_lie_sample_by_sample_when_there_are_as_many_as_positions() -> None:
    live = np.tri(4, dtype=bool)
    np.testing.assert_array_equal(live_positions(item(), logits(live), (4, 4)), live.ravel())


def test_heads_may_be_folded_into_the_batch() -> None:
    np.testing.assert_array_equal(live_positions(item(), logits().reshape(6, 4, 4), (2, 4)), LIVE.ravel())


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1)])
def test_one_sample_may_have_any_layout(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(live_positions(item(), logits()[:1], shape), LIVE[0])


def test_causal_masks_leave_every_row() -> None:
    causal = np.where(np.tri(4, dtype=bool), logits(EVERY), -1e4)
    assert live_positions(item(), causal, (1, 4)).all()


@pytest.mark.parametrize("fill", [-1e4, LOWEST])
def test_rows_that_are_masked_throughout_are_padding_and_see_no_key(fill: float) -> None:
    live = np.array([False, False, True, True])  # padded in front, under a causal mask
    causal = np.where(np.tri(4, dtype=bool) & live, logits(EVERY), fill)
    np.testing.assert_array_equal(live_positions(item(), causal, (1, 4)), live)


@pytest.mark.parametrize("self_attention", [True, False])
def test_sample_of_masked_keys_only_does_not_count(self_attention: bool) -> None:
    x = logits(EVERY.repeat(2, axis=0))
    x[1] = -1e4
    rows = live_positions(item(self_attention=self_attention), x, (2, 4))
    np.testing.assert_array_equal(rows, [True] * 4 + [False] * 4)


def test_nothing_is_said_when_rows_cannot_be_told_apart() -> None:
    assert live_positions(item(), logits(), (8,)) is None
    assert live_positions(item(), logits()[:1], (5,)) is None
