"""The module: its parameters, what it refuses, what it learns, what it survives."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx import HccsParams, HeadParams
from hccs_onnx.calibration.fit import legal_head
from hccs_onnx.errors import ParameterError
from hccs_onnx.params import DATA_FREE, LogitQuantizer
from hccs_onnx.torch import HCCSSoftmax

HEADS = (legal_head(3.0, 0.05), legal_head(5.5, 0.004))
QUANTIZER = LogitQuantizer((0.0625, 0.125), (3, -7))


def as_scaled(heads: tuple[HeadParams, ...], quantizer: LogitQuantizer) -> tuple[HeadParams, ...]:
    return tuple(
        HeadParams(head.B, head.S, head.Dmax, scale) for head, scale in zip(heads, quantizer.scale, strict=True)
    )


def test_default_is_data_free_and_masked() -> None:
    softmax = HCCSSoftmax()
    assert softmax.params == HccsParams((HeadParams(16259, 127, 127, float(np.float32(DATA_FREE.scale))),), masked=True)
    assert softmax.quantizer is None
    assert list(softmax.parameters()) == []
    assert str(softmax) == "HCCSSoftmax(heads=1, output=float, masked=True)"


def test_params_and_quantizer_are_what_was_given() -> None:
    params = HccsParams(HEADS, head_axis=1, reciprocal="norm", masked=True, mask_gap=32.0)
    assert HCCSSoftmax(params).params == params
    softmax = HCCSSoftmax(params, output="uint8", quantizer=QUANTIZER)
    assert softmax.params.heads == as_scaled(HEADS, QUANTIZER)
    assert softmax.quantizer == QUANTIZER
    assert str(softmax) == "HCCSSoftmax(heads=2, output=uint8, reciprocal=norm, masked=True)"


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("output", ["float", "uint8"])
def test_state_goes_through_a_file(output: Any, learn: bool) -> None:
    quantizer = QUANTIZER if output == "uint8" else None
    made = HCCSSoftmax(HccsParams(HEADS), output=output, quantizer=quantizer, learn=learn)
    file = io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    blank = None if quantizer is None else LogitQuantizer((1.0, 1.0), (0, 0))
    other = HCCSSoftmax(HccsParams((DATA_FREE,) * 2), output=output, quantizer=blank, learn=learn)
    assert other.params != made.params
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.params == made.params
    assert other.quantizer == made.quantizer


def test_loaded_parameters_that_are_illegal_are_refused_when_used() -> None:
    softmax = HCCSSoftmax()
    softmax(torch.zeros(1, 4))
    softmax.load_state_dict({**softmax.state_dict(), "S": torch.tensor([128], dtype=torch.int32)})
    with pytest.raises(ParameterError, match=r"slope S out of range \(128, needs <= 127\)"):
        softmax(torch.zeros(1, 4))


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, learn: bool) -> None:
    exact, softmax = HCCSSoftmax(learn=learn), HCCSSoftmax(learn=learn)
    x = torch.randn(2, 3, 5, 7, requires_grad=True).to(dtype)
    softmax(x).square().sum().backward()
    torch.nn.Sequential(softmax).to(dtype)
    assert softmax.params == exact.params
    assert all(parameter.grad.dtype == torch.float32 for parameter in softmax.parameters())
    y = softmax(x)
    assert y.dtype == dtype
    assert torch.equal(y, exact(x.float()).to(dtype))


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 4, 0), (2, 3, 0, 4), (0, 3, 4, 4), (0,)])
def test_empty_logits_are_taken(shape: tuple[int, ...], learn: bool) -> None:
    x = torch.zeros(shape, requires_grad=True)
    y = HCCSSoftmax(learn=learn)(x)
    assert y.shape == torch.softmax(x, dim=-1).shape
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == shape


def test_logits_of_rank_one_and_folded_heads() -> None:
    softmax = HCCSSoftmax(HccsParams(HEADS))
    x = torch.randn(3, 2, 5, 7)
    assert torch.equal(softmax(x.flatten(0, 1)), softmax(x).flatten(0, 1))
    assert torch.equal(HCCSSoftmax()(x[0, 0, 0]), HCCSSoftmax()(x)[0, 0, 0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": HccsParams((HeadParams(300, 127, 127),))}, r"floor B - S\*Dmax is negative \(-15829, needs >= 0\)"),
        ({"output": "uint8"}, r"integer output needs a quantizer \(uint8\)"),
        ({"quantizer": QUANTIZER}, r"float output has no use for a quantizer"),
        (
            {
                "params": HccsParams(HEADS, reciprocal="div"),
                "output": "uint8",
                "quantizer": QUANTIZER,
                "learn": True,
            },
            r"only norm can learn \(div\)",
        ),
        (
            {"params": HccsParams(HEADS * 2), "output": "uint8", "quantizer": QUANTIZER},
            r"quantizer has another number of heads \(2, needs 4\)",
        ),
        (
            {"output": "uint8", "quantizer": LogitQuantizer((0.0,), (0,))},
            r"quantizer scale is not positive",
        ),
    ],
)
def test_illegal_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        HCCSSoftmax(**arguments)


def test_rows_that_are_too_long_are_refused() -> None:
    softmax = HCCSSoftmax(
        HccsParams((HeadParams(1000, 1, 1),), reciprocal="div"), output="int16", quantizer=LogitQuantizer((1.0,), (0,))
    )
    softmax(torch.zeros(1, 32))
    with pytest.raises(ParameterError, match=r"n\*B for n = 33"):
        softmax(torch.zeros(1, 33))


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4, 4), -3), ((2, 4), -3), ((2, 2, 2), 2)])
def test_logits_without_that_many_heads_are_refused(shape: tuple[int, ...], axis: int) -> None:
    softmax = HCCSSoftmax(HccsParams(HEADS))
    softmax.head_axis = axis
    with pytest.raises(ParameterError, match="parameters do not fit the head axis"):
        softmax(torch.zeros(shape))


# learning


@given(st.floats(0.3, 20), st.floats(1e-4, 0.8))
def test_learning_starts_where_the_fit_ended(clip: float, ratio: float) -> None:
    head = legal_head(clip, ratio)
    start = HCCSSoftmax(HccsParams((head,)), learn=True).params.heads[0]
    assert (start.B, start.S, start.Dmax) == (head.B, head.S, head.Dmax)
    assert start.scale == pytest.approx(head.scale, rel=1e-6)


@given(st.floats(-30, 30), st.floats(-30, 30), st.sampled_from(["float", "uint8"]), st.floats(0.001, 1))
def test_learned_parameters_are_legal_whatever_is_learned(clip: float, ratio: float, output: Any, code: float) -> None:
    quantizer = None if output == "float" else LogitQuantizer((code,), (0,))
    softmax = HCCSSoftmax(HccsParams((DATA_FREE,), masked=True), output=output, quantizer=quantizer, learn=True)
    with torch.no_grad():
        softmax.line.log_clip_range.fill_(clip)
        softmax.line.log_floor_ratio.fill_(ratio)
    assert softmax.params.violations(output) == ()
    assert softmax.params.heads[0].floor >= 1


@pytest.mark.parametrize(
    ("output", "start", "rate"),
    [("float", DATA_FREE, 0.03), ("uint8", DATA_FREE, 0.03), ("float", legal_head(3.3, 0.0), 0.1)],
    ids=["float", "uint8", "from the least floor"],
)
def test_learning_finds_clip_ranges_and_floors_of_a_teacher(output: Any, start: HeadParams, rate: float) -> None:
    generator = torch.Generator().manual_seed(0)
    quantizer = None if output == "float" else LogitQuantizer((0.06,), (60,))
    teacher = HCCSSoftmax(
        HccsParams((legal_head(5.0, 0.1), legal_head(2.0, 0.02))) if quantizer is None
        else HccsParams((HeadParams(9000, 100, 80), HeadParams(4200, 127, 33))), output=output, quantizer=quantizer,
    )  # fmt: skip
    student = HCCSSoftmax(HccsParams((start,) * 2), output=output, quantizer=quantizer, learn=True)
    optimizer = torch.optim.Adam(student.parameters(), rate)
    for _ in range(300):
        x = 2 * torch.randn(4, 2, 8, 24, generator=generator)
        loss = (student(x) - teacher(x)).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for found, wanted in zip(student.params.heads, teacher.params.heads, strict=True):
        assert found.clip_range == pytest.approx(wanted.clip_range, rel=0.05)
        assert found.floor_ratio == pytest.approx(wanted.floor_ratio, abs=0.02)


@pytest.mark.parametrize("beyond", [-30.0, 30.0])
def test_what_has_left_its_bounds_still_gets_gradients(beyond: float) -> None:
    softmax = HCCSSoftmax(learn=True)
    with torch.no_grad():
        for parameter in softmax.parameters():
            parameter.fill_(beyond)
    x = 3 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    softmax(x)[..., 0].sum().backward()
    assert [bool(parameter.grad != 0) for parameter in softmax.parameters()] == [beyond > 0, True]
