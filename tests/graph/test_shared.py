"""What attention shares: one Softmax with several readers, one mask for several layers, models of several domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import build, nodes

from hccs_onnx import inspect, rewrite
from hccs_onnx.params import DATA_FREE
from hccs_onnx.reference import hccs

F32 = np.float32
HEAD = "g (float[b,2,n,4] q, float[b,2,4,n] k, float[b,2,n,4] v, int64[b,1,1,n] hidden) => ({outputs}) "
MASK = "number = Cast <to = 1> (hidden) mask = Mul (number, low) "
LOGITS = "raw = MatMul (q, k) s = Mul (raw, half) l = Add (s, mask) "
WEIGHTS = {"half": F32(0.5), "low": F32(-1e4), "weight": np.ones((7, 7), F32)}


def feed() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"q": (2, 2, 7, 4), "k": (2, 2, 4, 7), "v": (2, 2, 7, 4)}
    result = {name: random.normal(size=shape).astype(F32) for name, shape in shapes.items()}
    result["hidden"] = np.zeros((2, 1, 1, 7), np.int64)
    result["hidden"][1, ..., -3:] = 1
    return result


def probabilities(q: np.ndarray, given: dict[str, np.ndarray]) -> np.ndarray:
    logits = (q @ given["k"]) * F32(0.5) + given["hidden"].astype(F32) * F32(-1e4)
    one = DATA_FREE
    p = hccs(logits, F32, B=[one.B], S=[one.S], Dmax=[one.Dmax], scale=[one.scale], masked=True)
    assert not p[1, ..., -3:].any()
    return p


def saved(lines: str, outputs: str, tmp_path: Path, domains: str = "") -> Path:
    text = HEAD.format(outputs=outputs) + f"{{ {MASK} {lines} }}"
    onnx.save(build(text, WEIGHTS, domains=domains), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_softmax_with_several_readers_is_rewritten_for_all_of_them(tmp_path: Path, run: Run) -> None:
    lines = LOGITS + "p = Softmax <axis = -1> (l) y = MatMul (p, v) z = MatMul (p, q) top = ReduceMax (p)"
    result = onnx.load(rewrite(saved(lines, "y, z, top, p", tmp_path)).output)
    assert len(nodes(result, "HCCS")) == 1
    given = feed()
    p = probabilities(given["q"], given)
    y, z, top, out = run(result, given)
    np.testing.assert_allclose(out, p, rtol=0, atol=2e-2)
    np.testing.assert_array_equal(top, out.max())
    np.testing.assert_allclose(y, out @ given["v"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(z, out @ given["q"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("readers", ["y = ReduceMax (p) z = Neg (p)", "y = MatMul (p, weight) z = Neg (p)"])
def test_softmax_none_of_whose_readers_sums_values_is_left_alone(readers: str, tmp_path: Path) -> None:
    (item,) = inspect(saved(LOGITS + "p = Softmax <axis = -1> (l) " + readers, "y, z", tmp_path))
    assert str(item.reason).startswith("probabilities go to ")


LAYERS = LOGITS + (
    "p = Softmax <axis = -1> (l) h = MatMul (p, v) raw2 = MatMul (h, k) s2 = Mul (raw2, half) l2 = Add (s2, {mask}) "
    "p2 = Softmax <axis = -1> (l2) y = MatMul (p2, v)"
)


def test_layers_that_share_a_mask_are_both_rewritten(tmp_path: Path, run: Run) -> None:
    path = saved(LAYERS.format(mask="mask"), "y", tmp_path, ', "com.microsoft": 1, "other": 3')
    report = rewrite(path)
    result = onnx.load(report.output)
    assert [(item.masked, item.factor) for item in report.rewritten] == [(True, 0.5)] * 2
    assert {entry.domain for entry in result.opset_import} == {"", "com.microsoft", "other", "hccs"}
    given = feed()
    h = probabilities(given["q"], given) @ given["v"]
    np.testing.assert_allclose(run(result, given)[0], probabilities(h, given) @ given["v"], rtol=0, atol=3e-2)


def test_scale_that_both_layers_read_is_kept_for_both(tmp_path: Path, run: Run) -> None:
    lines = LOGITS + "p = Softmax <axis = -1> (l) y = MatMul (p, v) p2 = Softmax <axis = -1> (s) z = MatMul (p2, v)"
    report = rewrite(saved(lines, "y, z", tmp_path))
    assert [item.factor for item in report.rewritten] == [1.0, 1.0]
    given = feed()
    y, _ = run(report.output, given)
    np.testing.assert_allclose(y, probabilities(given["q"], given) @ given["v"], rtol=0, atol=1e-5)
