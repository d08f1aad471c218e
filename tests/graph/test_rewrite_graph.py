"""Rewritten models: what they compute, and what is dropped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT, Run
from graph.models import (
    LOGITS,
    LOWEST,
    ONNX_TYPES,
    PROBABILITIES,
    Attention,
    build,
    copied,
    head_params,
    name_of,
    names,
    nodes,
    op_types,
    tapped,
)
from onnx import TensorProto, helper, numpy_helper

from hccs_onnx import reference
from hccs_onnx._version import __version__
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.rewrite import rewrite_graph
from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.params import DATA_FREE, HccsParams

F32 = np.float32
Feed = Mapping[str, np.ndarray]


def rewritten(model: onnx.ModelProto, heads: int = 3) -> onnx.ModelProto:
    """A rewritten copy; parameters differ from head to head, where there are several."""
    result = copied(model)
    found = find_attention(result)
    params = {
        item.logits: HccsParams(head_params(min(heads, item.heads or 1)), masked=item.masked)
        for item in found
        if item.reason is None
    }
    rewrite_graph(result, found, params, {"calibration": "test"})
    return result


def the_node(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = nodes(model, "HCCS")
    return node


def expected(logits: np.ndarray, params: HccsParams) -> np.ndarray:
    """What SPEC says about logits in nats."""
    heads = params.heads
    return reference.hccs(
        logits.astype(F32),
        F32,
        B=[head.B for head in heads],
        S=[head.S for head in heads],
        Dmax=[head.Dmax for head in heads],
        scale=F32([head.scale for head in heads]),
        masked=params.masked,
        mask_gap=params.mask_gap,
    )


def check_valid(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)


# values

VARIANTS = [
    Attention(),
    Attention(scale="mul", size=5),
    Attention(scale="query", size=5),
    Attention(scale="query_key", size=5),
    Attention(scale="computed"),
    Attention(scale=None),
    Attention(mask="causal", length=6),
    Attention(mask="computed", size=5),
    Attention(mask="computed", fill=LOWEST),
    Attention(mask="chosen", fill=-np.inf, guard=True),
    Attention(mask="where", scale="mul"),
    Attention(mask="where_reversed", fill=LOWEST, scale="query"),
    Attention(mask="bias", length=6),
    Attention(mask="input"),
    Attention(dropout=True, identity=True),
    Attention(layout="folded"),
    Attention(layout="folded", batch=2),
    Attention(layout="single"),
    Attention(layout="flat"),
    Attention(layout="windows", mask="where"),
    Attention(projection="split"),
    Attention(projection="stacked"),
    Attention(cross=True, mask="computed"),
    Attention(known_shapes=False),
    Attention(opset=11, dropout=True, projection="split", mask="computed"),
    Attention(opset=11, layout="folded", guard=True),
    Attention(opset=12, dropout=True, mask="where"),
    Attention(opset=13, projection="split", mask="chosen"),
    Attention(opset=18, mask="chosen", ir_version=9),
    Attention(opset=20, guard=True, mask="computed", ir_version=9),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_rewritten_attention_equals_the_reference_on_the_original_logits(variant: Attention, run: Run) -> None:
    original, feed = variant.model(), variant.feed(batch=3, length=7)
    (found,) = find_attention(original)
    params = HccsParams(head_params(found.heads or 1), masked=found.masked)
    result = rewritten(original)
    logits = run(tapped(original, LOGITS), feed, optimize=False)[-1]
    y, probabilities = run(tapped(result, the_node(result).output[0]), feed, optimize=False)
    target = expected(logits, params)
    if not found.scales:
        np.testing.assert_allclose(probabilities, target, rtol=0, atol=1e-6)
    else:  # a gap may be rounded to the next code
        code = max(head.S / head.B for head in params.heads)
        assert np.isclose(probabilities, target, rtol=0, atol=1e-6).mean() > 0.98
        np.testing.assert_allclose(probabilities, target, rtol=0, atol=2 * code)
    hidden = logits.max(axis=-1, keepdims=True) - logits > 64
    assert hidden.any() == (variant.mask not in (None, "bias"))
    assert np.all(probabilities[hidden] == 0)
    assert np.all(probabilities[~hidden] > 0)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=0, atol=1e-5)
    assert y.shape == run(original, feed)[0].shape
    check_valid(result)


STEPS = {
    "scales everywhere": "q = Mul (x, c) k2 = Div (k, d) r = MatMul (q, k2) s = Mul (r, d) l = Div (s, c)",
    "scale behind the mask": "r = MatMul (x, k) t = Add (r, hide) l = Mul (t, c)",
    "scale before and behind the mask": "r = MatMul (x, k) s = Mul (r, c) t = Add (s, hide) l = Mul (t, d)",
    "two masks": "r = MatMul (x, k) s = Mul (r, c) t = Add (hide, s) l = Where (tril, t, fill)",
    "mask and bias": "r = MatMul (x, k) s = Mul (r, c) t = Add (s, bias) l = Add (t, hide)",
    "weak mask": "r = MatMul (x, k) s = Mul (r, c) l = Add (s, weak)",
    "large factor": "r = MatMul (x, k) s = Mul (r, d) l = Add (s, hide)",
    "limits": "r = MatMul (x, k) s = Mul (r, c) t = Add (s, hide) u = Max (t, fill) v = Clip (u, fill) l = Mul (v, d)",
    "one scale a row": "r = MatMul (x, k) s = Mul (r, c) t = Mul (s, rows) l = Add (t, hide)",
    "reshaped": "r = MatMul (x, k) r4 = Reshape (r, unfold) t = Add (r4, hide) l = Reshape (t, fold)",
}


@pytest.mark.parametrize("steps", STEPS)
def test_rewritten_steps_equal_the_reference_on_the_original_logits(steps: str, run: Run) -> None:
    text = f"""g (float[b,6,8] x) => (float[b,6,8] y) {{
        k = Transpose <perm = [0, 2, 1]> (x) {STEPS[steps]} p = Softmax <axis = -1> (l) y = MatMul (p, x) }}"""
    constants = {
        "c": F32(0.3), "d": F32(1.7), "hide": np.array([0, 0, 0, 0, -1e5, -np.inf], F32),
        "rows": np.linspace(0.5, 2, 6, dtype=F32).reshape(6, 1),
        "tril": np.tri(6, dtype=bool), "fill": F32(-1e5), "bias": np.linspace(-2, 2, 36, dtype=F32).reshape(6, 6),
        "weak": np.array([0, 0, 0, 0, -200, -300], F32), "unfold": np.array([-1, 2, 6, 6]),
        "fold": np.array([-1, 6, 6]),
    }  # fmt: skip
    original = build(text, constants)
    found = find_attention(original)
    feed = {"x": np.random.default_rng(3).normal(size=(2, 6, 8)).astype(F32)}
    result = rewritten(original)
    logits = run(tapped(original, "l"), feed, optimize=False)[-1]
    probabilities = run(tapped(result, "p"), feed, optimize=False)[-1]
    params = HccsParams(head_params(1), masked=found[0].masked)
    target = expected(logits, params)
    head = params.heads[0]
    assert np.isclose(probabilities, target, rtol=0, atol=1e-6).mean() > 0.95
    np.testing.assert_allclose(probabilities, target, rtol=0, atol=2 * head.S / head.B)
    np.testing.assert_array_equal(probabilities == 0, logits.max(axis=-1, keepdims=True) - logits > 64)
    assert found[0].masked == (probabilities == 0).any()
    check_valid(result)


@pytest.mark.parametrize("variant", [Attention(mask="where"), Attention(guard=True, scale="query")], ids=name_of)
def test_rewritten_model_gives_the_same_with_and_without_optimization(variant: Attention, run: Run) -> None:
    result, feed = rewritten(variant.model()), variant.feed()
    np.testing.assert_allclose(run(result, feed)[0], run(result, feed, optimize=False)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 32)])
def test_rewritten_model_keeps_dynamic_batch_and_length(shape: tuple[int, int], run: Run) -> None:
    variant = Attention(mask="computed")
    batch, length = shape
    feed = {**variant.feed(batch, max(length, 2))}
    feed = {name: value[:, :length] for name, value in feed.items()}
    feed["mask"] = np.ones_like(feed["mask"])
    assert run(rewritten(variant.model()), feed)[0].shape == (batch, length, variant.width)


def test_rewritten_model_gives_finite_output_when_a_row_is_masked_whole(run: Run) -> None:
    variant = Attention(mask="where", fill=-np.inf, guard=True)
    feed = dict(variant.feed())
    feed["mask"] = np.zeros_like(feed["mask"])
    original = run(variant.model(), feed)[0]
    np.testing.assert_array_equal(original, 0)
    np.testing.assert_array_equal(run(rewritten(variant.model()), feed)[0], original)


@pytest.mark.parametrize("optimize", [True, False])
def test_rewritten_model_agrees_with_the_python_operator(optimize: bool, run: Run) -> None:
    pytest.importorskip("onnxruntime_extensions")
    variant = Attention(mask="computed", size=5)
    result, feed = rewritten(variant.model()), variant.feed()
    function = run(result, feed, optimize=optimize)[0]
    np.testing.assert_allclose(run(result, feed, "python", optimize)[0], function, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "variant",
    [
        Attention(dtype="float16"),
        Attention(dtype="float16", mask="where", fill=-65504, guard=True),
        Attention(dtype="float16", cast=True, scale=None),
    ],
    ids=name_of,
)
def test_half_precision_attention_equals_the_reference_on_its_logits(variant: Attention, run: Run) -> None:
    original, feed = variant.model(), variant.feed()
    (found,) = find_attention(original)
    result = rewritten(original)
    node = the_node(result)
    y, logits, probabilities = run(tapped(result, *node.input[:1], *node.output), feed, optimize=False)
    np.testing.assert_array_equal(probabilities, expected(logits, read_attributes(node)))
    before = run(tapped(original, LOGITS), feed, optimize=False)[-1]
    near = before > -1000
    np.testing.assert_allclose(logits[near], before[near].astype(F32), rtol=2e-3, atol=2e-3)
    assert y.dtype == np.float16
    assert found.scales == ()
    check_valid(result)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_attention_is_cast_around(dtype: str) -> None:
    result = rewritten(Attention(dtype=dtype, guard=True).model())
    node = the_node(result)
    first, second = nodes(result, "Cast")
    order = op_types(result)
    assert order[order.index("HCCS") - 1 : order.index("HCCS") + 2] == ["Cast", "HCCS", "Cast"]
    assert (first.input[0], first.output[0], first.attribute[0].i) == ("logits", node.input[0], TensorProto.FLOAT)
    assert (second.input[0], second.output[0], second.attribute[0].i) == (node.output[0], "guarded", ONNX_TYPES[dtype])
    check_valid(result)


# what is dropped


def dropped(original: onnx.ModelProto, result: onnx.ModelProto) -> set[str]:
    return set(names(original.graph.node)) - set(names(result.graph.node))


@pytest.mark.parametrize(
    ("variant", "gone", "weights_gone"),
    [
        (Attention(), {"Div_logits"}, {"divisor"}),
        (Attention(scale="mul"), {"Mul_logits"}, {"factor"}),
        (Attention(scale="query"), {"Mul_q"}, {"factor"}),
        (Attention(scale="query_key"), {"Mul_q", "Mul_k"}, {"factor"}),
        (Attention(scale="mul", mask="where"), {"Mul_scaled"}, {"factor"}),
        (Attention(scale="mul", mask="computed", guard=True), {"Mul_scaled", "IsNaN_is_nan", "Where_guarded"},
         {"factor", "nan_fill"}),
        (Attention(scale="mul", mask="where", fill=-1500), set(), set()),
        (Attention(scale="mul", mask="bias", length=4), set(), set()),
        (Attention(scale="computed"), set(), set()),
        (Attention(scale=None, guard=True), {"IsNaN_is_nan", "Where_guarded"}, {"nan_fill"}),
        (Attention(dtype="float16"), set(), set()),
    ],
    ids=name_of,
)  # fmt: skip
def test_scale_and_guard_are_dropped_only_where_allowed(
    variant: Attention, gone: set[str], weights_gone: set[str]
) -> None:
    original = variant.model()
    result = rewritten(original)
    assert dropped(original, result) == gone
    assert set(names(original.graph.initializer)) - set(names(result.graph.initializer)) == weights_gone
    scale = [head.scale for head in head_params(3)]
    absorbed = bool(gone - {"IsNaN_is_nan", "Where_guarded"})
    factor = variant.logit_factor if absorbed else 1.0
    attributes = read_attributes(the_node(result))
    np.testing.assert_allclose([head.scale for head in attributes.heads], np.array(scale) / factor, rtol=1e-6)
    np.testing.assert_allclose(attributes.mask_gap, 64 / factor, rtol=1e-6)


@pytest.mark.parametrize("tensor", ["raw", "scaled", "logits"])
def test_scale_is_kept_when_a_tensor_behind_it_is_an_output(tensor: str, run: Run) -> None:
    variant = Attention(scale="query" if tensor == "raw" else "mul", mask="where")
    original = tapped(variant.model(), tensor)
    result = rewritten(original)
    assert dropped(original, result) == set()
    for before, after in zip(run(original, variant.feed())[1:], run(result, variant.feed())[1:], strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6)


def test_scale_is_kept_when_another_node_uses_its_result(run: Run) -> None:
    variant = Attention(scale="mul", mask="where")
    original = variant.model()
    original.graph.node.append(helper.make_node("Tanh", ["scaled"], ["other"], name="other"))
    original = tapped(original, "other")
    result = rewritten(original)
    assert dropped(original, result) == set()
    np.testing.assert_array_equal(run(result, variant.feed())[1], run(original, variant.feed())[1])


def test_scale_is_kept_when_a_branch_uses_its_result() -> None:
    original = Attention(scale="mul", mask="where").model()
    branch = build(
        """g (bool flag) => (y) { b = If (flag) <
        then_branch = p () => (float[b,h,n,n] t) { t = Tanh (scaled) },
        else_branch = q () => (float[b,h,n,n] e) { e = Identity (scaled) }> }"""
    )
    original.graph.node.append(branch.graph.node[0])
    original.graph.input.append(branch.graph.input[0])
    result = rewritten(tapped(original, "b"))
    assert dropped(original, result) == set()


@pytest.mark.parametrize("flag", [True, False])
def test_branch_before_may_name_a_tensor_like_a_dropped_one(flag: bool, run: Run) -> None:
    text = """g (float[b,n,8] x, bool flag) => (float[b,n,8] y) {
        q = If (flag) <then_branch = p () => (float[b,n,8] t) { scaled = Neg (x) t = Neg (scaled) },
                       else_branch = q () => (float[b,n,8] e) { scaled = Softplus (x) e = Identity (scaled) }>
        k = Transpose <perm = [0, 2, 1]> (x) raw = MatMul (q, k) scaled = Mul (raw, c)
        probabilities = Softmax <axis = -1> (scaled) y = MatMul (probabilities, x) }"""
    original = build(text, {"c": F32(0.5)})
    result = rewritten(original)
    assert dropped(original, result) == {"Mul_scaled"}
    feed = {"x": np.random.default_rng(0).normal(size=(2, 5, 8)).astype(F32), "flag": np.array(flag)}
    (before,) = run(original, feed)
    (behind,) = run(result, feed)
    assert np.corrcoef(before.ravel(), behind.ravel())[0, 1] > 0.9


def test_scale_is_kept_when_two_attentions_share_the_scaled_queries() -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] y, float[b,n,8] z) {
        q = Mul (x, c) k = Transpose <perm = [0, 2, 1]> (x) k2 = Softplus (k)
        l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, x)
        l2 = MatMul (q, k2) p2 = Softmax <axis = -1> (l2) z = MatMul (p2, x) }"""
    original = build(text, {"c": F32(0.25)})
    result = rewritten(original)
    assert dropped(original, result) == set()
    assert len(nodes(result, "HCCS")) == 2


