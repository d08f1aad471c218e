"""ai.onnx Attention: taken apart exactly, rewritten, or left whole with the reason."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Run
from graph.models import nodes, op_types, tapped
from onnx import TensorProto, helper

from hccs_onnx import calibrate, inspect, rewrite, verify
from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.fused import expand_fused
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.reference import hccs

needs_attention = pytest.mark.skipif(onnx.defs.onnx_opset_version() < 23, reason="this onnx has no Attention operator")


@cache
def backend_cases() -> dict[str, Any]:
    """The ONNX project's own test cases of Attention: models, inputs and expected outputs."""
    if onnx.defs.onnx_opset_version() < 23:
        return {}
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases("Attention")
    return {case.name: case for case in cases if "expanded" not in case.name}


def model_of(name: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(backend_cases()[name].model)
    model.ir_version = 10
    return model


def run_or_skip(model: onnx.ModelProto, feed: dict[str, np.ndarray], run: Run) -> list[np.ndarray]:
    """Outputs; skipped where onnxruntime lacks an element type or the opset."""
    from hccs_onnx.errors import ModelError as Refused

    try:
        return run(model, feed)
    except Refused as error:
        if "NOT_IMPLEMENTED" in str(error) or "Could not find an implementation" in str(error) or "opset" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("name", backend_cases())
def test_attention_taken_apart_gives_the_expected_outputs(name: str, run: Run) -> None:
    inputs, expected = backend_cases()[name].data_sets[0]
    model = model_of(name)
    assert list(expand_fused(model, Path()).values()) == ["Y"]
    assert "Attention" not in op_types(model)
    feed = dict(zip([value.name for value in model.graph.input], inputs, strict=True))
    for actual, wanted in zip(run_or_skip(model, feed, run), expected, strict=True):
        assert actual.shape == wanted.shape
        tolerance = 1e-5 if wanted.dtype == np.float32 else 1e-2
        np.testing.assert_allclose(
            actual.astype(np.float64), wanted.astype(np.float64), rtol=10 * tolerance, atol=tolerance
        )


@pytest.mark.parametrize("name", [name for name in backend_cases() if "fp16" not in name and "bf16" not in name])
def test_rewritten_attention_equals_the_reference_on_its_logits(name: str, run: Run, tmp_path: Path) -> None:
    inputs, _ = backend_cases()[name].data_sets[0]
    original = model_of(name)
    onnx.save(original, tmp_path / "m.onnx")
    (found,) = inspect(tmp_path / "m.onnx")
    if found.dtype not in ("float32", "float16"):
        pytest.skip(f"logits are {found.dtype}")
    if found.reason is not None:
        assert "float64" in found.reason
        return
    report = rewrite(tmp_path / "m.onnx")
    result = onnx.load(report.output)
    (node,) = nodes(result, "HCCS")
    feed = dict(zip([value.name for value in original.graph.input], inputs, strict=True))
    logits, y = run_or_skip(tapped(result, node.input[0], node.output[0]), feed, run)[-2:]
    params = read_attributes(node)
    head = params.heads[0]
    expected = hccs(
        logits, np.float32, B=[head.B], S=[head.S], Dmax=[head.Dmax], scale=[head.scale], masked=params.masked
    )
    np.testing.assert_array_equal(y, expected)


def attention_model(**attributes: object) -> onnx.ModelProto:
    """Two Attention nodes, one after the other, on (batch, n, 8) with 2 heads."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Attention", ["x", "x", "x"], ["h"], "first", q_num_heads=2, kv_num_heads=2, **attributes),
            helper.make_node("Attention", ["h", "h", "x"], ["y"], "second", q_num_heads=2, kv_num_heads=2),
        ],
        "g",
        [tensor("x", TensorProto.FLOAT, ["batch", "n", 8])],
        [tensor("y", TensorProto.FLOAT, ["batch", "n", 8])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"x": random.normal(0, 2, (2, 7, 8)).astype(np.float32)} for _ in range(count)]


@needs_attention
@pytest.mark.parametrize("to", ["float", "uint8"])
def test_fused_attention_is_calibrated_rewritten_and_verified(tmp_path: Path, to: str) -> None:
    onnx.save(attention_model(is_causal=1), tmp_path / "m.onnx")
    if "23" not in str(_highest_opset()):
        pytest.skip("this onnxruntime has no opset 23")
    calibration = calibrate(tmp_path / "m.onnx", feeds(), to=to)  # type: ignore[arg-type]
    assert [len(softmax.heads) for softmax in calibration.softmaxes] == [2, 2]
    assert [softmax.masked for softmax in calibration.softmaxes] == [True, False]
    report = rewrite(tmp_path / "m.onnx", calibration=calibration)
    assert "Attention" not in op_types(onnx.load(report.output))
    result = verify(tmp_path / "m.onnx", report.output, feeds())
    assert result.outputs[0].mean_cosine > 0.9
    assert len(result.heads) == 4


def _highest_opset() -> str:
    model = attention_model()
    try:
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises many classes without a common base
        return "older"
    return "23"


@needs_attention
def test_fused_attention_that_is_not_rewritten_stays_whole(tmp_path: Path) -> None:
    onnx.save(attention_model(), tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx", exclude="second")
    result = onnx.load(report.output)
    assert [node.name for node in nodes(result, "Attention")] == ["second"]
    assert len(nodes(result, "HCCS")) == 1
    onnx.checker.check_model(result)
    assert [item.reason for item in report.found] == [None, "is excluded by 'second'"]
    rewrite(tmp_path / "m.onnx", exclude="second", strict=True)


@needs_attention
def test_attention_of_unknown_types_is_left_whole_with_the_reason(tmp_path: Path) -> None:
    model = attention_model()
    model.graph.node.insert(0, helper.make_node("Mystery", ["x"], ["q"], domain="other"))
    model.opset_import.append(helper.make_opsetid("other", 1))
    model.graph.node[1].input[0] = "q"
    (first, *_) = [item for item in _found(model) if item.node == "first"]
    assert first.reason == "is ai.onnx.Attention, which hides its Softmax: the shape of its input 'Q' is not known"


def _found(model: onnx.ModelProto) -> list[Any]:
    expand_fused(model, Path())
    return find_attention(model)
