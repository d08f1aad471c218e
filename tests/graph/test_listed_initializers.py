"""Initializers that are listed as inputs too: defaults since IR version 4, a formality before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Run
from graph.models import Attention, build, names
from onnx import helper

from hccs_onnx import rewrite, verify
from hccs_onnx.graph.attention import find_attention

F32 = np.float32
TEXT = """g (float[b,2,n,4] q, float[b,2,4,n] k, float[b,2,n,4] v) => (float[b,2,n,4] y) {{
    r = MatMul (q, k) {line} p = Softmax <axis = -1> (l) y = MatMul (p, v) }}"""
HIDDEN = np.where(np.arange(6) < 4, 0, -1e4).astype(F32)


def listed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, with all initializers as inputs."""
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def feed() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"q": (2, 2, 6, 4), "k": (2, 2, 4, 6), "v": (2, 2, 6, 4)}
    return {name: random.normal(size=shape).astype(F32) for name, shape in shapes.items()}


@pytest.mark.parametrize("line", ["l = Add (r, mask)", "m = Cast <to = 1> (mask) l = Sub (r, m)"])
def test_mask_that_may_be_fed_masks_whatever_its_default_is(line: str, tmp_path: Path, run: Run) -> None:
    onnx.save(listed(build(TEXT.format(line=line), {"mask": np.zeros(6, F32)})), tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx")
    assert [item.masked for item in report.rewritten] == [True]
    mask = HIDDEN if "Add" in line else -HIDDEN
    changed: dict[str, Any] = feed()
    changed["v"][:, :, 4:] = 1e6  # what masked keys stand for
    np.testing.assert_array_less(np.abs(run(report.output, {**changed, "mask": mask})[0]), 10)


def test_scale_that_may_be_fed_is_kept(tmp_path: Path, run: Run) -> None:
    onnx.save(listed(build(TEXT.format(line="l = Mul (r, c)"), {"c": F32(0.5)})), tmp_path / "m.onnx")
    onnx.save(build(TEXT.format(line="l = Mul (r, c)"), {"c": F32(2)}), tmp_path / "fixed.onnx")
    report = rewrite(tmp_path / "m.onnx")
    assert [item.scales for item in report.rewritten] == [()]
    result = run(report.output, {**feed(), "c": np.array(2, F32)})[0]
    np.testing.assert_allclose(result, run(rewrite(tmp_path / "fixed.onnx").output, feed())[0], rtol=0, atol=1e-2)


def test_listed_initializers_of_ir_version_3_stay_constants(tmp_path: Path) -> None:
    original = listed(Attention(scale="mul", opset=11, ir_version=3).model())
    onnx.checker.check_model(original, full_check=True)
    assert find_attention(original)[0].factor == 0.5
    onnx.save(original, tmp_path / "m.onnx")
    output = rewrite(tmp_path / "m.onnx").output
    onnx.checker.check_model(str(output), full_check=True)
    assert names(onnx.load(output).graph.input) == ["x"]
    assert verify(tmp_path / "m.onnx", output, [Attention(scale="mul").feed()]).outputs[0].mean_cosine > 0.9
    session = ort.InferenceSession(str(output), providers=["CPUExecutionProvider"])
    assert session.get_overridable_initializers() == []


def test_listed_initializers_of_later_ir_versions_stay_defaults(tmp_path: Path) -> None:
    original = listed(Attention(ir_version=4, opset=12).model())
    onnx.save(original, tmp_path / "m.onnx")
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert names(result.graph.input) == names(original.graph.input)
