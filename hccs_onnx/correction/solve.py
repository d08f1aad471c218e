"""Choosing a correction: ridge regression with its strength judged on feeds that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hccs_onnx.correction.gram import Change, Gram
from hccs_onnx.reference import Array

Method = Literal["bias", "least-squares"]
RIDGES = tuple(float(ridge) for ridge in np.geomspace(1e-4, 10.0, 11))
"""Strengths tried, as shares of the mean square of an input."""


@dataclass(frozen=True)
class Choice:
    """What was chosen for one projection.

    Parameters
    ----------
    change : Change or None
        None if nothing lowers the held-out error.
    ridge : float or None
        Strength of the ridge, as a share of the mean square of an input; infinite for the bias alone.
    before, after : float
        Root mean square error on held-out rows, relative to that of the float model's output.
    """

    change: Change | None
    ridge: float | None
    before: float
    after: float


def choose(folds: Sequence[Gram], method: Method, has_bias: bool, stored: Callable[[Array], Array]) -> Choice:
    """The correction with the least error on rows left out of its fit.

    Parameters
    ----------
    folds : sequence of Gram
        Sums over parts of the data, at least two.
    method : {'bias', 'least-squares'}
        What may change.
    has_bias : bool
        Whether there is a bias to change.
    stored : callable
        What is left of a change of the weight once it is stored, which may round.

    Examples
    --------
    >>> folds = [Gram.empty(1, 1), Gram.empty(1, 1)]
    >>> for fold in folds:
    ...     fold.add(np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]]), np.array([[3.0], [5.0]]))
    >>> choose(folds, "bias", True, lambda change: change).change.bias
    array([1.])
    """
    total = sum(folds[1:], start=folds[0])
    ridges = ((np.inf,) if has_bias else ()) + (RIDGES if method == "least-squares" else ())
    errors = np.zeros(len(ridges))
    for index, held_out in enumerate(folds):
        others = [fold for other, fold in enumerate(folds) if other != index]
        solve = _Solver(sum(others[1:], start=others[0]), has_bias, stored)
        errors += [held_out.error(solve(ridge)) for ridge in ridges]
    before = _relative(total.rr, total)
    best = int(np.argmin(errors))
    if not errors[best] < total.rr:
        return Choice(None, None, before, before)
    change = _Solver(total, has_bias, stored)(ridges[best])
    return Choice(change, float(ridges[best]), before, _relative(float(errors[best]), total))


def _relative(error: float, gram: Gram) -> float:
    return float(np.sqrt(error / gram.yy)) if gram.yy > 0 else 0.0


class _Solver:
    """Least squares over one set of rows, for any ridge: the weight is drawn to what it was, not to 0."""

    def __init__(self, gram: Gram, has_bias: bool, stored: Callable[[Array], Array]) -> None:
        self._gram, self._has_bias, self._stored = gram, has_bias, stored
        self._rows = max(gram.rows, 1)
        self._unit = float(np.trace(gram.xx)) / gram.x.size
        self._axes: tuple[Array, Array, Array] | None = None

    def __call__(self, ridge: float) -> Change:
        """Change of least |r - x @ weight - bias|^2 + ridge * unit * |weight|^2, its weight as it will be stored."""
        gram = self._gram
        weight = np.zeros_like(gram.xr)
        if np.isfinite(ridge) and self._unit > 0:
            squares, axes, along = self._axes = self._axes or self._principal_axes()
            weight = self._stored(axes @ (along / (squares + ridge * self._unit)[:, None]))
        bias = (gram.r - gram.x @ weight) / self._rows if self._has_bias else np.zeros_like(gram.r)
        return Change(weight, bias)

    def _principal_axes(self) -> tuple[Array, Array, Array]:
        """Sums of squares of x along its principal axes, these, x'r along them; about the mean if there is a bias."""
        gram, xx, xr = self._gram, self._gram.xx, self._gram.xr
        if self._has_bias:
            xx, xr = xx - np.outer(gram.x, gram.x) / self._rows, xr - np.outer(gram.x, gram.r) / self._rows
        squares, axes = np.linalg.eigh(xx)
        return np.maximum(squares, 0.0), axes, axes.T @ xr