def test_constant_of_a_dropped_scale_is_kept_when_it_is_shared(run: Run) -> None:
    variant = Attention(scale="mul")
    original = variant.model()
    original.graph.node.append(helper.make_node("Add", ["x", "factor"], ["other"], name="other"))
    original = tapped(original, "other")
    result = rewritten(original)
    assert dropped(original, result) == {"Mul_logits"}
    assert "factor" in names(result.graph.initializer)
    np.testing.assert_array_equal(run(result, variant.feed())[1], run(original, variant.feed())[1])


@pytest.mark.parametrize("use", ["branch", "output"])
def test_constant_of_a_dropped_scale_is_kept_when_only_a_branch_or_an_output_uses_it(use: str) -> None:
    original = Attention(scale="mul").model()
    if use == "branch":
        branch = build("""g (bool flag) => (y) { b = If (flag) <then_branch = p () => (t) { t = Tanh (factor) },
                                                        else_branch = q () => (e) { e = Identity (factor) }> }""")
        original.graph.node.append(branch.graph.node[0])
        original.graph.input.append(branch.graph.input[0])
    original.graph.output.append(helper.make_tensor_value_info("b" if use == "branch" else "factor", 1, []))
    result = rewritten(original)
    assert dropped(original, result) == {"Mul_logits"}
    assert "factor" in names(result.graph.initializer)
    onnx.checker.check_model(result)


