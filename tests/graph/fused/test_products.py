"""FusedMatMul, as onnxruntime writes it into optimised models: taken apart where it makes logits, and only there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Run
from graph.models import Attention, build, nodes, op_types

from hccs_onnx import inspect, rewrite, verify
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.fused.products import expand_products

DOMAIN = ', "com.microsoft": 1'
VARIANTS = {
    "plain": Attention(),
    "masked": Attention(mask="computed", fill=-1e4),
    "where": Attention(scale="mul", mask="where"),
    "folded": Attention(layout="folded", scale="query"),
}


def optimized(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """`model` as onnxruntime's optimiser leaves it, saved at `path`."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3  # it warns that the file is for this machine
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@pytest.mark.parametrize("name", VARIANTS)
def test_optimized_attention_is_found_rewritten_and_verified(name: str, run: Run, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    model = optimized(variant.model(), tmp_path / "m.onnx")
    assert "FusedMatMul" in op_types(model)
    (wanted,) = run(model, variant.feed())
    assert expand_products(model, tmp_path) == {"probabilities": "probabilities"}
    assert "FusedMatMul" not in op_types(model)
    np.testing.assert_allclose(run(model, variant.feed(), optimize=False)[0], wanted, rtol=1e-5, atol=1e-6)
    (found,) = inspect(tmp_path / "m.onnx")
    assert (found.reason, found.heads) == (None, variant.heads)
    np.testing.assert_allclose(found.factor, variant.logit_factor, rtol=1e-6)
    report = rewrite(tmp_path / "m.onnx")
    result = verify(tmp_path / "m.onnx", report.output, [variant.feed()])
    assert result.outputs[0].mean_cosine > 0.85


def test_optimized_attention_that_is_not_rewritten_stays_as_it_was(tmp_path: Path) -> None:
    text = (
        "g (float[b,2,n,4] q, float[b,2,m,4] k, float[b,2,m,4] v) => (float[b,2,n,4] y, float[b,2,n,m] scores)"
        "{ l = com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (q, k) p = Softmax <axis = -1> (l)"
        "  y = MatMul (p, v) t = com.microsoft.FusedMatMul <alpha = 0.25, transB = 1> (y, k)"
        "  scores = Softmax <axis = -1> (t) }"
    )
    onnx.save(build(text, domains=DOMAIN), tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert [item.reason for item in found] == [
        None,
        "probabilities go to a model output, not to a product with values",
    ]
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert [node.output[0] for node in nodes(result, "FusedMatMul")] == ["t"]


@pytest.mark.parametrize(
    ("attributes", "shape", "left"),
    [("transB = 1", "b,4,n", ["r"]), ("transBatchB = 1", "n,b,4", [])],
    ids=["its shape is known", "taken apart as well, for its shape"],
)
def test_attention_behind_a_product_that_is_not_rewritten_is_rewritten(
    attributes: str, shape: str, left: list[str], tmp_path: Path
) -> None:
    """Soft regions first, then attention to them: whether keys can be turned depends on the first product's rank."""
    text = (
        f"g (float[b,i,n] s, float[{shape}] f, float[b,m,4] q) => (float[b,m,4] y) {{ z = Relu (s)"
        f"  p0 = Softmax <axis = -1> (z) r = com.microsoft.FusedMatMul <alpha = 1.0, {attributes}> (p0, f)"
        "  k = MatMul (r, w) l = com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (q, k)"
        "  p = Softmax <axis = -1> (l) y = MatMul (p, r) }"
    )
    weight = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    onnx.save(build(text, {"w": weight}, domains=DOMAIN), tmp_path / "m.onnx")
    reasons = [item.reason for item in inspect(tmp_path / "m.onnx")]
    assert reasons == ["logits come from Relu 'Relu_z', not from a product of queries and keys", None]
    report = rewrite(tmp_path / "m.onnx")
    assert sorted(item.softmax for item in report.found) == ["p", "p0"]
    assert [item.softmax for item in report.rewritten] == ["p"]
    result = onnx.load(report.output)
    assert op_types(result).count("HCCS") == op_types(result).count("Softmax") == 1
    assert [node.output[0] for node in nodes(result, "FusedMatMul")] == left


@pytest.mark.parametrize(
    "product",
    [
        "com.microsoft.FusedMatMul <alpha = 0.5> (q, k, v)",
        "other.FusedMatMul <alpha = 0.5> (q, k)",
    ],
)
def test_product_that_is_not_understood_is_left(product: str, tmp_path: Path) -> None:
    text = (
        "g (float[b,2,n,4] q, float[b,2,m,4] k, float[b,2,m,4] v) => (float[b,2,n,4] y)"
        f"{{ l = {product} p = Softmax <axis = -1> (l) y = MatMul (p, v) }}"
    )
    model = build(text, domains=f'{DOMAIN}, "other": 1')
    before = model.SerializeToString(deterministic=True)
    assert expand_products(model, tmp_path) == {}
    assert model.SerializeToString(deterministic=True) == before
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="logits come from FusedMatMul"):
        rewrite(tmp_path / "m.onnx")


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("turned", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("batch", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_transposed_product_computes_the_same(
    rank: int, turned: tuple[int, int], batch: tuple[int, int], run: Run, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    operands = [random.normal(size=(*(2, 3, 4)[: rank - 2], *size)).astype(np.float32) for size in ((5, 6), (6, 7))]
    for at in (0, 1):
        if turned[at]:
            operands[at] = operands[at].swapaxes(-1, -2)
        if batch[at]:
            operands[at] = np.moveaxis(operands[at], -2, 0)
    attributes = f"transA = {turned[0]}, transB = {turned[1]}, transBatchA = {batch[0]}, transBatchB = {batch[1]}"
    shapes = ", ".join(f"float[{','.join(map(str, x.shape))}] {name}" for x, name in zip(operands, "ab", strict=True))
    text = (
        f"g ({shapes}) => (float[{','.join('bcdnm'[-rank:])}] p)"
        f"{{ l = com.microsoft.FusedMatMul <alpha = 0.3, {attributes}> (a, b) p = Softmax <axis = -1> (l) }}"
    )
    model, feed = build(text, domains=DOMAIN), dict(zip("ab", operands, strict=True))
    (wanted,) = run(model, feed)
    assert expand_products(model, tmp_path) == {"p": "p"}
    np.testing.assert_allclose(run(model, feed, optimize=False)[0], wanted, rtol=1e-5, atol=1e-6)


def test_product_that_makes_no_logits_is_left(tmp_path: Path) -> None:
    text = (
        "g (float[b,2,n,4] q, float[b,2,m,4] k) => (float[b,2,n,m] y)"
        "{ l = com.microsoft.FusedMatMul <transB = 1> (q, k) y = Sigmoid (l) }"
    )
    assert expand_products(build(text, domains=DOMAIN), tmp_path) == {}
