"""Replicas of how Keras by tf2onnx, Paddle by paddle2onnx, and hand-written TensorFlow models spell attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import build, nodes

from hccs_onnx import inspect, rewrite, verify
from hccs_onnx.params import DATA_FREE
from hccs_onnx.reference import hccs

F32 = np.float32
INPUTS = "float[b,n,2,4] q, float[b,n,2,4] k, float[b,n,2,4] v, {mask}"
OUTPUT = "float[b,n,2,4] y"
SPLIT = (
    "qh = Transpose <perm = [0, 2, 1, 3]> (q) kt = Transpose <perm = [0, 2, 3, 1]> (k) "
    "vh = Transpose <perm = [0, 2, 1, 3]> (v) raw = MatMul (qh, kt) "
)
JOIN = "z = MatMul (p, vh) y = Transpose <perm = [0, 2, 1, 3]> (z)"
FLOAT_MASK = "keep = Cast <to = 1> (mask) hide = Sub (one, keep) "
MASKS = {
    "added": "s = Mul (raw, half) a = Mul (hide, low) l = Add (s, a) ",
    "subtracted": "s = Mul (raw, half) a = Mul (hide, high) l = Sub (s, a) ",
    "multiplied and subtracted": "s = Mul (raw, half) kept = Mul (s, keep) a = Mul (hide, high) l = Sub (kept, a) ",
    "multiplied and added": "s = Mul (raw, half) kept = Mul (keep, s) a = Mul (hide, low) l = Add (kept, a) ",
    "scale op of Paddle": "m = Mul (raw, half) s = Add (m, nought) a = Mul (hide, low) l = Add (s, a) ",
    "by Not": "s = Mul (raw, half) seen = Cast <to = 9> (mask) not = Not (seen) f = Cast <to = 1> (not) "
    "a = Mul (f, low) l = Add (s, a) ",
}
# tf.einsum with layout (batch, position, head, size), as tf2onnx keeps it and as it lowers it.
EINSUM = (
    's = Mul (q, half) raw = Einsum <equation = "aecd,abcd->acbe"> (k, s) a = Mul (hide, low) l = Add (raw, a) '
    'p = Softmax <axis = -1> (l) y = Einsum <equation = "acbe,aecd->abcd"> (p, v)'
)
LOWERED = (
    "s = Mul (q, half) kh = Transpose <perm = [0, 2, 1, 3]> (k) qt = Transpose <perm = [0, 2, 3, 1]> (s) "
    "scores = MatMul (kh, qt) raw = Transpose <perm = [0, 1, 3, 2]> (scores) a = Mul (hide, low) l = Add (raw, a) "
    "p = Softmax <axis = -1> (l) vt = Transpose <perm = [0, 2, 3, 1]> (v) pt = Transpose <perm = [0, 1, 3, 2]> (p) "
    "z = MatMul (vt, pt) y = Transpose <perm = [0, 3, 1, 2]> (z)"
)
IDIOMS = {name: SPLIT + lines + "p = Softmax <axis = -1> (l) " + JOIN for name, lines in MASKS.items()}
IDIOMS |= {"Einsum of Keras": EINSUM, "Einsum lowered to MatMul": LOWERED}
WEIGHTS = {"one": F32(1), "half": F32(0.5), "low": F32(-1e9), "high": F32(1e9), "nought": F32(0)}


def model(lines: str, mask: str = "int64[b,1,1,n] mask") -> onnx.ModelProto:
    return build(f"g ({INPUTS.format(mask=mask)}) => ({OUTPUT}) {{ {FLOAT_MASK} {lines} }}", WEIGHTS)


def feed() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    result = {name: random.normal(0, 2, (2, 6, 2, 4)).astype(F32) for name in "qkv"}
    result["mask"] = np.ones((2, 1, 1, 6), np.int64)
    result["mask"][0, ..., -2:] = 0
    return result


def reference(feed: dict[str, np.ndarray]) -> np.ndarray:
    q, k, v = (feed[name].transpose(0, 2, 1, 3) for name in "qkv")
    logits = np.where(feed["mask"] == 1, (q @ k.swapaxes(-1, -2)) * F32(0.5), F32(-1e9))
    one = DATA_FREE
    p = hccs(logits, F32, B=[one.B], S=[one.S], Dmax=[one.Dmax], scale=[one.scale], masked=True)
    assert not p[0, ..., -2:].any()
    result: np.ndarray = (p @ v).transpose(0, 2, 1, 3)
    return result


@pytest.mark.parametrize("idiom", IDIOMS)
def test_idiom_is_rewritten_and_equals_the_reference(idiom: str, tmp_path: Path, run: Run) -> None:
    onnx.save(model(IDIOMS[idiom]), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert (item.reason, item.heads, item.masked) == (None, 2, True)
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert len(nodes(result, "HCCS")) == 1
    np.testing.assert_allclose(run(result, feed())[0], reference(feed()), rtol=0, atol=2e-2)
    assert verify(tmp_path / "m.onnx", tmp_path / "m.hccs.onnx", [feed()]).outputs[0].mean_cosine > 0.9


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("s = Mul (raw, raw) l = Sub (s, hide) ", "Mul 'Mul_s'"),  # not by ones and zeros
        ("s = Sigmoid (raw) l = Mul (s, keep) ", "Sigmoid 'Sigmoid_s'"),
        ("l = Sub (one, raw) ", "Sub 'Sub_l'"),  # logits are what is subtracted
    ],
    ids=["product with itself", "gate", "turned upside down"],
)
def test_other_arithmetic_is_left_alone(lines: str, part: str, tmp_path: Path) -> None:
    mask = "bool[b,1,1,n] mask"
    onnx.save(model(SPLIT + lines + "p = Softmax <axis = -1> (l) " + JOIN, mask), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert part in str(item.reason)


def test_floats_that_may_be_others_than_ones_and_zeros_are_no_mask_to_multiply_with(tmp_path: Path) -> None:
    lines = "l = Mul (raw, keep) p = Softmax <axis = -1> (l) "
    onnx.save(model(SPLIT + lines + JOIN, "float[b,1,1,n] mask"), tmp_path / "m.onnx")
    assert "Mul 'Mul_l'" in str(inspect(tmp_path / "m.onnx")[0].reason)
