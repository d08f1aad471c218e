"""Finding the projection behind an attention, and the reasons why there is none to correct."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from correction.models import PROJECTIONS, attention, weights
from onnx import numpy_helper

from hccs_onnx.correction.projection import Projection, find_projection
from hccs_onnx.correction.weights import Step, Weight
from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.patterns.base import NoMatch
from hccs_onnx.graph.view import GraphView


def find(model: onnx.ModelProto) -> Projection | NoMatch:
    item = find_attention(model)[0]
    assert item.reason is None
    return find_projection(GraphView(model, Path()), item)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_projection_is_found_in_every_form(name: str) -> None:
    found = find(attention(name))
    assert isinstance(found, Projection)
    half = name == "half"
    close = {"atol": 0.02} if "quantised" in name or name in ("cast and scaled", "rounded", "half") else {"rtol": 1e-6}
    np.testing.assert_allclose(found.weight.value, weights()["w"], **close)
    expected_bias = {"no bias": None, "half": "b_half", "constant nodes": "b_node"}.get(name, "b")
    assert (found.bias and found.bias.tensor) == expected_bias
    if found.bias:
        np.testing.assert_allclose(found.bias.value, weights()["b"], atol=1e-3 if half else 0)
    assert found.x == {"gemm": "rows", "gemm, transposed": "rows", "half": "h", "rounded": "a2"}.get(name, "joined")
    assert found.output == {"gemm": "z", "gemm, transposed": "z", "half": "s"}.get(name, "y")


@pytest.mark.parametrize("name", ["transposed", "gemm, transposed", "dequantised", "dequantised, one scale", "half"])
def test_weights_are_stored_in_the_form_that_they_have(name: str) -> None:
    weight = find(attention(name)).weight
    assert weight.stored.dtype == weights()[weight.tensor].dtype
    np.testing.assert_array_equal(weight.nearest(weight.value), weight.stored)
    wanted = weight.value + 0.1 * np.random.default_rng(0).normal(size=weight.value.shape)
    error = np.abs(weight.read(weight.nearest(wanted)) - wanted)
    step = {"dequantised": weights()["scales"], "dequantised, one scale": weights()["scale"]}.get(name, 0.002)
    inside = np.abs(wanted) < np.abs(weights()["w"]).max(axis=0)  # codes saturate beyond
    assert (error <= step)[inside].all()
    np.testing.assert_allclose(
        weight.change_when_stored(wanted - weight.value), wanted - weight.value, atol=error.max()
    )


def test_codes_saturate_and_leave_out_what_symmetric_codes_leave_out() -> None:
    weight = find(attention("dequantised")).weight
    assert weight.nearest(np.full_like(weight.value, -99)).min() == -127
    assert weight.nearest(np.full_like(weight.value, 99)).max() == 127
    wide = find(attention("dequantised, one scale")).weight
    assert wide.nearest(np.full_like(wide.value, -99)).min() == 0


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ("g = Sigmoid (x) gated = Mul (joined, g) o = MatMul (gated, w) y = Add (o, b)",
         "Mul 'Mul_gated' is behind the product with values, no projection"),
        ("y = MatMul (joined, x_square)", "MatMul 'MatMul_y' is behind the product with values, no projection"),
        ("y = Identity (joined)", "the heads go to 0 nodes"),
        ("o = MatMul (joined, w) u = MatMul (joined, w_t) y = Add (o, u)", "the heads go to 2 nodes"),
        ("t = Transpose <perm = [0, 2, 1]> (joined) y = MatMul (w_left, t)",
         "MatMul 'MatMul_y' has its weight on the left"),
        ("o = MatMul (joined, w) e = MatMul (x, w) y = Add (o, e)",
         "weight of MatMul 'MatMul_o': 'w' is shared, by 2 readers"),
        ("n = Neg (w_t) y = MatMul (joined, n)", "weight of MatMul 'MatMul_y': 'n' is made by Neg"),
        ("rows = Reshape (joined, flat) y = Gemm <alpha = 2.0> (rows, w, b)", "Gemm 'Gemm_y' has transA or an alpha"),
        ("y = MatMul (joined, stack)", "weight of MatMul 'MatMul_y' is not a matrix"),
        ("y = Einsum <equation = \"bnd,de->bne\"> (joined, w)",
         "Einsum 'Einsum_y' is behind the product with values, no projection"),
    ],
)  # fmt: skip
def test_projection_is_left_alone_with_the_reason(nodes: str, reason: str) -> None:
    extra = "x_turned = Transpose <perm = [0, 2, 1]> (x) x_square = MatMul (x_turned, x)"
    model = attention(f"{extra if 'x_square' in nodes else ''} {nodes}")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((6, 8), np.float32), "w_left"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 8, 8), np.float32), "stack"))
    found = find(model)
    assert isinstance(found, NoMatch)
    assert found.reason == reason


@pytest.mark.parametrize(
    ("kind", "nodes", "opset"),
    [("float8e4m3fn", "w_f = DequantizeLinear (odd, one)", 19), ("int4", "w_f = DequantizeLinear (odd, one)", 21),
     ("bfloat16", "w_f = Cast <to = 1> (odd)", 17)],
)  # fmt: skip
def test_weight_is_left_alone_when_onnx_reads_it_as_another_type(kind: str, nodes: str, opset: int) -> None:
    model = attention(f"{nodes} o = MatMul (joined, w_f) y = Add (o, b)", opset=opset)
    data_type = onnx.TensorProto.DataType.Value(kind.upper())
    model.graph.initializer.append(onnx.helper.make_tensor("odd", data_type, [8, 8], [1] * 64))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    found = find(model)
    if isinstance(found, Projection):  # since onnx 1.19
        assert kind == found.weight.stored.dtype.name == "bfloat16"
    else:
        said = {kind, "int8"} if kind == "int4" else {kind}  # onnx 1.16 calls it int8
        assert found.reason in {f"weight of MatMul 'MatMul_o': 'odd' is of type {name}" for name in said}


def test_bias_in_a_node_without_a_tensor_is_left_alone() -> None:
    found = find(
        attention(f"numbers = Constant <value_floats = {[0.5] * 8}> () o = MatMul (joined, w) y = Add (o, numbers)")
    )
    assert isinstance(found, Projection)
    assert found.bias is None


def test_channels_of_scale_0_stay_0() -> None:
    scale = np.array([0.5, 0.0])
    for stored, zero_point in ((np.array([[3, -4]], np.int8), np.array([1.0])), (np.ones((1, 2), np.float32), None)):
        weight = Weight("w", stored, (Step(scale=scale, zero_point=zero_point),))
        nearest = weight.nearest(np.array([[2.0, 7.0]]))
        assert nearest.dtype == stored.dtype
        assert np.isfinite(nearest).all()
        np.testing.assert_array_equal(weight.read(nearest), [[2.0, 0.0]])


def test_a_weight_that_is_also_an_output_is_shared() -> None:
    model = attention("matmul")
    model.graph.output.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [8, 8]))
    assert find(model).reason == "weight of MatMul 'MatMul_o': 'w' is shared, by 2 readers"


@pytest.mark.parametrize(
    "nodes",
    ["o = MatMul (joined, w) y = Add (o, x)", "o = MatMul (joined, w) y = Add (o, one)",
     "o = MatMul (joined, w) s = Add (o, b) y = Mul (s, b)"],
)  # fmt: skip
def test_what_is_no_bias_of_its_own_is_not_changed(nodes: str) -> None:
    model = attention(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    found = find(model)
    assert isinstance(found, Projection)
    assert found.bias is None


def test_digits_have_their_projections(digits_model: Path) -> None:
    model = onnx.load(digits_model)
    view = GraphView(model, digits_model.parent)
    found = [find_projection(view, item) for item in find_attention(model)]
    assert all(isinstance(item, Projection) and item.bias is not None for item in found)
    assert [item.weight.value.shape for item in found if isinstance(item, Projection)] == [(32, 32), (32, 32)]
