"""A small self-attention with an output projection in the forms in which models store it."""

from __future__ import annotations

import numpy as np
import onnx
from graph.models import build
from onnx import numpy_helper

HEADS, SIZE = 2, 4
WIDTH = HEADS * SIZE

_ATTENTION = """
q_flat = MatMul (x, w_q) q_split = Reshape (q_flat, split) q = Transpose <perm = [0, 2, 1, 3]> (q_split)
k_flat = MatMul (x, w_k) k_split = Reshape (k_flat, split) k = Transpose <perm = [0, 2, 3, 1]> (k_split)
v_flat = MatMul (x, w_v) v_split = Reshape (v_flat, split) v = Transpose <perm = [0, 2, 1, 3]> (v_split)
logits = MatMul (q, k)
p = Softmax <axis = -1> (logits)
heads = MatMul (p, v)
moved = Transpose <perm = [0, 2, 1, 3]> (heads)
joined = Reshape (moved, join)
"""

PROJECTIONS = {
    "matmul": "o = MatMul (joined, w) y = Add (o, b)",
    "constant nodes": "o = MatMul (joined, w_node) y = Add (o, b_node)",
    "bias first": "o = MatMul (joined, w) y = Add (b, o)",
    "no bias": "y = MatMul (joined, w)",
    "gemm": "rows = Reshape (joined, flat) z = Gemm (rows, w, b) y = Reshape (z, join3)",
    "gemm, transposed": "rows = Reshape (joined, flat) z = Gemm <transB = 1> (rows, w_t, b) y = Reshape (z, join3)",
    "transposed": "w = Transpose <perm = [1, 0]> (w_t) o = MatMul (joined, w) y = Add (o, b)",
    "dequantised": "w = DequantizeLinear <axis = 1> (codes, scales) o = MatMul (joined, w) y = Add (o, b)",
    "dequantised, one scale": "w = DequantizeLinear (bytes, scale, zero) o = MatMul (joined, w) y = Add (o, b)",
    "cast and scaled": "c = Cast <to = 1> (codes) w = Mul (c, row) o = MatMul (joined, w) y = Add (o, b)",
    "half": "h = Cast <to = 10> (joined) o = MatMul (h, w_half) s = Add (o, b_half) y = Cast <to = 1> (s)",
    "rounded": """a = QuantizeLinear (joined, step, none) a2 = DequantizeLinear (a, step, none)
        w = DequantizeLinear <axis = 1> (codes, scales) o = MatMul (a2, w) y = Add (o, b)""",
}  # fmt: skip


def weights() -> dict[str, np.ndarray]:
    """Everything that the projections above read."""
    rng = np.random.default_rng(3)
    w = rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) * 0.5
    scales = (np.abs(w).max(axis=0) / 127).astype(np.float32)
    scale = np.float32(np.abs(w).max() / 100)
    b = rng.normal(size=WIDTH).astype(np.float32) * 0.1
    queries, keys, values = rng.normal(size=(3, WIDTH, WIDTH)).astype(np.float32) * 0.2
    queries[0], keys[1], values[1] = 1.0, 1.0, 2.0  # see `samples`
    return {
        "w": w, "w_t": w.T.copy(), "b": b, "w_node": w, "b_node": b,
        "w_half": w.astype(np.float16), "b_half": b.astype(np.float16),
        "codes": np.rint(w / scales).astype(np.int8), "scales": scales, "row": scales[None],
        "bytes": (np.rint(w / scale) + 128).astype(np.uint8), "scale": scale, "zero": np.array(128, np.uint8),
        "step": np.float32(0.02), "none": np.array(0, np.int8),
        "w_q": queries, "w_k": keys, "w_v": values,
        "split": np.array([0, 0, HEADS, SIZE]), "join": np.array([0, 0, WIDTH]),
        "flat": np.array([-1, WIDTH]), "join3": np.array([-1, 6, WIDTH]),
    }  # fmt: skip


def attention(projection: str, *, output: str = "y", opset: int = 17) -> onnx.ModelProto:
    """One attention behind which `projection` (a name in PROJECTIONS, or nodes) makes `output` from `joined`."""
    nodes = PROJECTIONS.get(projection, projection)
    text = f"attention (float[b, 6, {WIDTH}] x) => (float[b, 6, {WIDTH}] {output}) {{ {_ATTENTION} {nodes} }}"
    model = build(text, {}, opset=opset)
    made = {name for node in model.graph.node for name in node.output}
    read = {name for node in model.graph.node for name in node.input}
    values = {name: value for name, value in weights().items() if name in read - made}
    for name, value in values.items():
        tensor = numpy_helper.from_array(value, name)
        if name.endswith("_node"):
            model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], value=tensor))
        else:
            model.graph.initializer.append(tensor)
    return model


def samples(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Feeds of one sample each. All positions attend to the first one, so HCCS errs in the same way everywhere."""
    x = np.random.default_rng(seed).normal(size=(count, 1, 6, WIDTH)).astype(np.float32)
    x[..., 0], x[..., 1] = 1.0, 0.0
    x[:, :, 0, 1] = 0.6
    return [{"x": sample} for sample in x]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initializers, and what Constant nodes make."""
    made = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer} | made
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