def test_constant_is_dropped_when_all_that_used_it_is_absorbed() -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] y, float[b,n,8] z) {
        k = Transpose <perm = [0, 2, 1]> (x)
        r = MatMul (x, k) l = Mul (r, c) p = Softmax <axis = -1> (l) y = MatMul (p, x)
        r2 = MatMul (y, k) l2 = Mul (r2, c) p2 = Softmax <axis = -1> (l2) z = MatMul (p2, x) }"""
    result = rewritten(build(text, {"c": F32(0.25)}))
    assert "c" not in names(result.graph.initializer)
    assert "Mul" not in op_types(result)
    check_valid(result)


def test_constant_nodes_of_a_dropped_scale_go_with_it() -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] y) {
        c0 = Constant <value_float = 0.25> () c1 = Identity (c0) c = Cast <to = 1> (c1)
        unused = Constant <value_int = 3> ()
        k = Transpose <perm = [0, 2, 1]> (x) r = MatMul (x, k) l = Mul (r, c)
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }"""
    assert op_types(rewritten(build(text))) == ["Constant", "Transpose", "MatMul", "HCCS", "MatMul"]


def test_constant_of_a_dropped_scale_is_kept_when_it_is_a_model_input_too(run: Run) -> None:
    # Models of IR version 3 list initializers as inputs; without the initializer the input would have to be fed.
    variant = Attention(scale="mul", opset=11, ir_version=3)
    original = variant.model()
    for tensor in original.graph.initializer:
        original.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.checker.check_model(original, full_check=True)
    result = rewritten(original)
    given = set(names(result.graph.initializer))
    assert [name for name in names(result.graph.input) if name not in given] == ["x"]
    assert np.isfinite(run(result, variant.feed())[0]).all()


