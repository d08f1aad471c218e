"""Random graphs: attention is found, rewritten, and computes what the reference says; Softmax elsewhere is left."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from graph.models import LOGITS, Attention, build, head_params, nodes, op_types, tapped
from graph.test_rewrite_graph import expected, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st

from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.params import HccsParams

EXAMPLES = 300 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 25
F32 = np.float32


@st.composite
def attentions(draw: st.DrawFn) -> Attention:
    """Any combination that is a model."""
    layout = draw(st.sampled_from(["heads", "heads", "folded", "single", "flat", "windows"]))
    padded = ["computed", "chosen", "where", "where_reversed", "input"]
    masks = {"heads": [None, "causal", "bias", *padded], "windows": [None, "causal", *padded[:4]]}
    mask = draw(st.sampled_from(masks.get(layout, [None, "causal"])))
    projection = draw(st.sampled_from(["separate", "split"] + ["stacked"] * (layout == "heads")))
    dtype = draw(st.sampled_from(["float", "float", "float16"]))
    opset = draw(st.sampled_from([13, 14, 16, 17, 18, 20]))
    cast = draw(st.booleans())
    return Attention(
        layout=layout,
        projection=projection,
        scale=draw(st.sampled_from([None, "mul", "div", "query", "query_key", "computed"])),
        factor=draw(st.sampled_from([None, 0.25, 1.5])),
        mask=mask,
        fill=draw(st.sampled_from([-1e4, -6e4] if dtype == "float16" else [-1e4, -1e9, -3.4028234663852886e38])),
        dropout=draw(st.booleans()),
        identity=draw(st.booleans()),
        cast=cast,
        guard=not (cast and dtype == "float16") and draw(st.booleans()),
        cross=layout == "heads" and projection == "separate" and mask not in ("causal", "bias") and draw(st.booleans()),
        opset=opset,
        heads=draw(st.integers(1, 4)),
        size=draw(st.integers(2, 6)),
        batch=draw(st.sampled_from(["batch", 1, 2])),
        length=5 if mask in ("causal", "bias") else draw(st.sampled_from(["n", 1, 4])),
        known_shapes=draw(st.booleans()) if layout not in ("windows", "flat") else True,
        dtype=dtype,
    )


@given(variant=attentions(), seed=st.integers(0, 99))
@settings(max_examples=EXAMPLES)
def test_random_attention_is_rewritten_to_what_the_reference_computes(variant: Attention, seed: int) -> None:
    original, feed = variant.model(), variant.feed(batch=2, length=6, seed=seed)
    (found,) = find_attention(original)
    assert found.reason is None
    assert found.heads in (None, 1 if variant.layout in ("single", "flat") else variant.heads)
    assert found.masked or variant.mask in (None, "bias")
    result = rewritten(original, variant.heads)
    assert "Softmax" not in op_types(result)
    (node,) = nodes(result, "HCCS")
    (logits,) = outputs(original, LOGITS, feed)
    read, probabilities = outputs(result, node.input[0], feed) + outputs(result, node.output[0], feed)
    np.testing.assert_array_equal(probabilities, expected(read, read_attributes(node)).astype(probabilities.dtype))
    hidden = logits.max(axis=-1, keepdims=True).astype(np.float64) - logits > 100
    if found.masked:
        assert np.all(probabilities[hidden] == 0)
    if read.dtype == F32:  # on the original logits a gap may be rounded to the next code
        params = HccsParams(head_params(found.heads or 1), masked=found.masked)
        code = max(head.S / head.B for head in params.heads)
        np.testing.assert_allclose(probabilities, expected(logits, params), rtol=0, atol=2 * code)


def outputs(model: onnx.ModelProto, name: str, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The value of a tensor, computed without optimisation."""
    proto, options = tapped(model, name), ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run([name], dict(feed))[0])]


FRONT = ["a = MatMul (x, w)", "a = Relu (x)", "a = Add (x, z)", "a = Mul (x, x)", "a = LayerNormalization (x, scale)"]
BEHIND = [
    "y = Identity (p)", "y = Mul (p, x)", "y = ReduceMax <keepdims = 1> (p)", "y = MatMul (p, w)", "y = Log (p)",
    "v, i = TopK (p, one) y = Identity (v)",
]  # fmt: skip


@given(
    front=st.sampled_from(FRONT), behind=st.sampled_from(BEHIND), steps=st.lists(st.sampled_from("+*/m"), max_size=4)
)
@settings(max_examples=EXAMPLES)
def test_random_softmax_that_is_no_attention_is_left_alone(front: str, behind: str, steps: list[str]) -> None:
    lines, last = [front], "a"
    for number, step in enumerate(steps):
        line = {"+": "Add ({0}, z)", "*": "Mul ({0}, c)", "/": "Div ({0}, c)", "m": "Where (keep, {0}, c)"}[step]
        lines.append(f"s{number} = {line.format(last)}")
        last = f"s{number}"
    lines.append(f"p = Softmax <axis = -1> ({last}) {behind}")
    text = f"g (float[b,n,8] x, float[b,n,8] z, bool[b,n,8] keep) => (y) {{ {' '.join(lines)} }}"
    weights = {"w": np.eye(8, dtype=F32), "scale": np.ones(8, F32), "c": F32(2), "one": np.array([1], np.int64)}
    model = build(text, weights)
    (found,) = find_attention(model)
    assert found.reason is not None
    before = model.SerializeToString(deterministic=True)
    assert uncover(model, Path()) == {}
    assert model.SerializeToString(deterministic=True) == before
