"""Parts of models: what some tensors depend on, and where a model can be cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from graph.models import build

from hccs_onnx.graph.prefix import crossing, prefix

TEXT = """g (float[n] x, bool c) => (float[n] y, float[n] other)
{ a = Neg (x)
  two = Identity (w)
  b = Mul (a, two)
  d = If (c) <then_branch = g1 () => (float[n] t) { t = Add (b, two) },
              else_branch = g2 () => (float[n] e) { e = Identity (a) }>
  other = Abs (a)
  y = Sub (d, v) }"""
X = np.array([1.0, -2.0], np.float32)


def model() -> onnx.ModelProto:
    return build(TEXT, {"w": np.float32(2), "v": np.float32(3)})


def test_prefix_holds_what_is_needed_and_nothing_else() -> None:
    part = prefix(model(), ["b"])
    assert [node.output[0] for node in part.graph.node] == ["a", "two", "b"]
    assert [tensor.name for tensor in part.graph.initializer] == ["w"]
    assert [value.name for value in part.graph.input] == ["x", "c"]


def test_prefix_sees_what_bodies_read(run: Callable[..., list[np.ndarray]]) -> None:
    part = prefix(model(), ["d"])
    assert [node.output[0] for node in part.graph.node] == ["a", "two", "b", "d"]
    for choice in (True, False):
        (d,) = run(part, {"x": X, "c": np.array(choice)})
        np.testing.assert_array_equal(d, -2 * X + 2 if choice else -X)


def test_prefix_goes_on_from_what_is_given(run: Callable[..., list[np.ndarray]]) -> None:
    given = [onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [None])]
    part = prefix(model(), ["b"], given)
    assert [node.output[0] for node in part.graph.node] == ["two", "b"]
    np.testing.assert_array_equal(run(part, {"x": X, "c": np.array(True), "a": X})[0], 2 * X)


def test_prefix_leaves_out_inputs_that_are_initializers_which_nothing_reads() -> None:
    whole = model()
    whole.graph.input.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []) for name in "wv")
    assert [value.name for value in prefix(whole, ["b"]).graph.input] == ["x", "c", "w"]


def test_crossing_is_what_goes_over_the_border() -> None:
    assert crossing(model(), "b") == ["a", "b"]  # bodies read both; `two` is quickly made again
    assert crossing(model(), "y") == ["a", "y"]
    assert crossing(model(), "a") == ["a"]