def test_guard_is_kept_when_its_condition_is_used_elsewhere(run: Run) -> None:
    variant = Attention(guard=True)
    original = tapped(variant.model(), "is_nan")
    result = rewritten(original)
    assert "HCCS" in op_types(result)
    assert {"IsNaN_is_nan", "Where_guarded"} <= set(names(result.graph.node))
    assert not run(result, variant.feed())[1].any()


def test_guards_zero_is_kept_when_it_is_shared() -> None:
    original = Attention(guard=True).model()
    original.graph.node.append(helper.make_node("Add", ["x", "nan_fill"], ["other"], name="other"))
    result = rewritten(tapped(original, "other"))
    assert "nan_fill" in names(result.graph.initializer)
    assert "IsNaN" not in op_types(result)


def test_softmax_that_is_no_attention_is_left_alone(run: Run) -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] y, float[b,n,8] c) {
        k = Transpose <perm = [0, 2, 1]> (x) l = MatMul (x, k) p = Softmax <axis = -1> (l) y = MatMul (p, x)
        s = MatMul (x, w) c = Softmax <axis = -1> (s) }"""
    original = build(text, {"w": np.eye(8, dtype=F32)})
    result = rewritten(original)
    assert op_types(result) == ["Transpose", "MatMul", "HCCS", "MatMul", "MatMul", "Softmax"]
    feed = {"x": np.linspace(-2, 2, 48, dtype=F32).reshape(2, 3, 8)}
    np.testing.assert_array_equal(run(result, feed)[1], run(original, feed)[1])


def test_every_attention_gets_its_own_parameters() -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] z) {
        k = Transpose <perm = [0, 2, 1]> (x)
        l = MatMul (x, k) p = Softmax <axis = -1> (l) y = MatMul (p, x)
        l2 = MatMul (y, k) p2 = Softmax <axis = -1> (l2) z = MatMul (p2, x) }"""
    model = build(text)
    found = find_attention(model)
    first, second = head_params(2)
    rewrite_graph(model, found, {"l": HccsParams((first,)), "l2": HccsParams((second,), masked=True)}, {})
    assert [(node.name, read_attributes(node).heads[0].B) for node in nodes(model, "HCCS")] == [
        ("Softmax_p", first.B), ("Softmax_p2", second.B),
    ]  # fmt: skip
    assert [read_attributes(node).masked for node in nodes(model, "HCCS")] == [False, True]
    assert len(model.functions) == 1
    assert [name for name in names(model.graph.initializer) if "zero_point" in name] == ["hccs_y_zero_point"]


