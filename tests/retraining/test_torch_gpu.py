"""The torch modules on a GPU, where there is one: the same numbers as on the CPU, and training there."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from hccs_onnx import HccsParams, HeadParams, hccs
from hccs_onnx.calibration.fit import legal_head
from hccs_onnx.params import PROBABILITY_UNIT, RECIPROCALS, LogitQuantizer
from hccs_onnx.torch import HCCSSoftmax, export, swap

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

HEADS = (legal_head(3.0, 0.05), legal_head(5.5, 0.004), HeadParams(2000, 20, 60, 0.05))
QUANTIZER = LogitQuantizer((0.0625, 0.125, 0.03), (3, -7, 100))
COLUMNS = {name: [getattr(head, name) for head in HEADS] for name in ("B", "S", "Dmax", "scale")}


def some_logits(n: int, batch: int = 40) -> np.ndarray:
    rng = np.random.default_rng(n)
    x = rng.normal(0, 3, (batch, len(HEADS), 33, n)).astype(np.float32)
    x[0, :, 0] = -np.inf  # masked throughout
    x[1, :, :, -1] = -np.inf
    x[2, :, 1] += np.finfo(np.float32).min
    return x


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n", [1, 7, 64, 513, 1500])
def test_float_forward_equals_reference_on_gpu(n: int, masked: bool) -> None:
    x = some_logits(n)
    softmax = HCCSSoftmax(HccsParams(HEADS, masked=masked)).cuda()
    expected = hccs(x, np.float32, **COLUMNS, masked=masked)
    np.testing.assert_array_equal(softmax(torch.from_numpy(x).cuda()).cpu().numpy(), expected)


@pytest.mark.parametrize("reciprocal", RECIPROCALS)
@pytest.mark.parametrize("output", ["uint8", "int16"])
@pytest.mark.parametrize("n", [7, 64, 513])
def test_integer_forward_equals_reference_on_gpu(n: int, output: Any, reciprocal: Any) -> None:
    whole_range = output == "uint8" or reciprocal == "norm"
    heads = HEADS if whole_range else (HeadParams(32767 // n, 1, 1),) * len(HEADS)
    x = some_logits(n)
    scale, zero = (np.array(values, np.float32)[:, None, None] for values in (QUANTIZER.scale, QUANTIZER.zero_point))
    with np.errstate(over="ignore"):
        codes = np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)
    columns = {name: [getattr(head, name) for head in heads] for name in ("B", "S", "Dmax")}
    whole = hccs(codes, output, **columns, reciprocal=reciprocal, masked=True)
    params = HccsParams(heads, reciprocal=reciprocal, masked=True)
    softmax = HCCSSoftmax(params, output=output, quantizer=QUANTIZER).cuda()
    found = softmax(torch.from_numpy(x).cuda()).cpu().numpy()
    np.testing.assert_array_equal(found, whole * np.float32(PROBABILITY_UNIT[output]))


@pytest.mark.parametrize("quantizer", [None, QUANTIZER], ids=["float", "uint8"])
@pytest.mark.parametrize("learn", [False, True])
def test_gradients_on_gpu_are_those_on_cpu(learn: bool, quantizer: LogitQuantizer | None) -> None:
    params = HccsParams(HEADS, masked=True)
    module = HCCSSoftmax(params, output="uint8" if quantizer else "float", quantizer=quantizer, learn=learn)
    logits = torch.from_numpy(some_logits(64))
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", "cuda"):
        softmax = copy.deepcopy(module).to(device)
        x = logits.to(device).requires_grad_()
        loss = (softmax(x) * weight.to(device)).sum()
        found.append([grad.cpu() for grad in torch.autograd.grad(loss, (x, *softmax.parameters()))])
    for on_cpu, on_gpu in zip(*found, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("learn", [False, True])
def test_swapped_model_trains_and_exports_on_gpu(tmp_path: Path, learn: bool) -> None:
    import onnxruntime as ort

    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(d_model=16, nhead=2, dropout=0.0, batch_first=True).cuda()
    (swapped,) = swap(model, learn=learn)
    assert {tensor.device.type for tensor in swapped.softmax.state_dict().values()} == {"cuda"}
    x = torch.randn(4, 5, 16, device="cuda")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        loss = ((model(x) - x.roll(1, dims=1)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    path = export(model, (x,), tmp_path / "model.onnx", dynamo=False, input_names=["x"])
    found = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x.cpu().numpy()})[0]
    expected = model.eval()(x).detach().cpu().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)
