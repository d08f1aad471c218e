"""An attention block of random weights, for tests that need no model."""

from __future__ import annotations

import numpy as np

from hccs_onnx import reference
from hccs_onnx.aie.aie4ml_block import AttentionBlock, Projection
from hccs_onnx.aie.aie4ml_cut import BlockCut
from hccs_onnx.params import PROBABILITY_UNIT, HccsParams, HeadParams, LogitQuantizer, OutputType, Reciprocal


def make_block(
    rows: int = 32,
    width: int = 32,
    heads: int = 1,
    depth: int = 16,
    output: OutputType = "uint8",
    reciprocal: Reciprocal = "clb",
    zero_point: int = -20,
    scale: float = 0.1,
) -> AttentionBlock:
    """A block with one legal set of parameters for all heads and one sample of data, as a model would compute it."""
    rng = np.random.default_rng(0)

    def projection(count: int, inputs: int, outputs: int) -> Projection:
        weight = rng.normal(0, inputs**-0.5, (count, inputs, outputs))
        return Projection(weight, rng.normal(0, 0.1, (count, outputs)))

    query, key, value = (projection(heads, width, depth) for _ in range(3))
    project = projection(1, heads * depth, width)
    offset, floor, distance = 32767 // rows, -(-256 // rows), 60
    head = HeadParams(offset, (offset - floor) // distance, distance)
    cut = BlockCut(
        node="sm", source="x", query="q", key="k", value="v", product="qk", logits="qk", codes="codes",
        probabilities="p", context="c", result="y", masked=False, factor=1.0,
        quantizer=LogitQuantizer((scale,), (zero_point,)), params=HccsParams((head,), reciprocal=reciprocal),
        output=output,
    )  # fmt: skip
    x = rng.normal(0, 1, (1, rows, width)).astype(np.float32)
    codes = np.clip(np.rint(query(x) @ key(x).swapaxes(-1, -2) / scale) + zero_point, -128, 127).astype(np.int8)
    probabilities = reference.hccs(
        codes, np.dtype(output), B=[head.B], S=[head.S], Dmax=[head.Dmax], reciprocal=reciprocal
    )
    context = probabilities * PROBABILITY_UNIT[output] @ value(x)
    y = project(context.swapaxes(1, 2).reshape(1, rows, -1))[:, 0]
    return AttentionBlock(cut, query, key, value, project, x, y, codes, probabilities)
