"""Sums over rows: the same however the data is cut, and the error that they promise."""

from __future__ import annotations

import numpy as np
import pytest

from hccs_onnx.correction.gram import Change, Gram


def rows(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, 5)), rng.normal(size=(count, 3)), rng.normal(size=(count, 3))


def gram(*arrays: np.ndarray) -> Gram:
    result = Gram.empty(5, 3)
    result.add(*arrays)
    return result


def test_error_is_that_of_the_rows() -> None:
    x, r, y = rows(20)
    rng = np.random.default_rng(2)
    change = Change(rng.normal(size=(5, 3)), rng.normal(size=3))
    expected = ((r - x @ change.weight - change.bias) ** 2).sum()
    assert gram(x, r, y).error(change) == pytest.approx(expected, rel=1e-12)


def test_sums_do_not_depend_on_how_rows_are_cut() -> None:
    x, r, y = rows(20)
    whole = gram(x, r, y)
    parts = gram(x[:7], r[:7], y[:7]) + gram(x[7:], r[7:], y[7:])
    assert parts.rows == whole.rows == 20
    for name in ("xx", "xr", "x", "r", "rr", "yy"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)


def test_error_of_no_change_is_the_sum_of_squares() -> None:
    x, r, y = rows(9)
    assert gram(x, r, y).error(Change(np.zeros((5, 3)), np.zeros(3))) == pytest.approx((r**2).sum())


def test_error_is_never_below_zero() -> None:
    x, _, y = rows(9)
    weight = np.random.default_rng(4).normal(size=(5, 3))
    assert 0 <= gram(x, x @ weight, y).error(Change(weight, np.zeros(3))) < 1e-12
