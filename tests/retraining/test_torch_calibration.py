"""Calibration of a torch model: its entries are in order of the modules, whatever order these run in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from torch import nn

from hccs_onnx import Calibration
from hccs_onnx.errors import ModelError
from hccs_onnx.torch import calibrate, swap

WIDTH, LENGTH, SHORT = 16, 7, 3
X = 3 * torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))


class Backwards(nn.Module):
    """Attention that is registered in another order than it runs in, on rows of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.long = (nn.MultiheadAttention(WIDTH, 4, batch_first=True) for _ in range(2))

    def forward(self, x: torch.Tensor) -> Any:
        x = self.long(x, x, x)[0]
        return self.short(x, x[:, :SHORT], x[:, :SHORT])[0]


class ByHand(nn.Module):
    """Attention written out, likewise."""

    def __init__(self) -> None:
        super().__init__()
        self.short, self.long, self.classes = nn.Softmax(dim=-1), nn.Softmax(dim=-1), nn.Softmax(dim=-1)
        self.queries = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def forward(self, x: torch.Tensor) -> Any:
        x = self.long(self.queries[0](x) @ x.transpose(1, 2)) @ x
        return self.classes(self.short(self.queries[1](x) @ x[:, :SHORT].transpose(1, 2)) @ x[:, :SHORT])


class Tied(nn.Module):
    """Attention of which one runs twice, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never = (nn.MultiheadAttention(WIDTH, 4, batch_first=True) for _ in range(2))

    def forward(self, x: torch.Tensor) -> Any:
        for _ in range(2):
            x = self.twice(x, x, x)[0]
        return x


def calibrated(model: nn.Module, dynamo: bool = False, softmax: str | None = None) -> Calibration:
    options = {"input_names": ["x"]}
    return calibrate(model, (X,), [{"x": X.numpy()}], dynamo=dynamo, export_options=options, softmax=softmax)


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_modules_get_the_parameters_of_their_own_node(dynamo: bool) -> None:
    model = Backwards()
    calibration = calibrated(model, dynamo)
    assert [entry.longest for entry in calibration.softmaxes] == [SHORT, LENGTH]
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert [item.name for item in swap(model, calibration)] == ["short", "long"]


def test_named_softmax_modules_get_the_parameters_of_their_own_node() -> None:
    names = "short|long"
    model = ByHand()
    calibration = calibrated(model, softmax=names)
    assert [entry.longest for entry in calibration.softmaxes] == [SHORT, LENGTH]
    for item, entry in zip(swap(model, calibration, softmax=names), calibration.softmaxes, strict=True):
        heads = item.softmax.params.heads
        assert [head.B for head in heads] == [fit.params.B for fit in entry.heads]
        np.testing.assert_allclose([head.scale for head in heads], [fit.params.scale for fit in entry.heads], rtol=1e-6)


def test_module_that_does_not_run_once_is_refused() -> None:
    message = r"module 'twice': cannot tell which Softmax node is its own, as it does not run once \(2 times\)"
    with pytest.raises(ModelError, match=message):
        calibrated(Tied())


def test_encoder_of_torch_is_calibrated_without_its_fused_path() -> None:
    layer = nn.TransformerEncoderLayer(WIDTH, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    assert len(calibrated(model).softmaxes) == 2
    assert torch.backends.mha.get_fastpath_enabled()
