"""Export by both exporters: HCCS nodes with their function, equal to torch; and a small BERT all along the road."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Run

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from torch import nn

import hccs_onnx.torch
from hccs_onnx import Calibration, HccsParams, HeadParams
from hccs_onnx.errors import HccsError, ModelError, ParameterError
from hccs_onnx.operator.schema import is_hccs, read_attributes
from hccs_onnx.params import PROBABILITY_UNIT, LogitQuantizer
from hccs_onnx.torch import HCCSSoftmax, export, swap

EXPORTERS = pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
HEADS = (HeadParams(1200, 12, 90, 0.05), HeadParams(800, 5, 127, 0.03125), HeadParams(900, 7, 100, 0.04))
QUANTIZER = LogitQuantizer((0.05, 0.03125, 0.04), (60, 20, -3))
FORMS = [
    ("float", "norm", QUANTIZER),
    ("uint8", "norm", QUANTIZER),
    ("uint8", "clb", QUANTIZER),
    ("int16", "div", QUANTIZER),
    ("int16", "norm", LogitQuantizer((0.05,), (60,))),
]


def counts(model: onnx.ModelProto) -> dict[str, int]:
    kinds = ("HCCS", "Softmax", "QuantizeLinear")
    return {kind: sum(node.op_type == kind for node in model.graph.node) for kind in kinds}


@EXPORTERS
@pytest.mark.parametrize(("output", "reciprocal", "quantizer"), FORMS)
def test_exported_module_gives_the_same_bits(
    tmp_path: Path, run: Run, dynamo: bool, output: Any, reciprocal: Any, quantizer: LogitQuantizer
) -> None:
    params = HccsParams(HEADS, reciprocal=reciprocal, masked=True)
    given = None if output == "float" else quantizer
    softmax = HCCSSoftmax(params, output=output, quantizer=given)
    x = 3 * torch.randn(2, 3, 5, 9, generator=torch.Generator().manual_seed(0))
    x[0, :, :, 7:] = -float("inf")
    x[1, :, 2] = torch.finfo(torch.float32).min
    path = export(
        nn.Sequential(softmax), (x,), tmp_path / "softmax.onnx", dynamo=dynamo, input_names=["x"], output_names=["y"]
    )
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    pairs = 0 if output == "float" else 1
    assert [counts(model)[kind] for kind in ("HCCS", "Softmax", "QuantizeLinear")] == [1, 0, pairs]
    (node,) = (node for node in model.graph.node if is_hccs(node))
    assert {attribute.name for attribute in node.attribute} == {
        "B", "S", "Dmax", "scale", "head_axis", "reciprocal", "masked", "mask_gap",
    }  # fmt: skip
    found = read_attributes(node)
    assert [(head.B, head.S, head.Dmax) for head in found.heads] == [(head.B, head.S, head.Dmax) for head in HEADS]
    expected = softmax(x).numpy()
    for name in ("function", "native"):
        np.testing.assert_array_equal(run(path, {"x": x.numpy()}, backend=name)[0], expected)
    assert PROBABILITY_UNIT[output] == 1 or np.ptp(expected) > 0.2
    assert {entry.key for entry in model.metadata_props} >= {"hccs_onnx.version", "hccs_onnx.calibration"}


@EXPORTERS
def test_encoder_of_torch_is_exported_with_masks(tmp_path: Path, run: Run, dynamo: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    swap(model)
    x, padding = torch.randn(3, 6, 16), torch.zeros(3, 6).bool()
    padding[1, 4:] = True
    path = export(
        model, (x,), tmp_path / "encoder.onnx", kwargs={"src_key_padding_mask": padding}, dynamo=dynamo,
        input_names=["x", "padding"],
    )  # fmt: skip
    assert model.training  # as it was
    assert counts(onnx.load(path))["HCCS"] == 2
    with torch.no_grad():
        expected = model.eval()(x, src_key_padding_mask=padding).numpy()
    result = run(path, {"x": x.numpy(), "padding": padding.numpy()})[0]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_half_precision_is_cast_around(tmp_path: Path, run: Run) -> None:
    x = torch.randn(2, 3, 5, 9).half()
    path = export(nn.Sequential(HCCSSoftmax()), (x,), tmp_path / "half.onnx", dynamo=False, input_names=["x"])
    np.testing.assert_array_equal(run(path, {"x": x.numpy()})[0], HCCSSoftmax()(x).numpy())


def test_what_was_learned_is_exported(tmp_path: Path) -> None:
    softmax = HCCSSoftmax(HccsParams(HEADS), learn=True)
    with torch.no_grad():
        softmax.line.log_clip_range.add_(0.3)
    path = export(nn.Sequential(softmax), (torch.randn(2, 3, 5, 9),), tmp_path / "learned.onnx", dynamo=False)
    (node,) = (node for node in onnx.load(path).graph.node if is_hccs(node))
    assert read_attributes(node).heads == softmax.params.heads
    assert softmax.params.heads[0].clip_range == pytest.approx(HEADS[0].clip_range * np.exp(0.3), rel=1e-5)


def test_dynamo_keeps_the_users_translations(tmp_path: Path, run: Run) -> None:
    from onnxscript import opset18

    table = {torch.ops.aten.relu.default: opset18.Neg}
    model = nn.Sequential(nn.ReLU(), HCCSSoftmax())
    x = torch.randn(2, 9)
    path = export(model, (x,), tmp_path / "m.onnx", input_names=["x"], custom_translation_table=table)
    np.testing.assert_array_equal(run(path, {"x": x.numpy()})[0], HCCSSoftmax()(-x).numpy())


def test_export_is_refused_without_hccs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Linear: holds no HCCSSoftmax\. Call hccs_onnx\.torch\.swap\(model\) first"):
        export(nn.Linear(2, 2), (torch.zeros(1, 2),), tmp_path / "m.onnx")


def test_export_is_refused_when_modules_differ(tmp_path: Path) -> None:
    model = nn.Sequential(HCCSSoftmax(), HCCSSoftmax(output="uint8", quantizer=LogitQuantizer((0.1,), (0,))))
    with pytest.raises(ModelError, match=r"differ in output or reciprocal \(float norm, uint8 norm, needs one for all"):
        export(model, (torch.zeros(1, 2),), tmp_path / "m.onnx")


def test_export_is_refused_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        export(HCCSSoftmax(), (torch.zeros(1, 2),), tmp_path / "missing" / "m.onnx")


def test_illegal_parameters_are_not_exported_and_nothing_is_left(tmp_path: Path) -> None:
    softmax = HCCSSoftmax()
    softmax.S.fill_(128)
    with pytest.raises(ParameterError, match="slope S out of range"):
        export(softmax, (torch.zeros(1, 2),), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_quantisers_of_heads_are_not_exported_to_an_opset_without_them(tmp_path: Path) -> None:
    softmax = HCCSSoftmax(HccsParams(HEADS), output="uint8", quantizer=QUANTIZER)
    message = r"cannot be quantised per head in opset 12\. Export with opset_version=13 or newer"
    with pytest.raises(ModelError, match=message):
        export(nn.Sequential(softmax), (torch.randn(2, 3, 5, 9),), tmp_path / "m.onnx", dynamo=False, opset_version=11)
    assert list(tmp_path.iterdir()) == []


@EXPORTERS
def test_quantisers_of_folded_heads_are_exported_only_if_equal(tmp_path: Path, run: Run, dynamo: bool) -> None:
    x, params = torch.randn(6, 5, 9), HccsParams(HEADS)
    per_head = HCCSSoftmax(params, output="uint8", quantizer=QUANTIZER)
    assert per_head(x).shape == x.shape
    message = r"per head \(logits \(6, 5, 9\), head_axis -3, needs 3 there\)\. Calibrate with scale_granularity"
    with pytest.raises(ModelError, match=message):
        export(nn.Sequential(per_head), (x,), tmp_path / "m.onnx", dynamo=dynamo)
    assert list(tmp_path.iterdir()) == []
    equal = HCCSSoftmax(params, output="uint8", quantizer=LogitQuantizer((0.05,) * 3, (60,) * 3))
    path = export(nn.Sequential(equal), (x,), tmp_path / "m.onnx", dynamo=dynamo, input_names=["x"])
    np.testing.assert_array_equal(run(path, {"x": x.numpy()})[0], equal(x).numpy())


def test_failing_export_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.softmax = HCCSSoftmax()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError

    model = Broken()
    with pytest.raises(ZeroDivisionError):
        export(model, (torch.zeros(1, 2),), tmp_path / "m.onnx", dynamo=False)
    assert model.training
    x = torch.randn(1, 4, requires_grad=True)
    assert model.softmax(x).requires_grad  # not the exporters' operator
    assert list(tmp_path.iterdir()) == []


# a small BERT all along the road: calibrate, swap, train by distillation, export, run

BATCH, LENGTH = 4, 8


def bert() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=16,
    )  # fmt: skip
    model = transformers.BertModel(config, add_pooling_layer=False)
    for layer in model.encoder.layer:
        for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
            linear.weight.data.mul_(30)  # attention far from uniform
    return model.eval()


def tokens(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    mask[1, 5:] = 0
    return {"input_ids": torch.randint(3, 60, (BATCH, LENGTH), generator=generator), "attention_mask": mask}


NAMES = ["input_ids", "attention_mask"]
AXES = {name: {0: "batch"} for name in NAMES}


@pytest.fixture(scope="module")
def calibrations() -> dict[str, Calibration]:
    """Of the small BERT, by output; the float export is TorchScript's, which is the faster one."""
    feeds = [{name: value[[i]].numpy() for name, value in tokens(s).items()} for s in range(3) for i in range(BATCH)]
    return {
        output: hccs_onnx.torch.calibrate(
            bert(), (), feeds, kwargs=tokens(0), dynamo=False, to=output,
            export_options={"input_names": NAMES, "dynamic_axes": AXES},
        )
        for output in ("float", "uint8")
    }  # fmt: skip


