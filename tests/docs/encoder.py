"""A small encoder with random weights: what pages call `encoder.onnx`, and samples for it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

LAYERS, WIDTH, WORDS, LONGEST = 2, 32, 50, 16

_LAYER = """
  q{i} = MatMul (h{i}, wq{i})
  k{i} = MatMul (h{i}, wk{i})
  v{i} = MatMul (h{i}, wv{i})
  qs{i} = Reshape (q{i}, split)
  ks{i} = Reshape (k{i}, split)
  vs{i} = Reshape (v{i}, split)
  qh{i} = Transpose <perm = [0, 2, 1, 3]> (qs{i})
  kh{i} = Transpose <perm = [0, 2, 3, 1]> (ks{i})
  vh{i} = Transpose <perm = [0, 2, 1, 3]> (vs{i})
  product{i} = MatMul (qh{i}, kh{i})
  scaled{i} = Mul (product{i}, scale)
  logits{i} = Add (scaled{i}, bias)
  p{i} = Softmax <axis = -1> (logits{i})
  c{i} = MatMul (p{i}, vh{i})
  ct{i} = Transpose <perm = [0, 2, 1, 3]> (c{i})
  cj{i} = Reshape (ct{i}, join)
  o{i} = MatMul (cj{i}, wo{i})
  h{n} = Add (h{i}, o{i})
"""


def encoder() -> onnx.ModelProto:
    """Token ids and a mask to hidden states: two layers of four heads, batch and sequence dynamic."""
    layers = "".join(_LAYER.format(i=i, n=i + 1) for i in range(LAYERS))
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
encoder (int64[batch,sequence] input_ids, int64[batch,sequence] attention_mask)
  => (float[batch,sequence,{WIDTH}] h{LAYERS})
  <int64[4] split = {{0, 0, 4, -1}}, int64[3] join = {{0, 0, -1}}, int64[2] axes = {{1, 2}},
   float scale = {{0.35355338}}, float one = {{1}}, float low = {{-10000}}>
{{
  h0 = Gather (words, input_ids)
  kept = Cast <to = 1> (attention_mask)
  left = Sub (one, kept)
  row = Mul (left, low)
  bias = Unsqueeze (row, axes)
  {layers}
}}""")
    rng = np.random.default_rng(0)
    weights = {"words": rng.normal(0, 1, (WORDS, WIDTH))}
    for layer in range(LAYERS):
        for name, size in (("wq", 1.2), ("wk", 1.2), ("wv", 1.0), ("wo", 1.0)):
            weights[f"{name}{layer}"] = rng.normal(0, size / np.sqrt(WIDTH), (WIDTH, WIDTH))
    model.graph.initializer.extend(numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items())
    for node in model.graph.node:
        node.name = f"/{node.output[0]}"
    return model


def samples(count: int, seed: int) -> dict[str, np.ndarray]:
    """Random token ids, padded to one length."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(LONGEST // 2, LONGEST + 1, count)
    mask = (np.arange(LONGEST) < lengths[:, None]).astype(np.int64)
    return {"input_ids": rng.integers(1, WORDS, (count, LONGEST)) * mask, "attention_mask": mask}
