"""Which pairs of a QDQ model say what codes its logits have."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from graph.models import build

from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.own_quantizer import OwnQuantizers

F32 = np.float32
CONSTANTS: dict[str, Any] = {
    "s": F32(0.0625),
    "z": np.int8(-7),
    "zero": np.int8(0),
    "s2": F32(0.5),
    "u": np.uint8(112),
    "u128": np.uint8(128),
    "wide": F32(80.0),
    "w": np.uint16(30000),
    "half": F32(0.5),
    "per_row": np.full(6, 0.0625, F32),
    "zeros": np.zeros(6, np.int8),
    "causal": np.where(np.tri(6, dtype=bool), 0, -1e4).astype(F32),
    "bias": np.linspace(-2, 2, 36, dtype=F32).reshape(6, 6),
}
INPUTS = "float[b,2,6,4] q, float[b,2,4,6] k, float[b,2,6,4] v, float[b,1,1,6] mask"


def pair(before: str, behind: str, scale: str = "s", zero_point: str = "z", axis: str = "") -> str:
    quantize = f"{before}_c = QuantizeLinear {axis} ({before}, {scale}, {zero_point})"
    return f"{quantize} {behind} = DequantizeLinear {axis} ({before}_c, {scale}, {zero_point})"


def own(lines: str, opset: int = 17) -> OwnQuantizers:
    behind = "p = Softmax <axis = -1> (l) y = MatMul (p, v)"
    text = f"g ({INPUTS}) => (float[b,2,6,4] y) {{ raw = MatMul (q, k) {lines} {behind} }}"
    return own_of(build(text, CONSTANTS, opset=opset, ir_version=10 if opset > 20 else 8))


def own_of(model: onnx.ModelProto) -> OwnQuantizers:
    (item,) = find_attention(model)
    assert item.reason is None
    return item.own_quantizers


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (pair("raw", "l"), [(0.0625, -7, False)]),
        (pair("raw", "l", zero_point="zero"), [(0.0625, 0, True)]),
        (pair("raw", "l", zero_point="u"), [(0.0625, -16, False)]),
        (pair("raw", "l", zero_point="u128"), [(0.0625, 0, False)]),
        ("raw_c = QuantizeLinear (raw, s) l = DequantizeLinear (raw_c, s)", [(0.0625, -128, False)]),
        (pair("raw", "a", "s2") + " l = Mul (a, half)", [(0.25, -7, False)]),
        (pair("raw", "a", "s2") + " l = Div (a, half)", [(1.0, -7, False)]),
        (pair("raw", "a", "s2") + " c = Mul (a, half) " + pair("c", "l"), [(0.0625, -7, False), (0.25, -7, False)]),
        (
            pair("raw", "a") + " c = Add (a, causal) " + pair("c", "l", "wide", "u"),
            [(80.0, -16, False), (0.0625, -7, False)],
        ),
        (
            pair("raw", "a") + " c = Transpose <perm = [1, 0, 2, 3]> (a) l = Transpose <perm = [1, 0, 2, 3]> (c)",
            [(0.0625, -7, False)],
        ),
        ("c = Mul (raw, half) " + pair("c", "l"), [(0.0625, -7, False)]),
        ("c = Add (raw, bias) " + pair("c", "l"), [(0.0625, -7, False)]),
    ],
    ids=[
        "int8", "int8 symmetric", "uint8", "uint8 symmetric", "no zero point", "scale behind", "division behind",
        "two pairs", "mask between", "moved", "scale before", "bias before",
    ],
)  # fmt: skip
def test_pairs_are_found_in_nats_when_only_scales_and_masks_follow(lines: str, expected: list[tuple[object]]) -> None:
    assert [(found.scale, found.zero_point, found.symmetric) for found in own(lines).pairs] == expected


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("l = Mul (raw, half)", "no QuantizeLinear and DequantizeLinear lie between product and Softmax"),
        (pair("raw", "a") + " l = Add (a, bias)", "behind Add 'Add_l' logits may lie elsewhere than before"),
        (pair("raw", "a") + " l = Add (a, mask)", "behind Add 'Add_l' logits may lie elsewhere than before"),
        (pair("raw", "a") + " l = Tanh (a)", "behind Tanh 'Tanh_l' logits may lie elsewhere than before"),
        (
            pair("raw", "l", "per_row", "zeros", "<axis = 3>"),
            "'DequantizeLinear_l' has more scales than one",
        ),
    ],
    ids=["none", "bias behind", "unknown addend behind", "softcap behind", "per axis"],
)
def test_what_does_not_fix_the_codes_of_logits_is_the_reason(lines: str, problem: str) -> None:
    found = own(lines)
    assert (found.pairs, found.problem) == ((), problem)


def test_codes_of_16_bits_are_not_those_of_logits() -> None:
    found = own(pair("raw", "l", zero_point="w"), opset=21)
    assert (found.pairs, found.problem) == ((), "'DequantizeLinear_l' has codes of type uint16")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (pair("raw", "l"), [(np.inf, False)]),
        (pair("raw", "a") + " l = Add (a, causal)", [(1e4, False)]),
        ("a = Add (raw, causal) " + pair("a", "l"), [(np.inf, True)]),
        ("a = Add (raw, mask) " + pair("a", "l"), [(np.inf, True)]),
        (pair("raw", "a") + " c = Add (a, causal) " + pair("c", "l"), [(np.inf, True), (1e4, False)]),
        ("c = Add (raw, bias) " + pair("c", "l"), [(np.inf, False)]),
    ],
    ids=["no mask", "behind", "before", "unknown before", "between", "bias"],
)
def test_masks_on_either_side_of_a_pair_are_told_apart(lines: str, expected: list[tuple[float, bool]]) -> None:
    assert [(found.mask, found.masked_before) for found in own(lines).pairs] == expected


def test_graph_around_a_body_is_not_looked_into() -> None:
    inner = "m () => (float[b,2,6,4] y) { p = Softmax <axis = -1> (l) y = MatMul (p, v) }"
    text = (
        f"g ({INPUTS}, bool choose) => (float[b,2,6,4] out) {{ raw = MatMul (q, k) l = Mul (raw, half) "
        f"out = If (choose) <then_branch = {inner}, else_branch = e () => (float[b,2,6,4] z) {{ z = Identity (v) }}> }}"
    )
    found = own_of(build(text, CONSTANTS))
    assert found.pairs == ()
    assert found.problem == "what lies in the graph around the body is not looked into"
