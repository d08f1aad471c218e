"""Softmax along another axis than the last, and Transposes between product, Softmax and values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import build, nodes, op_types

from hccs_onnx import inspect, rewrite, verify
from hccs_onnx.graph.turned import turn_softmaxes
from hccs_onnx.params import DATA_FREE
from hccs_onnx.reference import hccs

F32 = np.float32
HEAD = "g (float[b,2,n,4] q, float[b,2,m,4] k, float[b,2,m,4] v) => (float[b,2,n,4] y) "
SWAP = "Transpose <perm = [0, 1, 3, 2]>"
# Keys along the last but one axis: columns of k q^T.
COLUMNS = f"qt = {SWAP} (q) raw = MatMul (k, qt) l = Mul (raw, half) p = Softmax <axis = 2> (l) "
BEHIND = f"pt = {SWAP} (p) y = MatMul (pt, v)"
IDIOMS = {
    "columns": COLUMNS + BEHIND,
    "columns, values from the left": COLUMNS + f"vt = {SWAP} (v) z = MatMul (vt, p) y = {SWAP} (z)",
    "turned by the exporter": f"qt = {SWAP} (q) raw = MatMul (k, qt) l = Mul (raw, half) lt = {SWAP} (l) "
    f"p = Softmax <axis = -1> (lt) y = MatMul (p, v)",
    "heads last": f"kt = {SWAP} (k) raw = MatMul (q, kt) l = Mul (raw, half) "
    "moved = Transpose <perm = [0, 2, 3, 1]> (l) p = Softmax <axis = 2> (moved) "
    "back = Transpose <perm = [0, 3, 1, 2]> (p) y = MatMul (back, v)",
    "Einsum": 'raw = Einsum <equation = "bhjd,bhid->bhji"> (k, q) l = Mul (raw, half) p = Softmax <axis = -2> (l) '
    'y = Einsum <equation = "bhji,bhjd->bhid"> (p, v)',
}


def model(lines: str, opset: int = 17) -> onnx.ModelProto:
    return build(f"{HEAD}{{ {lines} }}", {"half": F32(0.5)}, opset=opset)


def feed() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"q": (2, 2, 5, 4), "k": (2, 2, 7, 4), "v": (2, 2, 7, 4)}
    return {name: random.normal(0, 2, shape).astype(F32) for name, shape in shapes.items()}


def reference(feed: dict[str, np.ndarray]) -> np.ndarray:
    logits = (feed["q"] @ feed["k"].swapaxes(-1, -2)) * F32(0.5)
    one = DATA_FREE
    p = hccs(logits, F32, B=[one.B], S=[one.S], Dmax=[one.Dmax], scale=[one.scale], masked=False)
    result: np.ndarray = p @ feed["v"]
    return result


@pytest.mark.parametrize("idiom", IDIOMS)
def test_attention_along_another_axis_is_rewritten_and_equals_the_reference(
    idiom: str, tmp_path: Path, run: Run
) -> None:
    onnx.save(model(IDIOMS[idiom]), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert (item.reason, item.masked) == (None, False)
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    onnx.checker.check_model(result)
    assert len(nodes(result, "HCCS")) == 1
    np.testing.assert_allclose(run(result, feed())[0], reference(feed()), rtol=0, atol=2e-2)
    assert verify(tmp_path / "m.onnx", tmp_path / "m.hccs.onnx", [feed()]).outputs[0].mean_cosine > 0.9


def test_turned_softmax_computes_the_same(run: Run) -> None:
    original, turned = model(IDIOMS["columns"]), model(IDIOMS["columns"])
    assert turn_softmaxes(turned, Path()) == {"p/turned": "p"}
    np.testing.assert_allclose(run(turned, feed())[0], run(original, feed())[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (COLUMNS + "y = MatMul (p, q)", "not to a product with values"),  # sums queries over its last axis
        (f"qt = {SWAP} (q) raw = MatMul (k, qt) p = Softmax <axis = 1> (raw) {BEHIND}", "axis of queries or keys"),
        (f"s = MatMul (v, w) p = Softmax <axis = 2> (s) {BEHIND}", "constant weights"),
        (f"s = Neg (v) p = Softmax <axis = 2> (s) {BEHIND}", "Neg"),
    ],
    ids=["not weighing the rows", "along heads", "pooling", "no product"],
)
def test_softmax_along_another_axis_that_is_not_attention_stays_as_it_is(lines: str, part: str, tmp_path: Path) -> None:
    attention = f"kt = {SWAP} (k) r = MatMul (q, kt) a = Softmax <axis = -1> (r) other = MatMul (a, v) "
    text = HEAD.replace("y) ", "other, float[b,2,i,j] y) ") + f"{{ {attention} {lines} }}"
    onnx.save(build(text, {"half": F32(0.5), "w": np.ones((4, 5), F32)}), tmp_path / "m.onnx")
    left = [item for item in inspect(tmp_path / "m.onnx") if item.reason is not None]
    assert [part in str(item.reason) for item in left] == [True]
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert len(nodes(result, "HCCS")) == 1
    assert [node.output[0] for node in nodes(result, "Softmax")] == ["p"]
    assert "p/turned" not in [name for node in result.graph.node for name in node.output]


@pytest.mark.parametrize("opset", [11, 12])
@pytest.mark.parametrize(
    ("axis", "reason"), [("axis = 3", None), ("axis = -1", None), ("axis = 2", "axis 2 is not"), ("", "axis 1 is not")]
)
def test_softmax_below_opset_13_runs_along_all_axes_from_its_axis_on(
    axis: str, reason: str | None, opset: int, tmp_path: Path, run: Run
) -> None:
    softmax = f"Softmax <{axis}>" if axis else "Softmax"
    lines = f"kt = {SWAP} (k) raw = MatMul (q, kt) l = Mul (raw, half) p = {softmax} (l) y = MatMul (p, v)"
    onnx.save(model(lines, opset), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert (item.reason is None) if reason is None else reason in str(item.reason)
    if reason is None:
        result = onnx.load(rewrite(tmp_path / "m.onnx").output)
        assert op_types(result).count("HCCS") == 1
        np.testing.assert_allclose(run(result, feed())[0], reference(feed()), rtol=0, atol=2e-2)
