"""Attention written with Einsum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph.models import build, op_types

from hccs_onnx import rewrite, verify
from hccs_onnx.graph.attention import AttentionSoftmax, find_attention


def model(scores: str, sums: str, k: str = "b,n,2,4", v: str = "b,n,2,4", y: str = "b,n,2,4") -> onnx.ModelProto:
    text = (
        f"g (float[b,n,2,4] q, float[{k}] k, float[{v}] v) => (float[{y}] y)"
        f'{{ raw = Einsum <equation = "{scores}"> (q, k) l = Mul (raw, half) p = Softmax <axis = -1> (l)'
        f'  y = Einsum <equation = "{sums}"> (p, v) }}'
    )
    return build(text, {"half": np.float32(0.5)})


def found_in(proto: onnx.ModelProto) -> AttentionSoftmax:
    (found,) = find_attention(proto)
    return found


@pytest.mark.parametrize(
    ("scores", "sums"),
    [
        ("bihd,bjhd->bhij", "bhij,bjhd->bihd"),
        ("b i h d, b j h d -> b h i j", "b h i j, b j h d -> b i h d"),
        ("BIHD,BJHD->BHIJ", "BHIJ,BJHD->BIHD"),
    ],
)
def test_einsum_attention_is_rewritten_and_verified(tmp_path: Path, scores: str, sums: str) -> None:
    proto = model(scores, sums)
    onnx.save(proto, tmp_path / "m.onnx")
    found = found_in(proto)
    assert (found.reason, found.heads, found.factor) == (None, 2, 0.5)
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert op_types(result) == ["Einsum", "HCCS", "Einsum"]
    random = np.random.default_rng(0)
    feed = {name: random.normal(size=(2, 9, 2, 4)).astype(np.float32) for name in "qkv"}
    assert verify(tmp_path / "m.onnx", tmp_path / "m.hccs.onnx", [feed]).outputs[0].mean_cosine > 0.9


def test_einsum_of_ellipsis_is_understood() -> None:
    proto = model("...id,...jd->...ij", "...ij,...jd->...id", k="b,n,5,4", v="b,n,5,4", y="b,n,2,4")
    assert found_in(proto).reason is None


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        ("bihd,bjhe->bhij", "Einsum"),  # nothing that both have is summed over
        ("bihd,bihd->bhi", "Einsum"),  # products of pairs, not of each with every
        ("bihd,bjhd->bihj", "Einsum"),  # heads between queries and keys, where the operator does not look for them
    ],
)
def test_other_products_of_queries_and_keys_are_not_attention(scores: str, word: str) -> None:
    found = found_in(model(scores, "bhij,bjhd->bihd"))
    assert word in str(found.reason)


def test_probabilities_that_are_not_summed_with_values_are_not_attention() -> None:
    found = found_in(model("bihd,bjhd->bhij", "bhij,bkhd->bikd", y="b,n,n,4"))
    assert "probabilities go to Einsum" in str(found.reason)


def test_einsum_with_constant_weights_is_not_attention() -> None:
    text = (
        "g (float[b,n,4] x, float[b,5,4] v) => (float[b,n,4] y)"
        '{ l = Einsum <equation = "bnd,ed->bne"> (x, w) p = Softmax <axis = -1> (l)'
        '  y = Einsum <equation = "bne,bed->bnd"> (p, v) }'
    )
    found = found_in(build(text, {"w": np.ones((5, 4), np.float32)}))
    assert "constant weights" in str(found.reason)
