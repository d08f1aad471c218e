"""The cap on logits: understood, and no scale moved past it."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Run
from graph.models import build, copied, op_types, tapped

from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.rewrite import rewrite_graph
from hccs_onnx.params import DATA_FREE, HccsParams
from hccs_onnx.reference import hccs


def test_scales_before_a_softcap_are_kept(run: Run) -> None:
    """Tanh is not linear: only the scale behind it can move into the node."""
    text = (
        "g (float[b,2,n,4] q, float[b,2,4,n] k, float[b,2,n,4] v) => (float[b,2,n,4] y)"
        "{ raw = MatMul (q, k) s = Mul (raw, half) c = Div (s, cap) t = Tanh (c) l = Mul (t, cap)"
        "  p = Softmax <axis = -1> (l) y = MatMul (p, v) }"
    )
    original = build(text, {"half": np.float32(0.5), "cap": np.float32(4)})
    (found,) = find_attention(original)
    assert found.reason is None
    assert found.factor == 4
    result = copied(original)
    rewrite_graph(result, find_attention(result), {"l": HccsParams((DATA_FREE,))}, {})
    assert op_types(result) == ["MatMul", "Mul", "Div", "Tanh", "HCCS", "MatMul"]
    random = np.random.default_rng(0)
    shapes = {"q": (2, 2, 9, 4), "k": (2, 2, 4, 9), "v": (2, 2, 9, 4)}
    feed = {name: random.normal(0, 3, shape).astype(np.float32) for name, shape in shapes.items()}
    logits = run(tapped(original, "l"), feed, optimize=False)[-1]
    probabilities = run(tapped(result, "p"), feed, optimize=False)[-1]
    expected = hccs(logits, np.float32, B=[16259], S=[127], Dmax=[127], scale=[3.3 / 127])
    assert np.isclose(probabilities, expected, rtol=0, atol=1e-6).mean() > 0.98


@pytest.mark.parametrize("op", ["Sigmoid", "Relu"])
def test_other_functions_of_the_logits_are_not_attention(op: str) -> None:
    text = (
        "g (float[b,2,n,4] q, float[b,2,4,n] k, float[b,2,n,4] v) => (float[b,2,n,4] y)"
        f"{{ raw = MatMul (q, k) l = {op} (raw) p = Softmax <axis = -1> (l) y = MatMul (p, v) }}"
    )
    (found,) = find_attention(build(text, {}))
    assert found.reason is not None
    assert op in found.reason
