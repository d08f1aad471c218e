"""The choice of a correction: what can be learnt is, what cannot is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from hccs_onnx.correction.gram import Gram
from hccs_onnx.correction.solve import RIDGES, choose

RNG = np.random.default_rng(5)
WEIGHT = RNG.normal(size=(6, 4))


def folds(count: int, weight: np.ndarray, offset: float = 0.0, noise: float = 0.0, mean: float = 0.0) -> list[Gram]:
    """Four parts of rows whose residual is x @ weight + offset + noise."""
    rng = np.random.default_rng(6)
    parts = [Gram.empty(6, 4) for _ in range(4)]
    for part in parts:
        x = rng.normal(size=(count, 6)) + mean
        r = x @ weight + offset + noise * rng.normal(size=(count, 4))
        part.add(x, r, 2 * np.ones_like(r))
    return parts


def as_it_is(change: np.ndarray) -> np.ndarray:
    return change


def test_least_squares_finds_a_linear_error_with_the_weakest_ridge() -> None:
    choice = choose(folds(50, WEIGHT, offset=0.5), "least-squares", True, as_it_is)
    assert choice.ridge == RIDGES[0]
    np.testing.assert_allclose(choice.change.weight, WEIGHT, atol=1e-3)
    np.testing.assert_allclose(choice.change.bias, 0.5, atol=1e-3)
    assert choice.after < 1e-3 * choice.before


def test_bias_takes_the_mean_and_leaves_weights_alone() -> None:
    choice = choose(folds(50, WEIGHT, offset=3.0), "bias", True, as_it_is)
    assert choice.ridge == np.inf
    assert not choice.change.weight.any()
    np.testing.assert_allclose(choice.change.bias, 3.0, atol=1.0)
    assert choice.after < choice.before


def test_errors_are_relative_to_the_output() -> None:
    choice = choose(folds(400, np.zeros((6, 4)), offset=1.0), "bias", True, as_it_is)
    assert choice.before == pytest.approx(0.5)  # 1 of 2
    assert choice.after == pytest.approx(0.0, abs=1e-6)


def test_least_squares_falls_back_to_the_bias_when_inputs_tell_nothing() -> None:
    choice = choose(folds(8, np.zeros((6, 4)), offset=1.0, noise=0.5), "least-squares", True, as_it_is)
    assert choice.ridge == np.inf
    assert not choice.change.weight.any()


@pytest.mark.parametrize("method", ["bias", "least-squares"])
def test_nothing_is_changed_when_the_held_out_error_does_not_fall(method: str) -> None:
    choice = choose(folds(5, np.zeros((6, 4)), noise=1.0), method, True, as_it_is)
    assert choice.change is None
    assert choice.ridge is None
    assert choice.after == choice.before > 0


def test_least_squares_works_without_a_bias() -> None:
    choice = choose(folds(50, WEIGHT, mean=1.0), "least-squares", False, as_it_is)
    np.testing.assert_allclose(choice.change.weight, WEIGHT, atol=1e-2)
    assert not choice.change.bias.any()


def test_a_bias_makes_good_what_rounding_of_weights_shifts() -> None:
    choice = choose(folds(50, WEIGHT, mean=2.0), "least-squares", True, np.rint)
    np.testing.assert_array_equal(choice.change.weight, np.rint(choice.change.weight))
    left = (2.0 * (WEIGHT - choice.change.weight)).sum(axis=0)
    np.testing.assert_allclose(choice.change.bias, left, atol=0.2)


def test_a_stronger_ridge_is_chosen_when_rows_are_few_and_noisy() -> None:
    many = choose(folds(500, WEIGHT, noise=2.0), "least-squares", True, as_it_is)
    few = choose(folds(4, WEIGHT, noise=2.0), "least-squares", True, as_it_is)
    assert few.ridge > many.ridge


def test_folds_without_any_error_are_left_alone() -> None:
    choice = choose(folds(5, np.zeros((6, 4))), "least-squares", True, as_it_is)
    assert choice.change is None
    assert choice.before == choice.after == 0.0
