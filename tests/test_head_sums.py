"""Sums of the heads' losses: which rows count, and what rows of zeros cost."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import helper

from hccs_onnx.errors import CalibrationError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.head_sums import HeadSums, least_probability
from hccs_onnx.params import PROBABILITY_UNIT

LEAST = 0.25 * PROBABILITY_UNIT["uint8"]


def item(heads: int | None = 2, masked: bool = True) -> AttentionSoftmax:
    return AttentionSoftmax("n", 0, "x", "p", "p", heads=heads, masked=masked, self_attention=masked)


def softmax(x: np.ndarray) -> np.ndarray:
    weight = np.exp(x - x.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def results(item: AttentionSoftmax, x: np.ndarray, y: np.ndarray, least: float = LEAST) -> list[list[float]]:
    sums = HeadSums(item, least)
    sums.add(x, softmax(x), y)
    return [values.tolist() for values in sums.result()]


def logits(heads: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, heads, 4, 4))


def test_loss_is_infinite_when_integers_leave_nothing_of_a_row() -> None:
    x = logits()
    y = softmax(x)
    y[1, 1, 2] = 0.0
    kl, deficit = results(item(masked=False), x, y)
    assert kl == [pytest.approx(0, abs=1e-12), math.inf]
    assert deficit == [pytest.approx(0, abs=1e-12), pytest.approx(1 / 12)]


def test_row_of_zeros_costs_nothing_when_it_is_padding() -> None:
    x = np.where(np.tri(4, dtype=bool) & np.array([False, True, True, True]), logits(), -1e4)
    y = softmax(x)
    y[:, :, 0] = 0.0  # as HCCS makes of a row that is masked throughout
    kl, deficit = results(item(), x, y)
    np.testing.assert_allclose([kl, deficit], 0, atol=1e-12)


def test_row_does_not_count_when_the_original_leaves_nothing_of_it() -> None:
    x = logits()
    sums = HeadSums(item(masked=False), LEAST)
    sums.add(x, np.zeros_like(x), np.zeros_like(x))
    assert [values.tolist() for values in sums.result()] == [[0, 0], [0, 0]]


def test_heads_are_those_of_the_data_when_the_graph_does_not_tell() -> None:
    x = logits()
    y = softmax(0.5 * x)
    assert results(item(heads=None), x, y) == results(item(), x, y)
    assert results(item(heads=None), x, y)[0][0] != results(item(heads=None), x, y)[0][1]


def test_other_number_of_heads_is_refused() -> None:
    sums = HeadSums(item(heads=None), LEAST)
    assert not sums.ran
    sums.add(*[softmax(logits())] * 3)
    assert sums.ran
    with pytest.raises(CalibrationError, match=r"^node 'n': has another number of heads in other data \(3, needs 2\)"):
        sums.add(*[softmax(logits(heads=3))] * 3)


@pytest.mark.parametrize("form", ["initializer", "node", "in a body"])
@pytest.mark.parametrize(("kind", "expected"), [("UINT8", 2**-10), ("INT16", 2**-17), ("FLOAT", 0.0)])
def test_zero_counts_as_a_quarter_of_the_output_type(form: str, kind: str, expected: float) -> None:
    zero = helper.make_tensor("zero", onnx.TensorProto.DataType.Value(kind), [], [0])
    node = helper.make_node("HCCS", ["x", "zero"], ["y"], domain="hccs")
    constant = [helper.make_node("Constant", [], ["zero"], value=zero)] if form == "node" else []
    graph = helper.make_graph([*constant, node], "g", [], [], [] if form == "node" else [zero])
    if form == "in a body":
        branches = helper.make_node("If", ["c"], ["z"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([branches], "outer", [], [])
    assert least_probability(helper.make_model(graph)) == expected
