"""Shapes behind onnxruntime's own operators: what is inferred is what the operators put out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.fused.test_multi_head import multi_head
from graph.fused.test_runtime_attention import attention
from graph.models import build
from onnx import TensorProto

from hccs_onnx.graph.shapes import tensor_types
from hccs_onnx.graph.stand_ins import with_stand_ins

X = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
WEIGHTS = {
    "w": np.ones(8, np.float32),
    "words": np.ones((9, 8), np.float32),
    "places": np.ones((6, 8), np.float32),
}
HEAD = "float[2,5,8] x, int32[2,5] ids"
NODES = {
    "BiasGelu": "t = com.microsoft.BiasGelu (x, w)",
    "FastGelu": "t = com.microsoft.FastGelu (x)",
    "FusedMatMul transB": "t = com.microsoft.FusedMatMul <transB = 1> (x, x)",
    "FusedMatMul transA": "t = com.microsoft.FusedMatMul <alpha = 0.5, transA = 1> (x, x)",
    "QuickGelu": "t = com.microsoft.QuickGelu (x)",
    "SkipLayerNormalization": "t, a, b, u = com.microsoft.SkipLayerNormalization (x, x, w, w)",
    "Scaler": "t = ai.onnx.ml.Scaler <scale = [2.0], offset = [1.0]> (ids)",
    "Normalizer": 't = ai.onnx.ml.Normalizer <norm = "L1"> (ids)',
    "EmbedLayerNormalization": "t, u = com.microsoft.EmbedLayerNormalization (ids, , words, places, , w, w, ids)",
}


def _knows_ellipses() -> bool:
    product = 't = Einsum <equation = "...ik,...jk->...ij"> (x, x)'
    model = build(f"g (float[2,5,8] x) => (t) {{ {product} }}", {})
    return shape_of(tensor_types(model, Path())["t"]) == [2, 5, 5]


def shape_of(kind: onnx.TypeProto) -> list[int]:
    return [dim.dim_value for dim in kind.tensor_type.shape.dim]


@pytest.mark.parametrize("name", NODES)
def test_inferred_shape_and_type_are_those_of_the_result(name: str, run: Run) -> None:
    if "FusedMatMul" in name and not _knows_ellipses():
        pytest.skip(f"onnx {onnx.__version__} infers no sizes of an Einsum with an ellipsis")
    outputs = ["t", "u"] if ", u" in NODES[name] else ["t"]
    model = build(f"g ({HEAD}) => () {{ {NODES[name]} }}", WEIGHTS, domains=', "com.microsoft": 1, "ai.onnx.ml": 1')
    types = tensor_types(model, Path())
    model.graph.output.extend(onnx.ValueInfoProto(name=output) for output in outputs)
    ids = np.ones((2, 5), np.int32)
    for output, value in zip(outputs, run(model, {"x": X, "ids": ids}), strict=True):
        assert shape_of(types[output]) == list(value.shape)
        assert types[output].tensor_type.elem_type == onnx.helper.np_dtype_to_tensor_dtype(value.dtype)


@pytest.mark.parametrize(
    ("case", "width"),
    [
        (attention(), 12),
        (attention(attributes={"num_heads": 3, "qkv_hidden_sizes": [12, 12, 6]}), 6),
        (multi_head(), 12),
        (multi_head().with_inputs(value=np.ones((2, 7, 6), np.float32)), 6),
    ],
)
def test_width_behind_attention_that_stays_whole_is_known(case: object, width: int) -> None:
    model = case.model()  # type: ignore[attr-defined]
    del model.graph.output[:]
    kind = tensor_types(model, Path())["y"].tensor_type
    assert kind.elem_type == TensorProto.FLOAT
    assert len(kind.shape.dim) == 3
    assert kind.shape.dim[2].dim_value == width


@pytest.mark.parametrize("node", ["t = Neg (x)", "t = other.FastGelu (x)", "t = com.microsoft.Mystery (x)"])
def test_other_nodes_have_no_stand_in(node: str) -> None:
    model = build(f"g ({HEAD}) => () {{ {node} }}", domains=', "com.microsoft": 1, "other": 1')
    assert with_stand_ins(model) is model
