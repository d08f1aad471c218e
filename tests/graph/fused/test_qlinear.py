"""com.microsoft QLinearSoftmax, and models in QOperator form: their QDQ form computes the same, codes for codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import Attention, nodes, op_types
from onnx import helper, numpy_helper

from hccs_onnx import calibrate, inspect, rewrite, verify
from hccs_onnx.graph.fused import expand_fused, why_whole

CODES = np.random.default_rng(0).integers(0, 200, (2, 3, 4, 8)).astype(np.uint8)


def softmax(dtype: type, version: int = 17, **attributes: int) -> onnx.ModelProto:
    constants = {
        "x_scale": np.array(0.05, np.float32),
        "x_zero": np.array(7, dtype),
        "y_scale": np.array(1 / 255, np.float32),
        "y_zero": np.array(np.iinfo(dtype).min, dtype),
    }
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensors = [helper.make_tensor_value_info(name, kind, ["batch", 3, "n", "m"]) for name in "xy"]
    node = helper.make_node("QLinearSoftmax", ["x", *constants], ["y"], "fused", domain="com.microsoft", **attributes)
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], weights)
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize(
    ("opset", "attributes"),
    [
        (17, {"opset": 17}),
        (17, {"opset": 13, "axis": 3}),
        (17, {"opset": 13, "axis": 1}),
        (17, {"opset": 11, "axis": 3}),
        (17, {"opset": 12, "axis": -1}),
        (11, {"opset": 11, "axis": 3}),
    ],
)
def test_qlinear_softmax_taken_apart_gives_the_same_codes(
    dtype: type, opset: int, attributes: dict[str, int], run: Run
) -> None:
    model = softmax(dtype, opset, **attributes)
    feed = {"x": (CODES - 100 * (dtype is np.int8)).astype(dtype)}
    (wanted,) = run(model, feed)
    assert expand_fused(model, Path()) == {"fused/Softmax": "y"}
    assert op_types(model) == ["DequantizeLinear", "Softmax", "QuantizeLinear"]
    (codes,) = run(model, feed, optimize=False)
    assert codes.dtype == wanted.dtype
    assert np.abs(codes.astype(int) - wanted).max() <= 1  # onnxruntime looks exponentials up in a table


@pytest.mark.parametrize(("opset", "attribute"), [(17, 11), (11, 11), (11, 13)])
def test_qlinear_softmax_over_several_axes_is_left_with_the_reason(opset: int, attribute: int) -> None:
    model = softmax(np.uint8, opset, opset=attribute, axis=1)
    assert expand_fused(model, Path()) == {}
    (reason,) = why_whole(model, Path()).values()
    assert reason == f"its attribute axis is 1, which in opset {min(opset, attribute)} means several axes"


VARIANT = Attention(mask="computed", fill=-100.0, length=9)


class Reader:
    """Samples for onnxruntime's quantiser."""

    def __init__(self) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter([VARIANT.feed(seed=seed) for seed in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attention as onnxruntime's static quantiser writes it in QOperator form."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    folder = tmp_path_factory.mktemp("qoperator")
    onnx.save(VARIANT.model(), folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "m.onnx",
        Reader(),
        quant_format=QuantFormat.QOperator,
        activation_type=QuantType.QUInt8,
    )
    return folder / "m.onnx"


def test_attention_in_qoperator_form_taken_apart_computes_the_same(quantized: Path, run: Run) -> None:
    model, feed = onnx.load(quantized), VARIANT.feed()
    (wanted,) = run(model, feed)
    assert {"QLinearSoftmax", "QLinearMatMul", "QLinearAdd"} <= set(op_types(model))
    assert len(expand_fused(model, Path())) == 1
    assert "QLinearSoftmax" not in op_types(model)
    assert len(nodes(model, "QLinearMatMul")) == 4  # the projections stay
    (y,) = run(model, feed, optimize=False)
    step = np.abs(np.unique(wanted)[1:] - np.unique(wanted)[:-1]).min()
    assert np.abs(y - wanted).max() <= 2.01 * step


@pytest.mark.parametrize("to", ["float", "uint8"])
def test_attention_in_qoperator_form_is_calibrated_rewritten_and_verified(
    quantized: Path, to: str, tmp_path: Path
) -> None:
    (found,) = inspect(quantized)
    assert (found.reason, found.heads, found.masked) == (None, VARIANT.heads, True)
    feeds = [VARIANT.feed(seed=seed) for seed in range(6)]
    calibration = calibrate(quantized, feeds, to=to)  # type: ignore[arg-type]
    report = rewrite(quantized, tmp_path / "new.onnx", calibration=calibration)
    result = verify(quantized, report.output, feeds)
    assert len(result.heads) == VARIANT.heads
    assert result.outputs[0].mean_cosine > 0.95


def test_qoperator_form_is_kept_where_it_is_not_rewritten(quantized: Path, tmp_path: Path) -> None:
    model = onnx.load(quantized)
    kept = rewrite_excluding(quantized, tmp_path)
    assert op_types(kept)[: len(model.graph.node)] == op_types(model)


def rewrite_excluding(path: Path, folder: Path) -> onnx.ModelProto:
    """`path` beside a float attention, of which only that is rewritten."""
    first, second = onnx.load(path), replace(VARIANT, ir_version=onnx.load(path).ir_version).model()
    both = onnx.compose.merge_models(first, onnx.compose.add_prefix(same_imports(second, first), "other/"), io_map=[])
    onnx.save(both, folder / "both.onnx")
    return onnx.load(rewrite(folder / "both.onnx", include="^other/").output)


def same_imports(model: onnx.ModelProto, other: onnx.ModelProto) -> onnx.ModelProto:
    del model.opset_import[:]
    model.opset_import.extend(other.opset_import)
    return model
