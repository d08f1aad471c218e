"""Sizes of dynamic axes as products, so that it can be told which Reshape leaves rows as they are.

Where shape inference gives up on (batch*heads, query, key), the numbers that exporters compute for Reshape still tell:
they are products of the sizes of known tensors. The size of an axis that nothing is known of is a symbol of its own.

A mask of unknown shape may widen the logits that it is added to. Then the sizes that they had are least sizes, and the
product with the values can tell that they are the sizes: it only runs on rows as long as there are values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

import onnx_graphsurgeon as gs

from hccs_onnx.graph.memo import once_per_view
from hccs_onnx.graph.view import Dim, GraphView

_MOVED = ("Unsqueeze", "Squeeze", "Reshape", "Cast", "Identity")  # a number stays the same
_SAME = ("Cast", "Dropout", "Erf", "Gelu", "Identity", "LayerNormalization", "Relu", "Sigmoid", "Softmax", "Tanh")
_BROADCAST = ("Add", "Div", "Mul", "Pow", "Sub")
_UNDERSTOOD = {*_MOVED, *_SAME, *_BROADCAST, "Concat", "Gather", "MatMul", "Shape", "Transpose", "Where"}


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
"""Of a tensor's axes; None where one is not known."""


@dataclass(frozen=True)
class _Known:
    """What is known of one tensor.

    Parameters
    ----------
    axes : list of Size or None
        Sizes of its axes; None if not even the rank is known.
    values : list of Size or None
        Its elements, where it is a shape or a part of one.
    """

    axes: list[Size] | None = None
    values: list[Size] | None = None


def keeps_rows(view: GraphView, reshape: gs.Node) -> bool:
    """Whether a Reshape only splits or folds axes before the last, so that rows along the last stay what they are.

    Element counts are equal, so with the same number of rows each row is as long as before.

    Examples
    --------
    >>> keeps_rows(view, view.producer("split_scores"))  # doctest: +SKIP
    True
    """
    before = _known(view, reshape.inputs[0].name).axes
    behind = _known(view, reshape.outputs[0].name).axes
    if not before or not behind:
        return False
    return (
        before[-1] == behind[-1]
        or _product(before[:-1]) == _product(behind[:-1])
        or _fits_values(view, reshape, behind)
    )


def _fits_values(view: GraphView, reshape: gs.Node, behind: list[Size]) -> bool:
    """Whether rows are kept because there are as many values as keys, and so nothing has widened the rows before.

    With least sizes before the Reshape, and behind it all sizes but the last, which is the number of values: if both
    have the same number of elements, the least sizes are the sizes, for none can be larger without another smaller.
    """
    readers = view.consumers(reshape.outputs[0].name)
    if len(readers) != 1 or readers[0].op != "MatMul" or readers[0].inputs[0].name != reshape.outputs[0].name:
        return False
    least = _known(view, reshape.inputs[0].name, least=True).axes
    values = _known(view, readers[0].inputs[1].name).axes
    if not least or not values or len(values) < 2 or least[-1] != values[-2]:
        return False
    return _product(least) == _product([*behind[:-1], values[-2]])


def _product(sizes: list[Size]) -> Size:
    total = Size()
    for size in sizes:
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


@once_per_view
def _memory(view: GraphView, least: bool) -> dict[str, _Known]:
    """What was found out before, by tensor."""
    return {}


def _known(view: GraphView, name: str, least: bool = False) -> _Known:
    """What is known of a tensor; `least`: the least sizes that its axes can have."""
    memory = _memory(view, least)
    pending, entered = [name], set[str]()
    while pending:  # what a tensor is made of first; models are deeper than Python's stack
        current = pending[-1]
        node = view.producer(current)
        if current not in memory and current not in entered:
            entered.add(current)
            pending += [item.name for item in (node.inputs if node is not None and node.op in _UNDERSTOOD else [])]
            continue
        pending.pop()
        if current not in memory:
            memory[current] = _judged(view, current, node, least, memory)
    return memory[name]


