"""A real encoder as onnxruntime's transformer optimiser fuses it: calibrated, rewritten and verified like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import op_types

from hccs_onnx import calibrate, inspect, rewrite, verify
from hccs_onnx.graph.fused import expand_fused

LAYERS, HEADS = 3, 12
FORMS = ("Attention", "MultiHeadAttention", "QAttention")


@pytest.fixture(scope="module")
def fused(minilm_l3: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MiniLM L3 with each of the operators, by operator."""
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.fusion_options import FusionOptions

    folder = tmp_path_factory.mktemp("fused")
    paths = {form: folder / f"{form}.onnx" for form in FORMS}
    for form in FORMS[:2]:
        options = FusionOptions("bert")
        options.use_multi_head_attention = form == "MultiHeadAttention"
        model = optimizer.optimize_model(
            str(minilm_l3), "bert", num_heads=HEADS, hidden_size=384, optimization_options=options, opt_level=0
        )
        model.save_model_to_file(str(paths[form]))
    quantize_dynamic(
        paths["Attention"],
        paths["QAttention"],
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    return paths


def feeds(sentences: dict[str, np.ndarray], *, padded: bool, count: int = 16) -> list[dict[str, np.ndarray]]:
    result = []
    for row in range(count):
        length = 32 if padded else int(sentences["attention_mask"][row].sum())
        result.append({name: sentences[name][row : row + 1, :length] for name in ("input_ids", "attention_mask")})
    return result


@pytest.mark.parametrize("form", FORMS)
def test_fused_encoder_taken_apart_computes_the_same(
    form: str, fused: dict[str, Path], sentences: dict[str, np.ndarray], run: Run
) -> None:
    model = onnx.load(fused[form])
    assert op_types(model).count(form) == LAYERS
    feed = {name: sentences[name][:4] for name in ("input_ids", "attention_mask")}
    wanted = run(model, feed)
    assert len(expand_fused(model, Path())) == LAYERS
    assert form not in op_types(model)
    for one, other in zip(run(model, feed), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_fused_encoder_is_calibrated_rewritten_and_verified(
    form: str, fused: dict[str, Path], sentences: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = inspect(fused[form])
    assert [(item.reason, item.heads, item.masked, item.self_attention) for item in found] == [
        (None, HEADS, True, True)
    ] * LAYERS
    np.testing.assert_allclose([item.factor for item in found], 32**-0.5, rtol=1e-6)
    calibration = calibrate(fused[form], feeds(sentences, padded=True)[:8])
    report = rewrite(fused[form], tmp_path / "new.onnx", calibration=calibration)
    assert op_types(onnx.load(report.output)).count("HCCS") == LAYERS
    result = verify(fused[form], report.output, feeds(sentences, padded=False)[8:])
    assert len(result.heads) == LAYERS * HEADS
    assert min(output.mean_cosine for output in result.outputs) > 0.98


@pytest.mark.parametrize("form", FORMS)
def test_layers_of_a_fused_encoder_that_are_excluded_stay_fused(
    form: str, fused: dict[str, Path], tmp_path: Path
) -> None:
    report = rewrite(fused[form], tmp_path / "new.onnx", exclude="Attention_0")
    assert [item.reason for item in report.found].count(None) == LAYERS - 1
    kinds = op_types(onnx.load(report.output))
    assert (kinds.count(form), kinds.count("HCCS")) == (1, LAYERS - 1)
