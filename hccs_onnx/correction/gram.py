"""Sums over rows that a least-squares problem needs: constant size, mergeable by addition."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from hccs_onnx.reference import Array


@dataclass(frozen=True)
class Change:
    """What is added to a projection's weight and bias.

    Parameters
    ----------
    weight : ndarray of float64, shape (input, output)
    bias : ndarray of float64, shape (output,)
    """

    weight: Array
    bias: Array


@dataclass
class Gram:
    """Sums over the rows of a projection's input x and of what its output lacks, r.

    Parameters
    ----------
    rows : int
        Rows counted.
    xx : ndarray of float64, shape (input, input)
    xr : ndarray of float64, shape (input, output)
    x : ndarray of float64, shape (input,)
    r : ndarray of float64, shape (output,)
    rr : float
        Sum of squares.
    yy : float
        Sum of squares of what the float model's output is: what errors are compared with.

    Examples
    --------
    >>> gram = Gram.empty(1, 1)
    >>> gram.add(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]]), np.array([[1.0], [5.0]]))
    >>> gram.error(Change(np.array([[2.0]]), np.array([1.0]))), (gram + gram).rows
    (0.0, 4)
    """

    rows: int
    xx: Array
    xr: Array
    x: Array
    r: Array
    rr: float
    yy: float

    @classmethod
    def empty(cls, inputs: int, outputs: int) -> Gram:
        """Sums of no rows."""
        xx, xr = np.zeros((inputs, inputs)), np.zeros((inputs, outputs))
        return cls(0, xx, xr, np.zeros(inputs), np.zeros(outputs), 0.0, 0.0)

    def __add__(self, other: Gram) -> Gram:
        """Sums over the rows of both."""
        return Gram(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})

    def add(self, x: Array, r: Array, y: Array) -> None:
        """Count rows.

        Parameters
        ----------
        x : ndarray of float64, shape (row, input)
        r, y : ndarray of float64, shape (row, output)
        """
        self.rows += x.shape[0]
        self.xx += x.T @ x
        self.xr += x.T @ r
        self.x += x.sum(axis=0)
        self.r += r.sum(axis=0)
        self.rr += float((r * r).sum())
        self.yy += float((y * y).sum())

    def error(self, change: Change) -> float:
        """Sum over rows of |r - x @ weight - bias|^2."""
        left = self.rr - 2.0 * float((change.weight * self.xr).sum()) - 2.0 * float(change.bias @ self.r)
        left += float((change.weight * (self.xx @ change.weight)).sum())
        left += 2.0 * float(self.x @ change.weight @ change.bias) + self.rows * float(change.bias @ change.bias)
        return max(0.0, left)
