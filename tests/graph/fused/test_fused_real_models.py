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
FORMS = [
    "Attention",
    pytest.param("MultiHeadAttention", marks=pytest.mark.slow),
    pytest.param("QAttention", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """The operator that hides the Softmax."""
    return str(request.param)


@pytest.fixture(scope="module")
def fused(form: str, minilm_l3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM L3 with that operator."""
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.fusion_options import FusionOptions

    path = tmp_path_factory.mktemp("fused") / "m.onnx"
    options = FusionOptions("bert")
    options.use_multi_head_attention = form == "MultiHeadAttention"
    model = optimizer.optimize_model(
        str(minilm_l3), "bert", num_heads=HEADS, hidden_size=384, optimization_options=options, opt_level=0
    )
    model.save_model_to_file(str(path))
    if form == "QAttention":
        more = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(path, path.with_name("q.onnx"), weight_type=QuantType.QInt8, extra_options=more)
        path = path.with_name("q.onnx")
    return path


def feeds(sentences: dict[str, np.ndarray], *, padded: bool, count: int = 16) -> list[dict[str, np.ndarray]]:
    result = []
    for row in range(count):
        length = 32 if padded else int(sentences["attention_mask"][row].sum())
        result.append({name: sentences[name][row : row + 1, :length] for name in ("input_ids", "attention_mask")})
    return result


def test_fused_encoder_taken_apart_computes_the_same(
    form: str, fused: Path, sentences: dict[str, np.ndarray], run: Run
) -> None:
    model = onnx.load(fused)
    assert op_types(model).count(form) == LAYERS
    feed = {name: sentences[name][:4] for name in ("input_ids", "attention_mask")}
    wanted = run(model, feed)
    assert len(expand_fused(model, Path())) == LAYERS
    assert form not in op_types(model)
    for one, other in zip(run(model, feed), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def test_fused_encoder_is_calibrated_rewritten_and_verified(
    fused: Path, sentences: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = inspect(fused)
    assert [(item.reason, item.heads, item.masked, item.self_attention) for item in found] == [
        (None, HEADS, True, True)
    ] * LAYERS
    np.testing.assert_allclose([item.factor for item in found], 32**-0.5, rtol=1e-6)
    calibration = calibrate(fused, feeds(sentences, padded=True)[:4])
    report = rewrite(fused, tmp_path / "new.onnx", calibration=calibration)
    assert op_types(onnx.load(report.output)).count("HCCS") == LAYERS
    result = verify(fused, report.output, feeds(sentences, padded=False)[12:])
    assert len(result.heads) == LAYERS * HEADS
    assert min(output.mean_cosine for output in result.outputs) > 0.98


def test_layers_of_a_fused_encoder_that_are_excluded_stay_fused(form: str, fused: Path, tmp_path: Path) -> None:
    report = rewrite(fused, tmp_path / "new.onnx", exclude="Attention_0")
    assert [item.reason for item in report.found].count(None) == LAYERS - 1
    kinds = op_types(onnx.load(report.output))
    assert (kinds.count(form), kinds.count("HCCS")) == (1, LAYERS - 1)
