"""Integer parameters without data."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx.data_free import LEAST_DISTANCE, DataFreeIntegers, data_free_head, integer_parameters
from hccs_onnx.errors import CalibrationError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.own_quantizer import OwnQuantizer, OwnQuantizers
from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.params import DATA_FREE, HccsParams, LogitQuantizer, OutputType, Profile, Reciprocal

FINE = OwnQuantizer(0.1, -16)
COARSE = OwnQuantizer(80.0, 127, masked_before=True)


def softmax(*pairs: OwnQuantizer, masked: bool = False, length: int | str | None = "n") -> AttentionSoftmax:
    """A Softmax whose logits go through a scale (node 3), a pair (2), a scale (1) and a pair (0)."""
    scales = tuple(Step(node, str(node), factor=1.0) for node in range(4))
    own = OwnQuantizers(pairs, "nothing is quantised")
    return AttentionSoftmax(
        "sm", 0, "l", "p", "p", masked=masked, axis_length=length, scales=scales, own_quantizers=own
    )


def of(
    item: AttentionSoftmax, output: OutputType = "uint8", reciprocal: Reciprocal = "norm", profile: Profile = "extended"
) -> DataFreeIntegers:
    return integer_parameters(item, output, reciprocal, profile)


def test_unmasked_node_keeps_the_quantiser_of_the_model() -> None:
    item = softmax(FINE)
    assert of(item) == DataFreeIntegers(item, HccsParams((data_free_head(0.1),)), LogitQuantizer((0.1,), (-16,)))


def test_masked_node_has_a_code_for_the_mask_and_keeps_the_pair_before_it() -> None:
    result = of(softmax(replace(FINE, node=2), masked=True))
    assert result.params.masked
    assert result.quantizer == LogitQuantizer((0.1,), (-15,))
    assert [step.node for step in result.item.scales] == [0, 1]


def test_masked_node_with_symmetric_codes_has_one_already() -> None:
    item = softmax(OwnQuantizer(0.1, 0, symmetric=True, node=2), masked=True)
    assert of(item).quantizer == LogitQuantizer((0.1,), (0,))
    assert of(item).item == item


def test_paper_has_no_mask_and_so_no_code_for_it() -> None:
    result = of(softmax(FINE, masked=True, length=64), "uint8", "div", "paper")
    assert not result.params.masked
    assert result.quantizer.zero_point == (-16,)


def test_pair_before_a_mask_is_taken_when_the_mask_ruins_the_nearest() -> None:
    assert of(softmax(COARSE, FINE, masked=True)).quantizer == LogitQuantizer((0.1,), (-15,))


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (softmax(), r"that the model has quantised: nothing is quantised\. Add --data DATA"),
        (softmax(COARSE), r"too coarse \(a code is 80 nats, needs <= 0\.94\)"),
        (softmax(replace(FINE, scale=0.0)), "too coarse"),
        (softmax(replace(FINE, masked_before=True), masked=True), "it is quantised behind a mask"),
        (softmax(replace(FINE, scale=0.5, mask=100.0), masked=True), r"takes off \(128 nats, needs <= 100\)"),
        (softmax(replace(FINE, zero_point=127), masked=True), "leaves no code for the mask"),
    ],
)
def test_quantiser_that_does_not_do_is_refused_with_the_reason(item: AttentionSoftmax, problem: str) -> None:
    with pytest.raises(CalibrationError, match=f"^node 'sm': .*{problem}"):
        of(item)


@pytest.mark.parametrize(
    "own", [replace(FINE, masked_before=True), replace(FINE, mask=20.0), replace(FINE, zero_point=127)]
)
def test_masks_do_not_matter_where_nothing_is_masked(own: OwnQuantizer) -> None:
    assert of(softmax(own)).quantizer.zero_point == (own.zero_point,)


def test_coarsest_code_still_leaves_the_least_number_in_the_clip_range() -> None:
    widest = 3.3 / (LEAST_DISTANCE - 0.5)
    assert of(softmax(replace(FINE, scale=widest * 0.999))).params.heads[0].Dmax == LEAST_DISTANCE
    with pytest.raises(CalibrationError, match="too coarse"):
        of(softmax(replace(FINE, scale=widest * 1.001)))


@pytest.mark.parametrize(("output", "reciprocal"), [("int16", "div"), ("int16", "clb"), ("uint8", "div")])
def test_rows_of_any_length_need_norm_where_the_row_sum_is_bounded(output: OutputType, reciprocal: Reciprocal) -> None:
    if output == "uint8":
        assert of(softmax(FINE), output, reciprocal).params.heads[0].B >= 256
        return
    with pytest.raises(CalibrationError, match=rf"{output} {reciprocal}, .*rows of any length\. Use reciprocal norm"):
        of(softmax(FINE), output, reciprocal)


def test_rows_too_long_for_the_row_sum_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"rows of 32768\. Use reciprocal norm"):
        of(softmax(FINE, length=32768), "int16", "div")


@given(
    scale=st.floats(1e-4, 0.9),
    length=st.integers(1, 512),
    masked=st.booleans(),
    output=st.sampled_from(["uint8", "int16"]),
    choice=st.sampled_from([("norm", "extended"), ("div", "extended"), ("clb", "extended"), ("div", "paper")]),
)
def test_parameters_are_legal_or_refused(
    scale: float, length: int, masked: bool, output: OutputType, choice: tuple[Reciprocal, Profile]
) -> None:
    reciprocal, profile = choice
    item = softmax(OwnQuantizer(scale, 0), masked=masked, length=length)
    try:
        params = of(item, output, reciprocal, profile).params
    except CalibrationError:
        assert reciprocal != "norm"  # norm is legal for rows of any length
        return
    assert params.violations(output, profile=profile, n=length) == ()
    (head,) = params.heads
    assert head.scale == scale
    assert head.clip_range == pytest.approx(min(3.3, 127 * scale), abs=scale / 2)


@given(scale=st.floats(3.3 / 127, 0.9))
def test_line_ends_as_the_data_free_default_does(scale: float) -> None:
    head = data_free_head(scale)
    assert head.floor_ratio == pytest.approx(DATA_FREE.floor_ratio, abs=1.0 / head.B)


@given(scale=st.floats(1e-4, 0.025))
def test_line_that_codes_cannot_make_long_enough_ends_at_the_exponential(scale: float) -> None:
    head = data_free_head(scale)
    assert head.Dmax == 127
    assert head.floor_ratio == pytest.approx(math.exp(-head.clip_range), abs=0.01)
