"""Masks that take off tens of nats only, as models for fixed-point devices have them: as exact as others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import Attention, build, nodes

from hccs_onnx import calibrate, rewrite
from hccs_onnx.graph.attention import find_attention
from hccs_onnx.params import DEFAULT_MASK_GAP

F32 = np.float32
MASKS = ("computed", "chosen", "where")


def gap_of(lines: str, **constants: Any) -> float:
    text = f"""g (float[b,4,8] x, int64[b,1,4] hidden) => (float[b,4,8] y) {{
        xt = Transpose <perm = [0, 2, 1]> (x) r = MatMul (x, xt) {lines}
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }}"""
    (found,) = find_attention(build(text, constants))
    assert found.reason is None
    return found.mask_gap


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("fill", [-40.0, -50.0, -100.0])
@pytest.mark.parametrize("calibrated", [False, True])
def test_masked_keys_get_nothing_when_the_mask_is_weak(
    mask: str, fill: float, calibrated: bool, tmp_path: Path, run: Run
) -> None:
    variant = Attention(mask=mask, fill=fill)
    onnx.save(variant.model(), tmp_path / "m.onnx")
    feed = variant.feed(length=9)
    calibration = calibrate(tmp_path / "m.onnx", [feed]) if calibrated else None
    result = onnx.load(rewrite(tmp_path / "m.onnx", calibration=calibration).output)
    result.graph.output.append(onnx.ValueInfoProto(name="probabilities"))
    probabilities = run(result, feed)[1]
    hidden = np.broadcast_to((feed["mask"] == 0)[:, None, None], probabilities.shape)
    assert hidden.any()
    assert not probabilities[hidden].any()
    assert (probabilities[~hidden] > 0).all()


@pytest.mark.parametrize(("fill", "gap"), [(-1e4, DEFAULT_MASK_GAP), (-128, 64), (-100, 50), (-32, 16)])
def test_mask_gap_is_half_of_what_the_mask_takes_off(fill: float, gap: float) -> None:
    mask = np.array([0, 0, 0, fill], F32)
    assert gap_of("l = Add (r, mask)", mask=mask) == gap
    assert gap_of("a = Mul (r, c) l = Add (a, mask)", mask=mask, c=F32(0.25)) == gap


def test_mask_gap_is_that_of_the_weakest_mask() -> None:
    lines = "a = Add (r, causal) number = Cast <to = 1> (hidden) m = Mul (number, low) l = Add (a, m)"
    assert gap_of(lines, causal=np.triu(np.full((4, 4), -np.inf, F32), 1), low=F32(-50)) == 25


@pytest.mark.parametrize(("scale", "gap"), [(0.5, 25), (0.25, DEFAULT_MASK_GAP), (2, DEFAULT_MASK_GAP)])
def test_mask_gap_is_in_nats_when_a_scale_follows(scale: float, gap: float) -> None:
    """A quarter of 100 nats is too little to tell masks from logits."""
    lines = "a = Add (r, mask) l = Mul (a, c)"
    assert gap_of(lines, mask=np.array([0, 0, 0, -100], F32), c=F32(scale)) == gap


@pytest.mark.parametrize(
    "lines",
    ["l = Add (r, bias)", "a = Add (r, mask) t = Tanh (a) l = Mul (t, cap)"],
    ids=["a bias as well", "before a softcap"],
)
def test_mask_gap_is_the_usual_one_when_the_graph_does_not_tell(lines: str) -> None:
    constants = {"bias": np.array([0, 1, 2, -50], F32), "mask": np.array([0, 0, 0, -50], F32), "cap": F32(30)}
    assert gap_of(lines, **constants) == DEFAULT_MASK_GAP


def test_mask_gap_is_in_units_of_the_logits_when_a_scale_is_absorbed(tmp_path: Path) -> None:
    text = """g (float[b,4,8] x) => (float[b,4,8] y) {
        xt = Transpose <perm = [0, 2, 1]> (x) r = MatMul (x, xt) a = Add (r, mask) l = Mul (a, c)
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }"""
    onnx.save(build(text, {"mask": np.array([0, 0, 0, -100], F32), "c": F32(0.5)}), tmp_path / "m.onnx")
    (node,) = nodes(onnx.load(rewrite(tmp_path / "m.onnx").output), "HCCS")
    assert next(attribute.f for attribute in node.attribute if attribute.name == "mask_gap") == 50