def test_new_names_do_not_collide_with_the_models() -> None:
    original = Attention(dtype="float16").model()
    original.graph.node.append(helper.make_node("Neg", ["x"], ["hccs_y_zero_point"], name="a"))
    original.graph.node.append(helper.make_node("Neg", ["x"], ["probabilities_logits"], name="b"))
    result = rewritten(tapped(original, "hccs_y_zero_point", "probabilities_logits"))
    produced = [name for node in result.graph.node for name in node.output] + names(result.graph.initializer)
    assert len(produced) == len(set(produced))
    assert "hccs_y_zero_point_1" in names(result.graph.initializer)


# versions, function, provenance


@pytest.mark.parametrize(("opset", "ir_version", "expected_ir"), [(11, 6, 8), (13, 7, 8), (17, 8, 8), (20, 9, 9)])
def test_ir_version_is_raised_only_where_it_is_too_low(opset: int, ir_version: int, expected_ir: int) -> None:
    result = rewritten(Attention(opset=opset, ir_version=ir_version).model())
    assert result.ir_version == expected_ir
    imports = {entry.domain: entry.version for entry in result.opset_import}
    assert imports == {"": max(opset, 12), "hccs": 1}
    check_valid(result)


def test_opset_under_its_other_name_is_understood(run: Run) -> None:
    variant = Attention(mask="computed")
    original = variant.model()
    original.opset_import[0].domain = "ai.onnx"
    result = rewritten(original)
    assert len(nodes(result, "HCCS")) == 1
    assert np.isfinite(run(result, variant.feed())[0]).all()


