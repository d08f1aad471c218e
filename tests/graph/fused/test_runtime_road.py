"""onnxruntime's operators on the whole road: heads calibrated one by one, rewritten, verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph.fused.runtime_ops import RUNTIME, TESTED, Array, Case
from graph.fused.test_grouped_query import TURNED, angles
from graph.fused.test_multi_head import CASES as MULTI_HEAD
from graph.fused.test_runtime_attention import MASKS, QUANTIZED
from graph.models import op_types

from hccs_onnx import calibrate, rewrite, verify

COSINE, SINE = angles()
ROTARY = TURNED["step"].with_inputs(cosine=COSINE, sine=SINE)
CASES = {
    "Attention": MASKS["causal-lengths"],
    "QAttention": QUANTIZED["per-column"],
    "MultiHeadAttention": MULTI_HEAD["key-padding"],
    "GroupQueryAttention": ROTARY,
}


def feeds(case: Case, count: int = 6) -> list[dict[str, Array]]:
    """Samples of which the masks stay and the rest varies."""
    random = np.random.default_rng(5)
    result = []
    for _ in range(count):
        feed = dict(case.feed())
        for name, value in feed.items():
            if value.dtype == np.float32 and value.ndim > 1:
                feed[name] = random.normal(size=value.shape).astype(np.float32)
            elif value.dtype == np.uint8 and value.ndim > 1:
                feed[name] = random.integers(100, 140, value.shape).astype(np.uint8)
        result.append(feed)
    return result


@pytest.mark.parametrize("to", ["float", "uint8"])
@pytest.mark.parametrize("name", CASES)
def test_runtime_operator_is_calibrated_by_head_rewritten_and_verified(name: str, to: str, tmp_path: Path) -> None:
    if RUNTIME < TESTED and name in ("MultiHeadAttention", "GroupQueryAttention"):
        pytest.skip("this onnxruntime computes it in another way")
    case = CASES[name]
    onnx.save(case.model(), tmp_path / "m.onnx")
    samples = feeds(case)
    calibration = calibrate(tmp_path / "m.onnx", samples, to=to)  # type: ignore[arg-type]
    (softmax,) = calibration.softmaxes
    assert len(softmax.heads) == case.attributes["num_heads"]
    assert len({head.params for head in softmax.heads}) > 1
    report = rewrite(tmp_path / "m.onnx", calibration=calibration)
    assert name not in op_types(onnx.load(report.output))
    result = verify(tmp_path / "m.onnx", report.output, samples)
    assert len(result.heads) == case.attributes["num_heads"]
    assert result.outputs[0].mean_cosine > 0.95