def _judged(view: GraphView, name: str, node: gs.Node | None, least: bool, memory: Mapping[str, _Known]) -> _Known:
    """What is known of a tensor, from what is known of those that it is made of."""
    inputs = [memory.get(tensor.name, _Known()) for tensor in node.inputs] if node is not None else []
    dims = view.dims(name)
    given = None if dims is None else [_parsed(dim) for dim in dims]
    found = _axes(view, node, inputs, least) if node is not None and (given is None or None in given) else None
    if given is not None and found is not None and len(found) == len(given):
        given = [one or other for one, other in zip(given, found, strict=True)]
    elif given is None:
        given = found
    axes = None if given is None else [size or Size(1, (f"{name}[{axis}]",)) for axis, size in enumerate(given)]
    if least:
        return _Known(axes, _known(view, name).values)
    return _Known(axes, _values(view, name, dims, node, inputs))


def _axes(view: GraphView, node: gs.Node, inputs: list[_Known], least: bool) -> Sizes | None:
    """Sizes of the axes of what a node makes."""
    first = inputs[0].axes if inputs else None
    if first is None or node.op in _SAME:
        return None if first is None else [*first]
    second = inputs[1].axes if len(inputs) > 1 else None
    if node.op == "Reshape":
        return _target(node, first, inputs[1].values if len(inputs) > 1 else None)
    if node.op == "Transpose" and len(node.attrs.get("perm", ())) == len(first):
        return [first[axis] for axis in node.attrs["perm"]]
    if node.op == "Gather" and second == []:  # one of several
        axis = node.attrs.get("axis", 0) % len(first)
        return [*first[:axis], *first[axis + 1 :]]
    if node.op == "MatMul" and second:
        stacked = len(second) == 2 or (len(first) == len(second) and first[:-2] == second[:-2])
        return [*first[:-1], second[-1]] if stacked else None
    if node.op in _BROADCAST and second is not None:
        return _broadcast(first, second, least)
    if node.op == "Where" and second is not None and len(inputs) > 2 and inputs[2].axes is not None:
        chosen = _broadcast(second, inputs[2].axes, least)
        return None if None in chosen else _broadcast([size for size in chosen if size is not None], first, least)
    return None


def _broadcast(first: list[Size], second: list[Size], least: bool) -> Sizes:
    """Sizes of the axes of what is computed of two tensors element by element."""
    pairs = zip_longest(reversed(first), reversed(second), fillvalue=Size())
    return [_wider(one, other, least) for one, other in pairs][::-1]


def _wider(one: Size, other: Size, least: bool) -> Size | None:
    """Size of an axis that two tensors share; the least, where the second may be wider."""
    if one == other or other == Size():
        return one
    return other if one == Size() else one if least else None


def _target(reshape: gs.Node, before: list[Size], values: list[Size] | None) -> Sizes | None:
    """Sizes of what a Reshape makes."""
    if values is None:
        return None
    target: Sizes = [*values]
    if reshape.attrs.get("allowzero", 0) == 0:
        for axis, size in enumerate(values):
            if size == Size(0):  # as it was
                target[axis] = before[axis] if axis < len(before) else None
    for axis, size in enumerate(values):
        if size == Size(-1):
            others = target[:axis] + target[axis + 1 :]
            known = [other for other in others if other is not None]
            target[axis] = _product(before).divided(_product(known)) if len(known) == len(others) else None
    return target


def _values(
    view: GraphView, name: str, dims: tuple[Dim, ...] | None, node: gs.Node | None, inputs: list[_Known]
) -> list[Size] | None:
    """Elements of a shape, or of a part of it."""
    if dims is None or len(dims) > 1:
        return None
    constant = view.constant(name)
    if constant is not None:
        return [Size(int(value)) for value in constant.reshape(-1)] if constant.dtype.kind in "iu" else None
    if node is None or not inputs:
        return None
    given = [item.values for item in inputs]
    if node.op == "Concat":
        return None if None in given else [size for part in given for size in part or []]
    if node.op == "Shape":
        axes = inputs[0].axes
        return None if axes is None else axes[node.attrs.get("start", 0) : node.attrs.get("end", len(axes))]
    first, second = given[0], given[1] if len(given) > 1 else None
    if node.op == "Gather":
        index = view.scalar(node.inputs[1].name)
        if first is None or index is None or not -len(first) <= index < len(first):
            return None
        return [first[int(index)]]
    if node.op in ("Mul", "Div"):
        if not first or not second or len(first) != 1 or len(second) != 1:
            return None
        result = first[0] * second[0] if node.op == "Mul" else first[0].divided(second[0])
        return None if result is None else [result]
    return first if node.op in _MOVED else None