def test_opset_below_11_is_refused_and_nothing_is_changed() -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] y) { k = Transpose <perm = [0, 2, 1]> (x) l = MatMul (x, k)
        p = Softmax <axis = 2> (l) y = MatMul (p, x) }"""
    model = build(text, opset=10, ir_version=5)
    before = model.SerializeToString(deterministic=True)
    found = find_attention(model)
    with pytest.raises(ModelError, match="opset is too old"):
        rewrite_graph(model, found, {"l": HccsParams((DATA_FREE,))}, {})
    assert model.SerializeToString(deterministic=True) == before


def test_opset_11_dropout_keeps_its_ratio() -> None:
    result = rewritten(Attention(opset=11, dropout=True).model())
    (dropout,) = nodes(result, "Dropout")
    (ratio,) = [tensor for tensor in result.graph.initializer if tensor.name == dropout.input[1]]
    assert numpy_helper.to_array(ratio) == 0.25
    assert len(dropout.attribute) == 0


def test_function_is_the_body_for_the_models_opset() -> None:
    result = rewritten(Attention(opset=13).model())
    assert list(result.functions) == [function_body("float", "norm", 13)]


def test_another_hccs_function_in_the_model_is_refused() -> None:
    model = Attention().model()
    model.functions.append(function_body("uint8", "norm", 17))
    with pytest.raises(ModelError, match=r"carries another hccs::HCCS function already\. Rewrite the original model"):
        rewritten(model)


def test_provenance_is_in_the_metadata() -> None:
    model = Attention().model()
    model.metadata_props.append(onnx.StringStringEntryProto(key="author", value="someone"))
    model.metadata_props.append(onnx.StringStringEntryProto(key="hccs_onnx.version", value="0.0.0"))
    result = rewritten(model)
    entries = [(entry.key, entry.value) for entry in result.metadata_props]
    assert entries[0] == ("author", "someone")
    assert dict(entries)["hccs_onnx.version"] == __version__
    assert dict(entries)["hccs_onnx.calibration"] == "test"
    assert len(dict(entries)["hccs_onnx.parameters_sha256"]) == 64
    assert len(entries) == len(dict(entries)) == 4


def test_parameter_hash_depends_on_the_parameters_alone() -> None:
    def digest(params: HccsParams, variant: Attention = Attention()) -> str:  # noqa: B008
        model = variant.model()
        rewrite_graph(model, find_attention(model), {LOGITS: params}, {})
        return {entry.key: entry.value for entry in model.metadata_props}["hccs_onnx.parameters_sha256"]

    params = HccsParams(head_params(3))
    assert digest(params) == digest(params)
    assert digest(params) == digest(params, Attention(scale=None))
    assert (
        len({digest(params), digest(HccsParams(head_params(2))), digest(HccsParams(head_params(3), masked=True))}) == 3
    )


# determinism


def test_rewriting_twice_gives_the_same_bytes() -> None:
    for variant in (Attention(mask="computed", guard=True), Attention(scale="query_key"), Attention(dtype="float16")):
        model = variant.model()
        first = rewritten(model).SerializeToString(deterministic=True)
        assert rewritten(model).SerializeToString(deterministic=True) == first


def test_rewriting_gives_the_same_bytes_when_the_hash_seed_differs(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(Attention(mask="computed", guard=True, scale="query_key", dropout=True, opset=11).model(), source)
    code = "import sys; from hccs_onnx import workflow; workflow.rewrite(sys.argv[1], sys.argv[2])"
    results = []
    for seed in ("0", "1", "4242"):
        target = tmp_path / f"{seed}.onnx"
        subprocess.run(
            [sys.executable, "-c", code, str(source), str(target)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": ""},
            check=True,
        )
        results.append(target.read_bytes())
    assert results[0] == results[1] == results[2]
    assert PROBABILITIES.encode() in results[0]
