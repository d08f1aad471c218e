"""Models of one onnxruntime operator, and its parts compared with what onnxruntime's CPU provider computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Run
from graph.models import nodes, op_types, tapped
from onnx import TensorProto, helper, numpy_helper

from hccs_onnx import rewrite
from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.fused import expand_fused, why_whole
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.reference import hccs

Array = np.ndarray
RUNTIME = tuple(map(int, ort.__version__.split(".")[:2]))
TESTED = (1, 32)  # older ones lack some of these kernels
RANKS = {"y": 3, "present": 5}
LOWEST = float(np.finfo(np.float32).min)


def randoms(seed: int = 0) -> Callable[..., Array]:
    """A source of float arrays of a shape."""
    random = np.random.default_rng(seed)
    return lambda *shape: random.normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A model of one node.

    Parameters
    ----------
    op : str
        Operator of com.microsoft.
    inputs : mapping of str to array or None
        In the node's order; None for one that is not there.
    outputs : tuple of str
        In the node's order; empty names for those that are not there.
    attributes : mapping
        Of the node.
    constants : tuple of str
        Inputs that are initializers; the first two axes of the others are dynamic.
    hidden : array, optional
        Where attention must not look, broadcast to (batch, head, query, key).
    counted : callable
        Leaves the part of an output that the operator defines.
    """

    op: str
    inputs: Mapping[str, Array | None]
    outputs: tuple[str, ...] = ("y",)
    attributes: Mapping[str, object] = field(default_factory=dict)
    constants: tuple[str, ...] = ()
    hidden: Array | None = None
    counted: Callable[[Array], Array] = lambda output: output
    opset: int = 17

    def model(self) -> onnx.ModelProto:
        given = {name: value for name, value in self.inputs.items() if value is not None}
        names = [name if name in given else "" for name in self.inputs]
        while not names[-1]:  # which older runtimes may not know
            names.pop()
        node = helper.make_node(
            self.op,
            names,
            list(self.outputs),
            "fused",
            domain="com.microsoft",
            **self.attributes,
        )
        inputs = [
            helper.make_tensor_value_info(name, kind(value), dynamic(name, value.shape))
            for name, value in given.items()
            if name not in self.constants
        ]
        first = next(iter(given.values()))
        made = TensorProto.FLOAT if self.op == "QAttention" else kind(first)
        outputs = [
            helper.make_tensor_value_info(name, made, [f"{name}_{axis}" for axis in range(RANKS.get(name, 4))])
            for name in self.outputs
            if name
        ]
        weights = [numpy_helper.from_array(value, name) for name, value in given.items() if name in self.constants]
        graph = helper.make_graph([node], "g", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def feed(self) -> dict[str, Array]:
        return {name: value for name, value in self.inputs.items() if value is not None and name not in self.constants}

    def with_inputs(self, **inputs: Array | None) -> Case:
        """A copy with other inputs."""
        return replace(self, inputs={**self.inputs, **inputs})


def kind(array: Array) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def dynamic(name: str, shape: tuple[int, ...]) -> list[str | int]:
    """Names in place of the first two sizes."""
    return [f"{name}_{axis}" if axis < 2 < len(shape) or axis < 1 else size for axis, size in enumerate(shape)]


def fused_outputs(case: Case, run: Run) -> list[Array]:
    """What onnxruntime's kernel computes."""
    try:
        return run(case.model(), case.feed())
    except Exception as error:  # onnxruntime's own classes have no common base
        if RUNTIME < TESTED:
            pytest.skip(f"onnxruntime {ort.__version__} cannot run it: {error}")
        raise


def check_parts(case: Case, run: Run, tolerance: float = 2e-6) -> None:
    """That the parts, with their Softmax kept, put out what the fused node does; the heads are known."""
    wanted = fused_outputs(case, run)
    parts = case.model()
    assert list(expand_fused(parts, Path()).values()) == ["y"], why_whole(parts, Path())
    assert case.op not in op_types(parts)
    onnx.checker.check_model(parts)
    for actual, expected in zip(run(parts, case.feed(), optimize=False), wanted, strict=True):
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        one, other = case.counted(actual).astype(np.float64), case.counted(expected).astype(np.float64)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    (found,) = find_attention(parts)
    assert found.reason is None
    assert found.heads == case.attributes["num_heads"]
    assert found.masked == (case.hidden is not None or "attention_bias" in case.feed())
    assert not found.folded


def check_rewritten(case: Case, run: Run, folder: Path) -> None:
    """That the rewritten node equals the reference on its logits, and is 0 where attention must not look."""
    onnx.save(case.model(), folder / "m.onnx")
    result = onnx.load(rewrite(folder / "m.onnx").output)
    assert case.op not in op_types(result)
    (node,) = nodes(result, "HCCS")
    logits, weights = run(tapped(result, node.input[0], node.output[0]), case.feed())[-2:]
    params = read_attributes(node)
    (head,) = params.heads
    numbers = {"B": [head.B], "S": [head.S], "Dmax": [head.Dmax], "scale": [head.scale]}
    expected = hccs(logits, np.float32, **numbers, masked=params.masked, mask_gap=params.mask_gap)
    np.testing.assert_array_equal(weights, expected)
    assert weights.ndim == 4
    if case.hidden is not None:
        hidden = np.broadcast_to(case.hidden, weights.shape)
        assert hidden.any()
        assert np.all(weights[hidden] == 0)
        assert np.all(weights.sum(axis=-1) > 0.99)


def check_left(case: Case, reason: str) -> None:
    """That the node is left whole, for this reason."""
    model = case.model()
    before = model.SerializeToString(deterministic=True)
    assert expand_fused(model, Path()) == {}
    assert model.SerializeToString(deterministic=True) == before
    (found,) = find_attention(model)
    assert found.reason == f"is com.microsoft.{case.op}, which hides its Softmax: {reason}"
    assert found.attention_like
