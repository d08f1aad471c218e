"""Sizes of dynamic axes as products, so that it can be told which Reshape leaves rows as they are.

Where shape inference gives up on (batch*heads, query, key), the numbers that exporters compute for Reshape still tell:
they are products of the sizes of known tensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

import onnx_graphsurgeon as gs

from hccs_onnx.graph.view import Dim, GraphView

_DEPTH = 20
_MOVED = ("Unsqueeze", "Squeeze", "Reshape", "Cast", "Identity")  # a number stays the same
_SAME = ("Cast", "Identity", "Softmax", "Dropout")
_BROADCAST = ("Mul", "Div", "Add", "Sub")


@dataclass(frozen=True)
class Size:
    """A number times dynamic axes.

    Examples
    --------
    >>> Size(4, ("batch",)) * Size(2, ("n",))
    Size(number=8, axes=('batch', 'n'))
    """

    number: int = 1
    axes: tuple[str, ...] = ()

    def __mul__(self, other: Size) -> Size:
        return Size(self.number * other.number, tuple(sorted(self.axes + other.axes)))

    def divided(self, other: Size) -> Size | None:
        """The quotient, if it is one."""
        axes = list(self.axes)
        for axis in other.axes:
            if axis not in axes:
                return None
            axes.remove(axis)
        if other.number == 0 or self.number % other.number:
            return None
        return Size(self.number // other.number, tuple(axes))


Sizes = list[Size | None]
"""Of a tensor's axes, or the values of a shape; None where it is not known."""


def keeps_rows(view: GraphView, reshape: gs.Node) -> bool:
    """Whether a Reshape only splits or folds axes before the last, so that rows along the last stay what they are.

    Element counts are equal, so with the same number of rows each row is as long as before.

    Examples
    --------
    >>> keeps_rows(view, view.producer("split_scores"))  # doctest: +SKIP
    True
    """
    before = _axes(view, reshape.inputs[0].name, _DEPTH)
    target = _target(view, reshape, before, _DEPTH)
    if not before or not target:
        return False
    if before[-1] is not None and before[-1] == target[-1]:
        return True
    rows = _product(before[:-1])
    return rows is not None and rows == _product(target[:-1])


def _product(sizes: Sizes) -> Size | None:
    total = Size()
    for size in sizes:
        if size is None:
            return None
        total *= size
    return total


def _parsed(dim: Dim) -> Size | None:
    """An axis as shape inference or an exporter names it: a number, a name, or a product of these."""
    if isinstance(dim, int):
        return Size(dim)
    if dim is None or dim.startswith("unk__"):
        return None
    total = Size()
    for factor in dim.strip("()").split("*"):
        if factor.isdecimal():
            total *= Size(int(factor))
        elif re.fullmatch(r"[A-Za-z_][\w.]*", factor):
            total *= Size(1, (factor,))
        else:
            return None
    return total


def _axes(view: GraphView, name: str, depth: int) -> Sizes | None:
    """Sizes of a tensor's axes; None if not even its rank is known."""
    dims = view.dims(name)
    known = None if dims is None else [_parsed(dim) for dim in dims]
    node = view.producer(name)
    if node is None or depth == 0 or (known is not None and None not in known):
        return known
    found = _computed(view, node, depth - 1)
    if found is None or (known is not None and len(known) != len(found)):
        return known
    return [one or other for one, other in zip(known or [None] * len(found), found, strict=True)]


def _computed(view: GraphView, node: gs.Node, depth: int) -> Sizes | None:
    inputs = [tensor.name for tensor in node.inputs]
    first = _axes(view, inputs[0], depth) if inputs else None
    if first is None or node.op in _SAME:
        return first
    if node.op == "Reshape":
        return _target(view, node, first, depth)
    if node.op == "Transpose" and len(node.attrs.get("perm", ())) == len(first):
        return [first[axis] for axis in node.attrs["perm"]]
    if node.op in _BROADCAST or node.op == "MatMul":
        second = _axes(view, inputs[1], depth)
        if second is None:
            return None
        if node.op == "MatMul":
            stacked = len(first) == len(second) and None not in first[:-2] and first[:-2] == second[:-2]
            return [*first[:-1], second[-1]] if stacked else None
        pairs = zip_longest(reversed(first), reversed(second), fillvalue=Size())
        return [_broadcast(one, other) for one, other in pairs][::-1]
    return None


def _broadcast(one: Size | None, other: Size | None) -> Size | None:
    if one == other or other == Size():
        return one
    return other if one == Size() else None


def _target(view: GraphView, reshape: gs.Node, before: Sizes | None, depth: int) -> Sizes | None:
    """Sizes of what a Reshape makes."""
    if len(reshape.inputs) < 2:
        return None
    target = _values(view, reshape.inputs[1].name, depth)
    if target is None:
        return None
    if reshape.attrs.get("allowzero", 0) == 0:
        for axis, size in enumerate(target):
            if size == Size(0):  # as it was
                target[axis] = before[axis] if before is not None and axis < len(before) else None
    rest = [axis for axis, size in enumerate(target) if size == Size(-1)]
    for axis in rest:
        total, others = _product(before or [None]), _product(target[:axis] + target[axis + 1 :])
        target[axis] = None if total is None or others is None else total.divided(others)
    return target


def _values(view: GraphView, name: str, depth: int) -> Sizes | None:
    """Values of a shape, or of a part of it."""
    constant = view.constant(name)
    if constant is not None:
        return [Size(int(value)) for value in constant.reshape(-1)]
    node = view.producer(name)
    if node is None or depth == 0:
        return None
    inputs = [tensor.name for tensor in node.inputs]
    if node.op == "Concat":
        parts = [_values(view, part, depth - 1) for part in inputs]
        return None if None in parts else [size for part in parts for size in part or []]
    if node.op == "Shape":
        axes = _axes(view, inputs[0], depth - 1)
        return None if axes is None else axes[node.attrs.get("start", 0) : node.attrs.get("end", len(axes))]
    if node.op == "Gather":
        values, index = _values(view, inputs[0], depth - 1), view.scalar(inputs[1])
        if values is None or index is None or not -len(values) <= index < len(values):
            return None
        return [values[int(index)]]
    if node.op == "Mul":
        one, other = (_values(view, item, depth - 1) for item in inputs)
        return [_product([*one, *other])] if one and other and len(one) == len(other) == 1 else None
    return _values(view, inputs[0], depth - 1) if node.op in _MOVED else None
