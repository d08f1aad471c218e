"""Each pattern on graphs that it must and must not match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graph.models import Attention, build

from hccs_onnx.graph.mask_levels import MaskLevels
from hccs_onnx.graph.patterns import (
    LOGIT_STEPS,
    additive_mask,
    limits,
    logit_scale,
    nan_guard,
    passthrough,
    query_key,
    where_mask,
)
from hccs_onnx.graph.patterns import value_product as value_product_pattern
from hccs_onnx.graph.patterns.base import NoMatch, Step
from hccs_onnx.graph.patterns.nan_guard import NanGuard
from hccs_onnx.graph.patterns.query_key import QueryKeyProduct
from hccs_onnx.graph.view import GraphView

F32 = np.float32


def parsed(lines: str, opset: int = 17, outputs: str = "float[b,h,n,n] y", **initializers: Any) -> GraphView:
    """View of a graph with inputs x, z (logits), q, k, mask, keep, flag; `y` is to be made by the lines."""
    inputs = (
        "float[b,h,n,n] x, float[b,h,n,n] z, float[b,h,n,d] q, float[b,h,d,n] k, float[b,1,1,n] mask, "
        "bool[b,1,1,n] keep, bool flag, float[1] number"
    )
    return GraphView(build(f"g ({inputs}) => ({outputs}) {{ {lines} }}", initializers, opset=opset), Path())


def maker(view: GraphView, name: str) -> gs.Node:
    node = view.producer(name)
    assert node is not None
    return node


def matched(pattern: Any, view: GraphView, name: str = "y") -> Any:
    return pattern.match(view, maker(view, name))


# additive mask


@pytest.mark.parametrize("line", ["y = Add (x, hide)", "y = Add (hide, x)"])
def test_additive_mask_gives_a_step_with_levels_when_the_mask_is_constant(line: str) -> None:
    view = parsed(line, hide=np.array([0, -1e4], F32))
    assert matched(additive_mask, view) == [Step(0, "x", mask=MaskLevels(True, 1e4))]


def test_additive_mask_tries_both_addends_when_both_are_computed() -> None:
    view = parsed("bias = Softplus (z) y = Add (x, bias)")
    assert [step.data for step in matched(additive_mask, view)] == ["x", "bias"]


@pytest.mark.parametrize("line", ["y = Sub (x, hide)", "y = Mul (x, hide)", "y = Add (hide, hide)"])
def test_additive_mask_does_not_match_when_it_is_no_sum_with_logits(line: str) -> None:
    assert matched(additive_mask, parsed(line, hide=np.array([0, -1e4], F32))) == []


# logit scale


@pytest.mark.parametrize(
    ("line", "factor"),
    [("y = Mul (x, c)", 0.5), ("y = Mul (c, x)", 0.5), ("y = Div (x, c)", 2.0)],
)
def test_logit_scale_gives_the_factor_when_it_is_a_positive_constant(line: str, factor: float) -> None:
    assert matched(logit_scale, parsed(line, c=F32(0.5))) == [Step(0, "x", factor=factor)]


def test_logit_scale_gives_the_factor_when_it_is_a_constant_node() -> None:
    view = parsed("c = Constant <value = float[1] {0.25}> () c2 = Identity (c) y = Mul (x, c2)")
    assert matched(logit_scale, view) == [Step(2, "x", factor=0.25)]


@pytest.mark.parametrize("c", [-0.5, 0.0, np.inf, np.nan])
def test_logit_scale_has_no_factor_when_the_constant_is_not_positive_and_finite(c: float) -> None:
    (step,) = matched(logit_scale, parsed("y = Mul (x, c)", c=F32(c)))
    assert (step.data, step.factor) == ("x", None)


@pytest.mark.parametrize("line", ["y = Mul (x, number)", "y = Div (x, number)", "y = Mul (number, x)"])
def test_logit_scale_has_no_factor_when_one_number_is_computed(line: str) -> None:
    assert matched(logit_scale, parsed(line)) == [Step(0, "x")]


@pytest.mark.parametrize("line", ["y = Mul (x, heads)", "y = Div (x, heads)", "y = Mul (heads, x)"])
def test_logit_scale_has_no_factor_when_every_head_has_its_own(line: str) -> None:
    assert matched(logit_scale, parsed(line, heads=np.array([[[0.5]], [[2]]], F32))) == [Step(0, "x")]


@pytest.mark.parametrize(
    "line", ["y = Mul (x, z)", "y = Mul (x, vector)", "y = Div (x, vector)", "y = Div (c, x)", "y = Add (x, c)"]
)
def test_logit_scale_does_not_match_when_it_is_no_scale_by_one_number(line: str) -> None:
    assert matched(logit_scale, parsed(line, c=F32(0.5), vector=np.array([0.5, 0.25], F32))) == []


# NaN guard

GUARD = "p = Softmax <axis = -1> (x) bad = IsNaN (p) y = Where (bad, zero, p)"
IN_A_BRANCH = (
    " other = If (flag) <then_branch = a () => (t) {{ t = Identity ({0}) }},"
    " else_branch = b () => (e) {{ e = Identity ({0}) }}>"
)


def guard_of(view: GraphView) -> NanGuard | None:
    return nan_guard.match(view, maker(view, "p"))


@pytest.mark.parametrize("zero", [np.zeros((), F32), np.zeros((1, 1), F32)])
def test_nan_guard_is_found_when_it_replaces_nan_by_zero(zero: np.ndarray) -> None:
    assert guard_of(parsed(GUARD, zero=zero)) == NanGuard((1, 2), "y")


def test_nan_guard_is_found_when_zero_is_a_constant_node() -> None:
    view = parsed("zero = Constant <value_float = 0.0> () " + GUARD)
    assert guard_of(view) == NanGuard((2, 3), "y")


@pytest.mark.parametrize(
    ("lines", "outputs"),
    [
        (GUARD.replace("(bad, zero, p)", "(bad, one, p)"), "float[b,h,n,n] y"),
        (GUARD.replace("(bad, zero, p)", "(bad, p, zero)"), "float[b,h,n,n] y"),
        (GUARD.replace("(bad, zero, p)", "(bad, z, p)"), "float[b,h,n,n] y"),
        (GUARD.replace("IsNaN (p)", "IsNaN (x)"), "float[b,h,n,n] y"),
        (GUARD + " other = Neg (p)", "float[b,h,n,n] y, float[b,h,n,n] other"),
        (GUARD + " other = Not (bad)", "float[b,h,n,n] y, bool[b,h,n,n] other"),
        (GUARD + IN_A_BRANCH.format("p"), "float[b,h,n,n] y, float[b,h,n,n] other"),
        (GUARD + IN_A_BRANCH.format("bad"), "float[b,h,n,n] y, bool[b,h,n,n] other"),
        (GUARD, "float[b,h,n,n] y, float[b,h,n,n] p"),
        (GUARD, "float[b,h,n,n] y, bool[b,h,n,n] bad"),
        ("p = Softmax <axis = -1> (x) y = Neg (p)", "float[b,h,n,n] y"),
    ],
    ids=[
        "replaced by one", "swapped", "replaced by a tensor", "of another tensor", "probabilities used elsewhere",
        "condition used elsewhere", "probabilities used in a branch", "condition used in a branch",
        "probabilities are an output", "condition is an output", "no guard",
    ],
)  # fmt: skip
def test_nan_guard_is_not_found_when_more_hangs_on_it(lines: str, outputs: str) -> None:
    assert guard_of(parsed(lines, outputs=outputs, zero=F32(0), one=F32(1))) is None


def test_nan_guard_is_not_found_when_half_of_it_lies_in_a_subgraph() -> None:
    lines = """
        p = Softmax <axis = -1> (x) bad = IsNaN (p)
        y = If (flag) <then_branch = a () => (float[b,h,n,n] t) { t = Where (bad, zero, p) },
                       else_branch = b () => (float[b,h,n,n] e) { e = Identity (x) }>
    """
    assert guard_of(parsed(lines, zero=F32(0))) is None


# passthrough


@pytest.mark.parametrize(
    "lines",
    [
        "y = Identity (x)",
        "y = Dropout (x)",
        "y = Dropout (x, ratio)",
        "y = Dropout (x, ratio, off)",
        "off2 = Identity (off) y = Dropout (x, , off2)",
        "y = Reshape (x, same_rows)",
    ],
)
def test_passthrough_matches_when_rows_stay_as_they_are(lines: str) -> None:
    view = parsed(
        lines, outputs="float[b,h,i,n] y", ratio=F32(0.5), off=np.array(False), same_rows=np.array([-1, 1, 0, 0])
    )
    assert matched(passthrough, view) == [Step(view.index(maker(view, "y")), "x", reshapes="Reshape" in lines)]


def test_passthrough_matches_when_opset_11_dropout_has_a_ratio_attribute() -> None:
    assert matched(passthrough, parsed("y = Dropout <ratio = 0.5> (x)", opset=11)) == [Step(0, "x")]


@pytest.mark.parametrize("to", [1, 10, 16])
def test_passthrough_matches_when_a_float_is_cast_to_a_float(to: int) -> None:
    view = parsed(f"h = Cast <to = {to}> (x) y = Cast <to = 1> (h)")
    assert matched(passthrough, view, "h") == [Step(0, "x")]
    assert matched(passthrough, view) == [Step(1, "h")]


@pytest.mark.parametrize(
    "lines",
    [
        "y = Dropout (x, ratio, on)",
        "y = Dropout (x, ratio, flag)",
        "i = Cast <to = 7> (x) y = Cast <to = 1> (i)",
        "y = Reshape (x, other_rows)",
        "y = Transpose <perm = [0, 1, 3, 2]> (x)",
        "y = Neg (x)",
    ],
)
def test_passthrough_does_not_match_when_rows_change(lines: str) -> None:
    values = {"ratio": F32(0.5), "on": np.array(True), "other_rows": np.array([0, 0, 2, -1])}
    view = parsed(lines, outputs="float[b,h,i,j] y", **values)
    assert matched(passthrough, view) == []


# query-key product


def test_query_key_matches_when_both_sides_are_computed() -> None:
    assert matched(query_key, parsed("y = MatMul (q, k)")) == QueryKeyProduct(0, "q", "k", ())


def test_query_key_matches_when_queries_are_constant() -> None:
    view = parsed("y = MatMul (learned, k)", learned=np.ones((1, 3, 5, 4), F32))
    assert matched(query_key, view) == QueryKeyProduct(0, "learned", "k", ())


@pytest.mark.parametrize("moves", ["", "Identity", "Transpose <perm = [0, 1, 2, 3]>"])
def test_query_key_finds_scales_of_both_sides(moves: str) -> None:
    move = f"q_moved = {moves} (q_scaled)" if moves else "q_moved = Mul (q_scaled, one)"
    lines = f"q_scaled = Mul (q, c) {move} k_scaled = Div (k, c) y = MatMul (q_moved, k_scaled)"
    product = matched(query_key, parsed(lines, c=F32(0.5), one=F32(1)))
    expected = [Step(0, "q", factor=0.5), Step(2, "k", factor=2.0)]
    if not moves:
        expected.insert(0, Step(1, "q_scaled", factor=1.0))
    assert list(product.scales) == expected


@pytest.mark.parametrize(
    ("lines", "outputs"),
    [
        ("s = Mul (q, c) t = Neg (s) y = MatMul (s, k)", "float[b,h,n,n] y, float[b,h,n,d] t"),
        ("s = Mul (q, c) y = MatMul (s, k)", "float[b,h,n,n] y, float[b,h,n,d] s"),
        ("s = Mul (q, vector) y = MatMul (s, k)", "float[b,h,n,n] y"),
        ("s = Mul (q, minus) y = MatMul (s, k)", "float[b,h,n,n] y"),
        ("s = Mul (q, number) y = MatMul (s, k)", "float[b,h,n,n] y"),
        ("s = Mul (q, c) t = Add (s, vector) y = MatMul (t, k)", "float[b,h,n,n] y"),
        ("s = Div (c, q) y = MatMul (s, k)", "float[b,h,n,n] y"),
        ("s = Mul (q, c) t = Transpose <perm = [0, 1, 3, 2]> (s) y = MatMul (s, t)", "float[b,h,n,n] y"),
    ],
    ids=[
        "also used elsewhere", "is an output", "vector", "negative", "computed", "before a bias", "numerator",
        "queries are the keys",
    ],
)  # fmt: skip
def test_query_key_finds_no_scale_when_it_cannot_be_moved(lines: str, outputs: str) -> None:
    view = parsed(lines, outputs=outputs, c=F32(0.5), minus=F32(-0.5), vector=np.array([0.5, 0.25, 1, 2], F32))
    assert matched(query_key, view).scales == ()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("y = Add (x, z)", "logits come from Add 'Add_y', not from a product of queries and keys"),
        ("y = MatMul (x, w)", "logits come from MatMul 'MatMul_y' with constant weights: a classifier or a gate"),
        (
            "t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t)",
            "logits come from MatMul 'MatMul_y' with constant weights: a classifier or a gate",
        ),
    ],
)
def test_query_key_says_why_when_it_is_no_product_of_queries_and_keys(lines: str, reason: str) -> None:
    assert matched(query_key, parsed(lines, w=np.ones((4, 4), F32))) == NoMatch(reason)


def test_query_key_says_why_when_logits_are_an_input() -> None:
    view = parsed("y = Softmax <axis = -1> (x)")
    result = query_key.match(view, view.producer("x"))
    assert isinstance(result, NoMatch)
    assert "model input or constant" in result.reason


# product with values


@pytest.mark.parametrize(
    "lines",
    [
        "y = MatMul (x, k)",
        "a = Dropout (x) b = Identity (a) c = Cast <to = 10> (b) d = Cast <to = 1> (c) y = MatMul (d, k)",
        "y = MatMul (x, k) other = Neg (x)",
        "a = Where (keep, zero, x) y = MatMul (a, k)",
        "a = Where (keep, x, zero) y = MatMul (a, k)",
    ],
)
def test_value_product_matches_when_values_are_summed(lines: str) -> None:
    assert value_product_pattern.match(parsed(lines, zero=F32(0)), "x") is None


GRID = "s = Shape (k) n = Gather (s, last) i = Range (zero, n, one) j = Unsqueeze (i, axis) grid = Cast <to = 1> (j) "
GRID_PARTS = {"zero": np.int64(0), "one": np.int64(1), "last": np.int64(3), "axis": np.array([1])}


@pytest.mark.parametrize("lines", ["y = MatMul (x, grid)", "y = Einsum <equation = 'bhij,jk->bhik'> (x, grid)"])
def test_value_product_is_none_when_the_values_are_a_grid_of_positions(lines: str) -> None:
    lines = GRID + lines.replace("'", '"')
    result = value_product_pattern.match(parsed(lines, outputs="float[b,h,n,1] y", **GRID_PARTS), "x")
    assert isinstance(result, NoMatch)


def test_value_product_matches_when_values_are_projected_from_positions() -> None:
    lines = GRID + "v = MatMul (grid, w) y = MatMul (x, v)"
    assert value_product_pattern.match(parsed(lines, w=np.ones((1, 4), F32), **GRID_PARTS), "x") is None


@pytest.mark.parametrize(
    ("lines", "outputs", "where"),
    [
        ("y = MatMul (k, x)", "float[b,h,d,n] y", "MatMul 'MatMul_y'"),
        ("y = MatMul (x, w)", "float[b,h,n,n] y", "MatMul 'MatMul_y' with constant values"),
        ("y = Mul (x, z)", "float[b,h,n,n] y", "Mul 'Mul_y'"),
        ("y = Where (keep, x, z)", "float[b,h,n,n] y", "Where 'Where_y'"),
        ("v, y = TopK (x, one)", "float[b,h,n,n] v, int64[b,h,n,n] y", "TopK 'TopK_v'"),
        ("i = Identity (x) y = Neg (z)", "float[b,h,n,n] y, float[b,h,n,n] i", "a model output"),
        ("y = Neg (z)", "float[b,h,n,n] y", "nothing"),
    ],
)
def test_value_product_says_where_probabilities_go_when_not_to_values(lines: str, outputs: str, where: str) -> None:
    result = value_product_pattern.match(parsed(lines, outputs=outputs, w=np.ones((4, 4), F32), one=np.array([1])), "x")
    assert result == NoMatch(f"probabilities go to {where}, not to a product with values")


# mask by choice


@pytest.mark.parametrize("line", ["y = Where (keep, x, fill)", "y = Where (keep, fill, x)"])
@pytest.mark.parametrize("fill", [-32, -1e4, -65504, -3.4e38, -np.inf])
def test_where_mask_gives_a_step_when_the_fill_is_far_below(line: str, fill: float) -> None:
    fill_values = F32(fill)
    assert matched(where_mask, parsed(line, fill=fill_values)) == [
        Step(0, "x", mask=MaskLevels(True, float(-fill_values)))
    ]


def test_where_mask_takes_the_weakest_of_several_fills() -> None:
    (step,) = matched(where_mask, parsed("y = Where (keep, x, fill)", fill=np.array([-1e4, -2e3], F32)))
    assert step.mask == MaskLevels(True, 2000.0)


@pytest.mark.parametrize(
    "line",
    [
        "y = Where (keep, x, small)",
        "y = Where (keep, x, mixed)",
        "y = Where (keep, x, empty)",
        "y = Where (keep, x, z)",
        "y = Add (x, fill)",
    ],
)
def test_where_mask_does_not_match_when_the_fill_is_no_mask(line: str) -> None:
    values = {"fill": F32(-1e4), "small": F32(-31.5), "mixed": np.array([-1e4, 0], F32), "empty": np.zeros(0, F32)}
    assert matched(where_mask, parsed(line, **values)) == []


# limits


@pytest.mark.parametrize(
    "line",
    [
        "y = Max (x, low)", "y = Max (low, x)", "y = Min (x, high)", "y = Clip (x, low, high)", "y = Clip (x, low)",
        "y = Clip (x, , high)", "y = Clip (x)",
    ],
)  # fmt: skip
def test_limits_give_a_step_past_which_no_scale_is_moved(line: str) -> None:
    assert matched(limits, parsed(line, low=F32(-5e4), high=F32(5e4))) == [Step(0, "x", bends=True)]


@pytest.mark.parametrize(
    "line",
    [
        "y = Max (x, zero)", "y = Max (x, high)", "y = Max (x, low, zero)", "y = Max (x)", "y = Max (x, number)",
        "y = Min (x, low)", "y = Min (x, zero)", "y = Clip (x, zero)", "y = Clip (x, low, zero)", "y = Clip (x, high)",
        "y = Clip (x, scalar)", "y = Relu (x)",
    ],
)  # fmt: skip
def test_limits_do_not_match_when_logits_can_reach_them(line: str) -> None:
    lines = "scalar = ReduceMin <keepdims = 0> (z) " + line
    assert matched(limits, parsed(lines, zero=F32(0), low=F32(-5e4), high=F32(5e4))) == []


def test_logit_steps_leave_no_node_to_two_patterns() -> None:
    model = Attention(mask="where", scale="mul", identity=True).model()
    view = GraphView(model, Path())
    for node in view.nodes:
        assert sum(bool(pattern(view, node)) for pattern in LOGIT_STEPS) <= 1
