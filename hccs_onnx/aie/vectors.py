"""Test vectors of a project: what each tile reads and must write, as text files of AMD's simulators."""

from __future__ import annotations

import numpy as np

from hccs_onnx.aie.plan import Plan, Work
from hccs_onnx.params import HccsParams, HeadParams, OutputType
from hccs_onnx.reference import Array, hccs

PAD_COLUMN, PAD_ROW = 127, 0  # a kernel that looked at a padding column would take it for the maximum
OUT_BYTES: dict[OutputType, int] = {"uint8": 1, "int16": 2}


def rows_by_head(values: Array, params: HccsParams) -> Array:
    """A node's X or Y as (head, row, n): each head's rows in their order in the tensor.

    Examples
    --------
    >>> rows_by_head(np.zeros((2, 12, 5, 7)), HccsParams((HeadParams(300, 1, 9),) * 4)).shape
    (4, 30, 7)
    """
    heads, n = len(params.heads), values.shape[-1]
    if heads == 1:
        return values.reshape(1, -1, n)
    axis = params.head_axis % values.ndim
    split = values.reshape(*values.shape[:axis], -1, heads, *values.shape[axis + 1 :])
    return np.moveaxis(split, axis + 1, 0).reshape(heads, -1, n)


def make_work(values: Array, params: HccsParams, output: OutputType) -> Work:
    """The work of a node whose X is `values`."""
    heads, rows, n = rows_by_head(values, params).shape
    return Work(heads, rows, n, OUT_BYTES[output], params.masked)


def tile_inputs(plan: Plan, codes: Array) -> Array:
    """What tiles read: int8 (tile, iteration, slot, row, column), padding included.

    Parameters
    ----------
    plan : Plan
        Who computes what.
    codes : ndarray of int8, shape (head, row, n)
        The node's logits, see `rows_by_head`.
    """
    chunk = plan.iterations * plan.rows
    x = np.full((len(plan.tiles), plan.slots, chunk, plan.work.columns), PAD_COLUMN, np.int8)
    x[..., : plan.work.n] = PAD_ROW
    for index, tile in enumerate(plan.tiles):
        for number, slot in enumerate(tile.slots):
            x[index, number, : slot.count, : plan.work.n] = codes[slot.head, slot.start : slot.start + slot.count]
    return _by_iteration(plan, x)


def tile_outputs(plan: Plan, inputs: Array, params: HccsParams, output: OutputType) -> Array:
    """What tiles must write, by the reference: (tile, iteration, slot, row, column), 0 in padding columns."""
    heads = [head for tile in slot_params(plan, params) for head in tile]
    x = _by_iteration_inverse(plan, inputs).reshape(len(heads), -1, plan.work.columns)
    y = np.zeros(x.shape, output)
    y[..., : plan.work.n] = hccs(
        x[..., : plan.work.n],
        output,
        B=[head.B for head in heads],
        S=[head.S for head in heads],
        Dmax=[head.Dmax for head in heads],
        reciprocal=params.reciprocal,
        masked=params.masked,
    )
    return _by_iteration(plan, y.reshape(len(plan.tiles), plan.slots, -1, plan.work.columns))


def slot_params(plan: Plan, params: HccsParams) -> list[list[HeadParams]]:
    """Parameters of each slot of each tile."""
    return [[params.heads[slot.head] for slot in tile.slots] for tile in plan.tiles]


def to_text(values: Array, port_bits: int) -> str:
    r"""Values as AMD's simulators read them: as many on a line as a port takes at once.

    Examples
    --------
    >>> to_text(np.arange(16, dtype=np.int16), 128)
    '0 1 2 3 4 5 6 7\n8 9 10 11 12 13 14 15\n'
    """
    lines = values.reshape(-1, port_bits // (8 * values.itemsize)).tolist()
    return "".join(" ".join(map(str, line)) + "\n" for line in lines)


def from_text(text: str, output: OutputType) -> Array:
    r"""Values of a file that a simulator wrote, without its time stamps (``T ...``) and ``TLAST`` marks.

    Raises
    ------
    ValueError
        If it holds something else.

    Examples
    --------
    >>> from_text("T 10 ns\n1 2\nTLAST\n255 -1\n", "uint8")
    array([  1,   2, 255, 255], dtype=uint8)
    """
    words = [word for line in text.splitlines() if not line.startswith("T") for word in line.split()]
    return np.array([int(word) for word in words], np.int64).astype(output)


def _by_iteration(plan: Plan, values: Array) -> Array:
    """(tile, slot, iteration * row, column) to (tile, iteration, slot, row, column)."""
    shape = (len(plan.tiles), plan.slots, plan.iterations, plan.rows, plan.work.columns)
    result: Array = values.reshape(shape).transpose(0, 2, 1, 3, 4)
    return result


def _by_iteration_inverse(plan: Plan, values: Array) -> Array:
    return np.ascontiguousarray(values.transpose(0, 2, 1, 3, 4))
