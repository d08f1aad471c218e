"""Rewritten models go through the ONNX world's simplifiers and quantisers: HCCS nodes survive, results stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DIGITS, Run

from hccs_onnx import calibrate, rewrite

pytestmark = pytest.mark.slow


@pytest.fixture(params=["float", "uint8", "int16"])
def rewritten(request: pytest.FixtureRequest, digits_model: Path, tmp_path: Path) -> onnx.ModelProto:
    with np.load(DIGITS / "calibration.npz") as data:
        calibration = calibrate(digits_model, [{"pixels": data["pixels"][:8]}], to=request.param)
    return onnx.load(rewrite(digits_model, tmp_path / "digits.hccs.onnx", calibration=calibration).output)


def pixels() -> dict[str, np.ndarray]:
    with np.load(DIGITS / "test.npz") as data:
        return {"pixels": data["pixels"][:50]}


def by_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    simplified, checked = pytest.importorskip("onnxsim").simplify(model)
    assert checked
    return simplified


def by_onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    return pytest.importorskip("onnxslim").slim(model)


def by_onnxoptimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    return pytest.importorskip("onnxoptimizer").optimize(model)


def hccs_nodes(model: onnx.ModelProto) -> list[dict[str, object]]:
    return [
        {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        for node in model.graph.node
        if node.op_type == "HCCS"
    ]


def function_operators(model: onnx.ModelProto) -> dict[tuple[str, str], list[str]]:
    return {(f.domain, f.name): sorted(node.op_type for node in f.node) for f in model.functions}


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("tool", [by_onnxsim, by_onnxslim, by_onnxoptimizer])
def test_simplified_model_keeps_hccs_nodes_function_and_results(
    rewritten: onnx.ModelProto, run: Run, tool: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> None:
    before = onnx.ModelProto()
    before.CopyFrom(rewritten)
    after = tool(rewritten)
    assert len(hccs_nodes(before)) == 2
    assert hccs_nodes(after) == hccs_nodes(before)
    assert function_operators(after) == function_operators(before)  # onnxslim puts constants in another order
    for one, other in zip(run(before, pixels()), run(after, pixels()), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)


class _Reader:
    """Digits, one by one, as onnxruntime's quantiser asks for them."""

    def __init__(self) -> None:
        with np.load(DIGITS / "calibration.npz") as data:
            self._feeds = iter([{"pixels": data["pixels"][i : i + 1]} for i in range(16)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("method", ["QDQ", "QOperator", "dynamic"])
def test_quantised_model_keeps_hccs_nodes_and_runs(
    rewritten: onnx.ModelProto, run: Run, tmp_path: Path, method: str
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(rewritten, source)
    if method == "dynamic":
        quantization.quantize_dynamic(source, target)
    else:
        quantization.quantize_static(
            source, target, _Reader(), quant_format=quantization.QuantFormat[method],
            weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
    after = onnx.load(target)
    assert hccs_nodes(after) == hccs_nodes(rewritten)
    assert sum(
        "Integer" in n.op_type or "QLinear" in n.op_type or n.op_type == "QuantizeLinear" for n in after.graph.node
    )
    one, other = (run(model, pixels())[0].argmax(axis=1) for model in (rewritten, after))
    assert (one == other).mean() > 0.9