@EXPORTERS
@pytest.mark.parametrize("output", ["float", "uint8"])
def test_bert_is_retrained_and_exported(
    tmp_path: Path, run: Run, calibrations: dict[str, Calibration], output: str, dynamo: bool
) -> None:
    model = bert()
    teacher = copy.deepcopy(model)
    swapped = swap(model, calibrations[output], learn=True)
    assert [len(item.softmax.params.heads) for item in swapped] == [4, 4]
    optimizer = torch.optim.SGD(model.parameters(), 0.003)
    losses = []
    for _ in range(3):
        inputs = tokens(0)
        with torch.no_grad():
            wanted = teacher(**inputs).last_hidden_state
        loss = (model(**inputs).last_hidden_state - wanted)[inputs["attention_mask"].bool()].square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(
            torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None
        )
        assert (swapped[0].softmax.line.log_clip_range.grad != 0).all()
        assert (model.encoder.layer[0].attention.self.query.weight.grad != 0).any()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    axes = {"dynamic_shapes": AXES} if dynamo else {"dynamic_axes": AXES}
    path = export(
        model,
        (),
        tmp_path / "bert.onnx",
        kwargs=tokens(0),
        dynamo=dynamo,
        input_names=NAMES,
        output_names=["y"],
        **axes,
    )
    assert counts(onnx.load(path))["HCCS"] == 2
    inputs = {name: value[:3] for name, value in tokens(7).items()}  # another batch size
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.numpy()
    feed = {name: value.numpy() for name, value in inputs.items()}
    results = [run(path, feed, backend=name)[0] for name in ("function", "native")]
    np.testing.assert_array_equal(*results)
    # A logit on the edge between two codes may fall either way.
    assert np.isclose(results[0], expected, rtol=0, atol=1e-4).mean() > 0.95
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=0.1)


def test_calibration_of_a_swapped_model_is_refused() -> None:
    model = bert()
    swap(model)
    with pytest.raises(HccsError, match=r"BertModel: holds HCCSSoftmax already"):
        hccs_onnx.torch.calibrate(model, (), [], kwargs=tokens(0), dynamo=False, export_options={"input_names": NAMES})
