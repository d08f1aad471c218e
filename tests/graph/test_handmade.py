"""Softmax written out in elementary operators: made one node where it is one, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import build, nodes, op_types
from onnx import helper

from hccs_onnx import inspect, rewrite, verify
from hccs_onnx.graph.handmade import fold_handmade

SHIFTED = "m = ReduceMax <axes = [-1]> (l) d = Sub (l, m) e = Exp (d) s = ReduceSum (e, last) p = Div (e, s)"
PLAIN = "e = Exp (l) s = ReduceSum (e, last) p = Div (e, s)"


def model(softmax: str, output: str = "", opset: int = 17) -> onnx.ModelProto:
    text = (
        f"g (float[b,2,n,4] q, float[b,2,4,n] k, float[b,2,n,4] v) => (float[b,2,n,4] y{output})"
        f"{{ raw = MatMul (q, k) l = Mul (raw, half) {softmax} y = MatMul (p, v) }}"
    )
    constants = {
        "half": np.float32(0.5),
        "last": np.array([-1], np.int64),
        "third": np.array([3], np.int64),
        "second": np.array([2], np.int64),
    }
    return build(text, constants, opset=opset)


def feed() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"q": (2, 2, 9, 4), "k": (2, 2, 4, 9), "v": (2, 2, 9, 4)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "softmax",
    [
        SHIFTED,
        PLAIN,
        SHIFTED.replace("last", "third"),
        SHIFTED.replace("ReduceMax <axes = [-1]> (l)", "ReduceMax <axes = [3]> (l)"),
    ],
)
def test_written_out_softmax_becomes_one_node_and_computes_the_same(softmax: str, run: Run) -> None:
    original, folded = model(softmax), model(softmax)
    assert fold_handmade(folded, Path()) == {"p": "p"}
    assert op_types(folded) == ["MatMul", "Mul", "Softmax", "MatMul"]
    np.testing.assert_allclose(run(folded, feed())[0], run(original, feed())[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "softmax",
    [
        SHIFTED.replace("(e, last)", "(e, second)"),  # another axis
        SHIFTED.replace("axes = [-1]", "axes = [2]"),  # maximum along another axis
        "e = Exp (l) f = Exp (raw) s = ReduceSum (f, last) p = Div (e, s)",  # another sum
        "e = Exp (l) s = ReduceSum <keepdims = 0> (e, last) u = Unsqueeze (s, last) p = Div (e, u)",
        "e = Abs (l) s = ReduceSum (e, last) p = Div (e, s)",
        "e = Exp (l) s = ReduceSum (e) p = Div (e, s)",  # over all axes
    ],
)
def test_what_is_not_softmax_is_left_alone(softmax: str) -> None:
    proto = model(softmax)
    before = proto.SerializeToString(deterministic=True)
    assert fold_handmade(proto, Path()) == {}
    assert proto.SerializeToString(deterministic=True) == before


def test_parts_that_others_read_are_kept(run: Run) -> None:
    proto = model(SHIFTED, ", float[b,2,n,1] m")
    fold_handmade(proto, Path())
    assert op_types(proto) == ["MatMul", "Mul", "ReduceMax", "Softmax", "MatMul"]
    run(proto, feed())


@pytest.mark.parametrize("axis", [2, -1])
def test_names_in_a_branch_do_not_tell_axes_of_the_main_graph(axis: int) -> None:
    other = 1 - axis  # of the branch, where it means nothing
    text = f"""g (float[b,2,n,n] l, bool flag) => (float[b,2,n,n] p, float[b,2,n,n] z) {{
        z = If (flag) <then_branch = t () => (float[b,2,n,n] x) {{
            a = Constant <value_ints = [{other}]> () u = ReduceSum (l, a) x = Div (l, u) }},
            else_branch = f () => (float[b,2,n,n] w) {{ w = Identity (l) }}>
        a = Constant <value_ints = [{axis}]> () e = Exp (l) s = ReduceSum (e, a) p = Div (e, s) }}"""
    assert fold_handmade(build(text, {}), Path()) == ({"p": "p"} if axis == -1 else {})


def test_nodes_without_outputs_do_no_harm() -> None:
    proto = model(SHIFTED)
    proto.graph.node.append(helper.make_node("Print", ["y"], [], domain="custom"))
    assert fold_handmade(proto, Path()) == {"p": "p"}
    assert op_types(proto)[-1] == "Print"


def test_written_out_attention_is_rewritten_and_verified(tmp_path: Path) -> None:
    onnx.save(model(SHIFTED), tmp_path / "m.onnx")
    assert [item.reason for item in inspect(tmp_path / "m.onnx")] == [None]
    report = rewrite(tmp_path / "m.onnx")
    result = onnx.load(report.output)
    assert op_types(result) == ["MatMul", "HCCS", "MatMul"]
    compared = verify(tmp_path / "m.onnx", report.output, [feed()])
    assert compared.outputs[0].mean_cosine > 0.85
    assert len(compared.heads) == 2


def test_written_out_softmax_that_is_not_rewritten_stays_written_out(tmp_path: Path) -> None:
    text = (
        "g (float[b,n,4] x, float[b,n,4] v, float[b,4,n] k) => (float[b,n,n] p, float[b,n,4] y)"
        "{ e = Exp (x) s = ReduceSum (e, last) c = Div (e, s)"
        "  l = MatMul (c, k) q = Softmax <axis = -1> (l) y = MatMul (q, v) p = Identity (l) }"
    )
    onnx.save(build(text, {"last": np.array([-1], np.int64)}), tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert [item.reason is None for item in found] == [False, True]
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert op_types(result)[:3] == ["Exp", "ReduceSum", "Div"]
    assert len(nodes(result, "HCCS")) == 1
