"""The torch surrogate: forward as the reference to the bit, backward as the unrounded line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from hccs_onnx import HccsParams, HeadParams, hccs
from hccs_onnx.calibration.fit import legal_head
from hccs_onnx.params import PROBABILITY_UNIT, RECIPROCALS, LogitQuantizer
from hccs_onnx.torch import HCCSSoftmax
from hccs_onnx.torch import surrogate as surrogate_module

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent.parent / "golden" / "hccs_golden.json").read_text())[
    "cases"
]
INTEGER = [(output, reciprocal) for output in ("uint8", "int16") for reciprocal in RECIPROCALS]
CODES = LogitQuantizer((1.0,), (0,))  # logits that are codes already


def assert_same(actual: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(actual.detach().numpy(), expected)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_forward_reproduces_golden_vector(case: dict[str, Any]) -> None:
    names = ("B", "S", "Dmax", "scale")
    count = max(len(case[name]) for name in names)
    columns = [case[name] * count if len(case[name]) == 1 else case[name] for name in names]
    heads = tuple(HeadParams(*values) for values in zip(*columns, strict=True))
    params = HccsParams(heads, case["head_axis"], case["reciprocal"], bool(case["masked"]), case["mask_gap"])
    output = case["output"]
    softmax = HCCSSoftmax(params, output=output, quantizer=None if output == "float" else CODES)
    if output == "float":
        x, y = (np.array(case[name], np.uint32).view(np.float32) for name in ("x", "y"))
    else:
        x, y = np.array(case["x"], np.float32), np.array(case["y"], np.float32) * np.float32(PROBABILITY_UNIT[output])
    assert_same(softmax(torch.from_numpy(x.reshape(case["shape"]))), y.reshape(case["shape"]))


def some_heads(rng: np.random.Generator, count: int) -> tuple[HeadParams, ...]:
    heads = []
    for _ in range(count):
        slope, distance, floor = int(rng.integers(0, 128)), int(rng.integers(1, 128)), int(rng.integers(256, 4000))
        heads.append(HeadParams(slope * distance + floor, slope, distance, float(np.float32(rng.uniform(0.01, 0.5)))))
    return tuple(heads)


def some_logits(rng: np.random.Generator, heads: int, n: int) -> np.ndarray:
    x = rng.normal(0, 3, (4, heads, 9, n)).astype(np.float32)
    x[0, :, 0] = -np.inf  # masked throughout
    x[1, :, :, -1] = -np.inf
    x[2, :, 1] += np.finfo(np.float32).min
    x[2, :, 2, 0] = np.finfo(np.float32).min
    return x


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("n", [1, 7, 64, 513, 1500])
def test_float_forward_equals_reference(n: int, heads: int, masked: bool) -> None:
    rng = np.random.default_rng(n)
    entries = some_heads(rng, heads)
    x = some_logits(rng, heads, n)
    x[3, 0, 0, 0], x[3, 0, 1, 0] = np.inf, np.nan
    columns = {name: [getattr(head, name) for head in entries] for name in ("B", "S", "Dmax", "scale")}
    expected = hccs(x, np.float32, **columns, masked=masked)
    softmax = HCCSSoftmax(HccsParams(entries, masked=masked))
    assert_same(softmax(torch.from_numpy(x)), expected)
    assert_same(softmax(torch.from_numpy(x.copy()), overwrite=True), expected)


@pytest.mark.parametrize(("output", "reciprocal"), INTEGER)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n", [1, 7, 64, 513])
def test_integer_forward_equals_quantizer_and_reference(n: int, masked: bool, output: Any, reciprocal: Any) -> None:
    rng = np.random.default_rng(n)
    heads = some_heads(rng, 3)
    if output == "int16" and reciprocal != "norm":
        heads = tuple(HeadParams(32767 // n, 1, 1) for _ in heads)
    quantizer = LogitQuantizer(tuple(rng.uniform(0.02, 0.5, 3).tolist()), tuple(rng.integers(-128, 128, 3).tolist()))
    x = some_logits(rng, 3, n)
    scale, zero = (np.array(values, np.float32)[:, None, None] for values in (quantizer.scale, quantizer.zero_point))
    with np.errstate(over="ignore"):
        codes = np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)
    columns = {name: [getattr(head, name) for head in heads] for name in ("B", "S", "Dmax")}
    expected = hccs(codes, output, **columns, reciprocal=reciprocal, masked=masked) * np.float32(
        PROBABILITY_UNIT[output]
    )
    params = HccsParams(heads, reciprocal=reciprocal, masked=masked)
    assert_same(HCCSSoftmax(params, output=output, quantizer=quantizer)(torch.from_numpy(x)), expected)


@pytest.mark.parametrize("head_axis", [0, 1, -2])
def test_forward_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch, head_axis: int) -> None:
    rng = np.random.default_rng(0)
    softmax = HCCSSoftmax(HccsParams(some_heads(rng, 4), head_axis, masked=True), learn=True)
    x = torch.from_numpy(rng.normal(0, 3, (8, 4, 4, 33)).astype(np.float32)).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    results = []
    for block in (1, 3000, 2**20):
        monkeypatch.setattr(surrogate_module, "_BLOCK", block)
        y = softmax(x)
        results.append((y, *torch.autograd.grad((y * weight).sum(), (x, *softmax.parameters()))))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert torch.equal(results[0][0], results[2][0])


# gradients, where the line is smooth: gaps on whole codes, none where the line bends, one maximum


TOP = 3


def smooth_logits(heads: tuple[HeadParams, ...], widest: int = 200, n: int = 17) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    codes = torch.stack([torch.randperm(widest, generator=generator)[:n] + 1 for _ in range(15 * len(heads))])
    codes = codes.reshape(3, len(heads), 5, n).float()
    bend = torch.tensor([head.Dmax for head in heads]).reshape(1, -1, 1, 1)
    codes[codes == bend] -= 1
    codes[..., TOP] = 0
    return -codes * torch.tensor([head.scale for head in heads]).reshape(1, -1, 1, 1)


def line(x: torch.Tensor, clip: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """Shares of the unrounded line, in float64."""
    gap = x.amax(-1, keepdim=True) - x
    score = 1 - (1 - ratio) * (gap / clip).clamp(max=1)
    return score / score.sum(-1, keepdim=True)


HEADS = (legal_head(3.0, 0.05), legal_head(5.0, 0.2), HeadParams(2000, 20, 60, 0.05))


def test_gradients_are_those_of_the_unrounded_line() -> None:
    softmax = HCCSSoftmax(HccsParams(HEADS[:2], masked=True), learn=True)
    x = smooth_logits(softmax.params.heads).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    shape = (1, 2, 1, 1)
    clip, ratio = (
        torch.tensor([getattr(head, name) for head in softmax.params.heads], dtype=torch.float64).reshape(shape)
        for name in ("clip_range", "floor_ratio")
    )
    log_clip, log_ratio = clip.log().requires_grad_(), ratio.log().requires_grad_()
    expected = line(x.double(), log_clip.exp(), log_ratio.exp())
    by_line = torch.autograd.grad((expected * weight).sum(), (x, log_clip, log_ratio))
    y = softmax(x)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-6)
    found = torch.autograd.grad((y * weight).sum(), (x, softmax.line.log_clip_range, softmax.line.log_floor_ratio))
    assert found[0].abs().max() > 0.05
    for a, b in zip(found, by_line, strict=True):
        torch.testing.assert_close(a, b.flatten().float().reshape(a.shape), rtol=2e-3, atol=1e-6)


def test_gradient_is_the_central_difference_over_one_code() -> None:
    softmax = HCCSSoftmax(HccsParams(HEADS, masked=True))
    x = smooth_logits(HEADS)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    grad = torch.autograd.grad((softmax(x.requires_grad_()) * weight).sum(), x)[0]
    x = x.detach()
    steps = torch.tensor([head.scale for head in HEADS]).reshape(1, -1, 1, 1)
    for key in range(x.shape[-1]):
        if key == TOP:
            continue
        move = torch.zeros_like(x)
        move[..., key] = 1
        ends = [(softmax(x + sign * steps * move) * weight).sum(-1) for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * steps[..., 0])
        gap = -x[..., key] / steps[..., 0]
        smooth = (gap > 1.5) & ((gap - softmax.Dmax.reshape(1, -1, 1)).abs() > 1.5)
        assert smooth.any()
        torch.testing.assert_close(difference[smooth], grad[..., key][smooth], rtol=0.03, atol=2e-4)


@pytest.mark.parametrize(("output", "reciprocal"), INTEGER)
def test_integer_gradient_is_the_lines_times_what_the_reciprocal_makes_of_the_sum(output: Any, reciprocal: Any) -> None:
    heads = tuple(HeadParams(1200, 12, 90, scale) for scale in (0.05, 0.03))
    quantizer = LogitQuantizer(tuple(head.scale for head in heads), (60, 20))
    softmax = HCCSSoftmax(HccsParams(heads, reciprocal=reciprocal, masked=True), output=output, quantizer=quantizer)
    x = smooth_logits(heads, widest=140).requires_grad_()  # no code saturates
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    clip = torch.tensor([head.clip_range for head in heads]).reshape(1, -1, 1, 1)
    shares = line(x.double(), clip, torch.tensor(heads[0].floor_ratio))
    y = softmax(x)
    mass = y.detach().sum(-1, keepdim=True)
    expected = torch.autograd.grad((shares * mass * weight).sum(), x)[0]
    found = torch.autograd.grad((y * weight).sum(), x)[0]
    assert mass.min() > 0.6
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("output", ["float", "uint8", "int16"])
@pytest.mark.parametrize("hidden", [-float("inf"), torch.finfo(torch.float32).min])
def test_masked_keys_get_no_probability_and_no_gradient(output: Any, hidden: float) -> None:
    quantizer = None if output == "float" else LogitQuantizer((0.05,), (0,))
    softmax = HCCSSoftmax(
        HccsParams((HeadParams(3000, 20, 100, 0.03),), masked=True), output=output, quantizer=quantizer
    )
    logits = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()
    mask = torch.zeros(2, 1, 6, 6)
    mask[..., 4:] = hidden
    mask[1, :, 2] = hidden  # a row of nothing else
    y = softmax(logits + mask)
    assert (y[..., 4:] == 0).all() or hidden > -float("inf")
    assert (y[0][..., 4:] == 0).all()
    assert (y[0][..., :4] > 0).any()
    grad = torch.autograd.grad((y * torch.randn(y.shape)).sum(), logits)[0]
    assert torch.isfinite(grad).all()
    assert (grad[0][..., 4:] == 0).all()
    assert (grad[0][..., :4] != 0).any()
    if hidden == -float("inf"):
        assert (y[1, :, 2] == 0).all()
        assert (grad[1, :, 2] == 0).all()


def test_overwrite_saves_memory_and_gives_the_same_gradients() -> None:
    softmax = HCCSSoftmax()
    x = torch.randn(2, 3, 5, 5, requires_grad=True)
    weight = torch.randn(x.shape)
    results = []
    for overwrite in (False, True):
        logits = x * 2
        y = softmax(logits, overwrite=overwrite)
        assert (y.data_ptr() == logits.data_ptr()) == overwrite
        results.append(torch.autograd.grad((y * weight).sum(), x)[0])
    assert torch.equal(*results)
