"""What can be said about additive masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph.models import LOWEST, build

from hccs_onnx.graph.mask_levels import MASKS, UNKNOWN, MaskLevels, mask_levels
from hccs_onnx.graph.view import GraphView

F32 = np.float32
NOTHING = MaskLevels(masks=False, magnitude=math.inf)
BIAS = MaskLevels(masks=False, magnitude=0.0)
MASK_WITH_BIAS = MaskLevels(masks=True, magnitude=0.0)

INPUTS = "int64[b,n] ids, bool[b,n] keep, float[b,n] soft, int64[s] shape"
CONSTANTS: dict[str, Any] = {
    "zero": F32(0),
    "one": F32(1),
    "big": F32(-1e4),
    "lowest": F32(LOWEST),
    "infinite": F32(-np.inf),
    "plus": F32(1e4),
    "small": F32(-10),
    "hundred": F32(-100),
    "table": np.linspace(-2, 2, 8, dtype=F32),
    "causal": np.where(np.tri(4, dtype=bool), 0, -1e4).astype(F32),
    "two": np.array([0, -2000], F32),
    "axes": np.array([1, 2]),
    "half": F32(0.5),
    "part": F32(1 / 255),
    "whole": F32(1),
    "forty": F32(40),
    "coarse": F32(3),
    "limit": F32(-LOWEST / 127),
    "none": np.uint8(0),
    "all": np.uint8(255),
    "middle": np.int8(0),
}


def levels(lines: str, name: str = "m") -> MaskLevels:
    model = build(f"g ({INPUTS}) => (float[b,n] m) {{ {lines} }}", CONSTANTS)
    return mask_levels(GraphView(model, Path()), name)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, -1e4], MaskLevels(True, 1e4)),
        ([0, -65504], MaskLevels(True, 65504.0)),
        ([0, LOWEST], MaskLevels(True, -float(F32(LOWEST)))),
        ([0, -np.inf], MaskLevels(True, math.inf)),
        ([0, 0], NOTHING),
        ([], NOTHING),
        ([0, -MASKS], MaskLevels(True, MASKS)),
        ([0, -100, -1e4], MaskLevels(True, 100.0)),
        ([0, -31.5], BIAS),
        ([0.5, -0.5], BIAS),
        ([0.5, -1e4], MASK_WITH_BIAS),
        ([0, 1e4], BIAS),
        ([0, np.nan], BIAS),
    ],
)
def test_levels_of_a_constant_tell_masks_from_biases(values: list[float], expected: MaskLevels) -> None:
    model = build("g (float[n] x) => (float[n] y) { y = Add (x, c) }", {"c": np.array(values, F32)})
    assert mask_levels(GraphView(model, Path()), "c") == expected


def test_levels_of_a_float16_constant_tell_its_mask() -> None:
    model = build("g (float16[2] x) => (float16[2] y) { y = Add (x, c) }", {"c": np.array([0, -1e4], np.float16)})
    assert mask_levels(GraphView(model, Path()), "c") == MaskLevels(True, 1e4)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("f = Cast <to = 1> (ids) h = Sub (one, f) m = Mul (h, big)", MaskLevels(True, 1e4)),
        ("f = Cast <to = 1> (ids) h = Sub (one, f) m = Mul (lowest, h)", MaskLevels(True, -float(F32(LOWEST)))),
        ("f = Cast <to = 1> (ids) h = Sub (f, one) m = Mul (h, plus)", MaskLevels(True, 1e4)),
        ("f = Cast <to = 1> (keep) h = Sub (one, f) m = Mul (h, big)", MaskLevels(True, 1e4)),
        (
            "u = Unsqueeze (ids, axes) f = Cast <to = 1> (u) h = Sub (one, f) g = Mul (h, big) m = Identity (g)",
            MaskLevels(True, 1e4),
        ),
        ("i = Cast <to = 6> (soft) f = Cast <to = 1> (i) h = Sub (one, f) m = Mul (h, big)", MaskLevels(True, 1e4)),
        ("h = Sub (one, soft) m = Mul (h, big)", UNKNOWN),
        ("f = Cast <to = 1> (ids) h = Sub (half, f) m = Mul (h, big)", UNKNOWN),
        ("f = Cast <to = 1> (ids) h = Sub (one, f) m = Mul (h, small)", UNKNOWN),
        ("f = Cast <to = 1> (ids) h = Sub (one, f) m = Mul (h, hundred)", MaskLevels(True, 100.0)),
        ("f = Cast <to = 1> (ids) m = Neg (f)", UNKNOWN),
        ("m = Cast <to = 1> (ids)", UNKNOWN),
    ],
    ids=[
        "(1 - mask) * -1e4", "lowest first", "(mask - 1) * 1e4", "bool mask", "unsqueezed", "rounded", "soft mask",
        "half", "too small", "-100", "other operator", "whole numbers alone",
    ],
)  # fmt: skip
def test_levels_of_a_product_are_those_of_whole_numbers(lines: str, expected: MaskLevels) -> None:
    assert levels(lines) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("m = Where (keep, zero, infinite)", MaskLevels(True, math.inf)),
        ("m = Where (keep, big, zero)", MaskLevels(True, 1e4)),
        ("m = Where (keep, zero, zero)", NOTHING),
        ("m = Where (keep, table, infinite)", MASK_WITH_BIAS),
        ("m = Where (keep, soft, infinite)", UNKNOWN),
        ("w = Where (keep, zero, big) e = Expand (w, shape) m = Cast <to = 1> (e)", MaskLevels(True, 1e4)),
        ("w = Where (keep, zero, big) m = Add (w, two)", MaskLevels(True, 2000.0)),
        ("w = Where (keep, zero, big) m = Add (table, w)", MASK_WITH_BIAS),
        ("m = Gather <axis = 0> (table, ids)", BIAS),
        ("m = Gather <axis = 0> (causal, ids)", MaskLevels(True, 1e4)),
        ("m = ConstantOfShape (shape)", NOTHING),
        ("m = ConstantOfShape <value = float[1] {-10000.0}> (shape)", MaskLevels(True, 1e4)),
        ("c = Constant <value_floats = [0.0, -5000.0]> () m = Identity (c)", MaskLevels(True, 5000.0)),
        ("m = Identity (soft)", UNKNOWN),
        ("m = Softplus (soft)", UNKNOWN),
        ("m = Concat <axis = 0> (soft, soft)", UNKNOWN),
    ],
)
def test_levels_of_a_computed_mask_follow_the_graph(lines: str, expected: MaskLevels) -> None:
    assert levels(lines) == expected


def pair(before: str, behind: str, scale: str, zero_point: str) -> str:
    quantize = f"{behind}_c = QuantizeLinear ({before}, {scale}, {zero_point})"
    return f"{quantize} {behind} = DequantizeLinear ({behind}_c, {scale}, {zero_point})"


HIDDEN = "f = Cast <to = 1> (ids) h = Sub (one, f)"


@pytest.mark.parametrize(
    ("lines", "magnitude"),
    [
        (f"{HIDDEN} w = Mul (h, big) {pair('w', 'm', 'forty', 'all')}", 1e4 - 20),
        (f"{HIDDEN} w = Mul (h, lowest) {pair('w', 'm', 'forty', 'all')}", 255 * 40.0),  # no code is lower
        (f"{HIDDEN} w = Mul (h, lowest) {pair('w', 'm', 'forty', 'middle')}", 128 * 40.0),
        (f"{HIDDEN} w = Mul (h, lowest) {pair('w', 'm', 'forty', 'none')}", None),  # nothing is left of it
        (f"{HIDDEN} w = Mul (h, hundred) {pair('w', 'm', 'whole', 'all')}", 99.5),
        (f"{HIDDEN} {pair('h', 'r', 'part', 'none')} m = Mul (r, big)", 1e4 * (1 - 1 / 510)),
        (f"{HIDDEN} {pair('h', 'r', 'coarse', 'none')} m = Mul (r, big)", 3e4),  # 1 is rounded to 0, 2 to 3
        (f"{HIDDEN} {pair('h', 'r', 'part', 'none')} {pair('big', 'g', 'forty', 'all')} m = Mul (r, g)",
         1e4 * (1 - 1 / 510)),
        (f"{HIDDEN} {pair('h', 'r', 'part', 'none')} {pair('lowest', 'g', 'limit', 'middle')} m = Mul (r, g)", None),
        (f"{pair('soft', 'r', 'part', 'none')} m = Mul (r, big)", None),
        (pair("soft", "m", "forty", "all"), None),
    ],
    ids=[
        "rounded", "saturated", "int8", "lost", "-100", "quantised ones and zeros", "coarse ones and zeros",
        "both quantised", "beyond float32", "soft mask", "anything",
    ],
)  # fmt: skip
def test_levels_behind_a_quantiser_are_what_it_makes_of_them(lines: str, magnitude: float | None) -> None:
    found = levels(lines)
    assert found == UNKNOWN if magnitude is None else (found.masks and found.magnitude == pytest.approx(magnitude))


def test_levels_of_a_mask_that_masks_nothing_stay_so_behind_a_quantiser() -> None:
    assert levels(f"w = Where (keep, zero, zero) {pair('w', 'm', 'forty', 'all')}") == NOTHING


def test_levels_are_unknown_when_the_graph_is_too_deep() -> None:
    chain = "w = Where (keep, zero, big) t0 = Squeeze (w) " + " ".join(f"t{i + 1} = Squeeze (t{i})" for i in range(20))
    assert levels(f"{chain} m = Squeeze (t20)", "t3") == MaskLevels(True, 1e4)
    assert levels(f"{chain} m = Squeeze (t20)") == UNKNOWN


@pytest.mark.parametrize(
    ("magnitude", "factor", "expected"),
    [
        (1e4, 0.125, True),
        (8000.0, 0.125, True),
        (7999.0, 0.125, False),
        (4000.0, 0.125, False),
        (500.0, 8.0, False),
        (1000.0, 8.0, True),
        (math.inf, 1e-9, True),
        (0.0, 1.0, False),
    ],
)
def test_survives_only_when_the_mask_stays_huge(magnitude: float, factor: float, expected: bool) -> None:
    assert MaskLevels(True, magnitude).survives(factor) is expected
