"""Rows that are padding, told by what the float model attends to."""

from __future__ import annotations

import numpy as np
import pytest

from hccs_onnx.correction.rows import live_positions
from hccs_onnx.graph.attention import AttentionSoftmax

LIVE = np.array([[True, True, True, False], [True, False, True, True]])


def item(heads: int | None = 3) -> AttentionSoftmax:
    return AttentionSoftmax("n", 0, "x", "p", "p", heads=heads, masked=True, self_attention=True)


def probabilities(heads: int = 3) -> np.ndarray:
    """Shape (sample, head, query, key)."""
    weights = np.where(LIVE[:, None, None, :], np.random.default_rng(0).uniform(0.1, 1, (2, heads, 4, 4)), 0.0)
    return weights / weights.sum(axis=-1, keepdims=True)


def test_masked_keys_are_padding() -> None:
    np.testing.assert_array_equal(live_positions(item(), probabilities(), (2, 4)), LIVE.ravel())


def test_rows_may_lie_position_by_position() -> None:
    np.testing.assert_array_equal(live_positions(item(), probabilities(), (4, 2)), LIVE.T.ravel())


def test_heads_may_be_folded_into_the_batch() -> None:
    np.testing.assert_array_equal(live_positions(item(), probabilities().reshape(6, 4, 4), (2, 4)), LIVE.ravel())


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1)])
def test_one_sample_may_have_any_layout(shape: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(live_positions(item(), probabilities()[:1], shape), LIVE[0])


def test_causal_masks_leave_every_row() -> None:
    causal = np.tril(np.ones((1, 3, 4, 4))) / np.arange(1, 5)[:, None]
    assert live_positions(item(), causal, (1, 4)).all()


def test_nothing_is_said_when_rows_cannot_be_told_apart() -> None:
    assert live_positions(item(), probabilities(), (8,)) is None
    assert live_positions(item(), probabilities()[..., :3], (2, 4)) is None
    assert live_positions(item(), probabilities()[:1], (5,)) is None
