"""Make hccs_golden.json: inputs, parameters and expected outputs for every implementation of HCCS.

    python tests/golden/make_golden.py

Format: one JSON object, `{"format": "hccs-golden", "version": 1, "cases": [...]}`, ASCII, one case a line. A case has

    name        unique, [a-z0-9_]
    output      "float" (X float32, Y float32), "uint8" or "int16" (X int8)
    reciprocal  "norm", "div" or "clb"; "norm" where output is "float", which does not read it
    masked      0 or 1
    mask_gap    number, a float32 value; read for float only
    head_axis   axis of X along which heads lie, negative: from the end
    B, S, Dmax  lists of integers, of length 1 or H
    scale       list of numbers, float32 values, of length 1 or H; read for float only
    shape       shape of X and Y; rows run along the last axis
    x, y        elements in row-major order. Integers are written as they are. float32 elements are written as the
                unsigned 32-bit integer with the same bits, for there is no NaN or infinity in JSON. NaN is written as
                2143289344 (0x7fc00000); in y it means any quiet NaN.

All cases are legal in the profile "extended": every implementation must run them and reproduce y bit for bit. Expected
outputs come from hccs_onnx.reference. Random inputs come from a generator written out below, so that the file's bytes
depend on no library's version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hccs_onnx.params import RECIPROCALS, HccsParams, HeadParams, OutputType, Reciprocal
from hccs_onnx.reference import hccs

FILE = Path(__file__).with_name("hccs_golden.json")
QUIET_NAN = 0x7FC00000
DTYPES = {"float": np.float32, "uint8": np.uint8, "int16": np.int16}

Array = np.ndarray[Any, Any]
Case = dict[str, Any]


class Random:
    """Knuth's MMIX linear congruential generator; its upper bits are good enough for test data."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def integers(self, low: int, high: int, shape: Sequence[int]) -> Array:
        """Integers low..high, both included."""
        values = []
        for _ in range(int(np.prod(shape))):
            self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
            values.append(low + (self.state >> 33) % (high - low + 1))
        return np.array(values, np.int64).reshape(shape)


def case(name: str, output: OutputType, x: Array, params: HccsParams, short: Sequence[str] = ()) -> Case:
    """One case; lists named in `short` agree in all heads and are written with one entry."""
    lists = {key: [getattr(head, key) for head in params.heads] for key in ("B", "S", "Dmax", "scale")}
    lists["scale"] = [float(np.float32(value)) for value in lists["scale"]]
    for key in short:
        assert len(set(lists[key])) == 1
        lists[key] = lists[key][:1]
    reasons = params.violations(output, n=x.shape[-1])
    assert not reasons, (name, reasons)
    x = x.astype(np.float32 if output == "float" else np.int8)
    mask_gap = float(np.float32(params.mask_gap))
    y = hccs(
        x,
        DTYPES[output],
        **lists,
        head_axis=params.head_axis,
        reciprocal=params.reciprocal,
        masked=params.masked,
        mask_gap=mask_gap,
    )
    return {
        "name": name,
        "output": output,
        "reciprocal": params.reciprocal,
        "masked": int(params.masked),
        "mask_gap": mask_gap,
        "head_axis": params.head_axis,
        **lists,
        "shape": list(x.shape),
        "x": elements(x),
        "y": elements(y),
    }


def elements(array: Array) -> list[int]:
    """Integers as they are, float32 as bits with one kind of NaN."""
    if array.dtype != np.float32:
        return [int(value) for value in array.ravel()]
    bits = np.where(np.isnan(array), np.uint32(QUIET_NAN), np.ascontiguousarray(array).view(np.uint32))
    return [int(value) for value in bits.ravel()]


def integer_cases(output: OutputType, reciprocal: Reciprocal) -> Iterator[Case]:
    """Ten cases of one integer profile."""
    random = Random(2604 + 10 * RECIPROCALS.index(reciprocal) + (output == "int16"))
    name = f"{output}_{reciprocal}"
    bounded = reciprocal != "norm"

    def highest(n: int) -> int:
        return 32767 // n if bounded and output == "int16" else 32767

    def make(what: str, x: Array, *heads: HeadParams, short: Sequence[str] = ("scale",), **attributes: Any) -> Case:
        params = HccsParams(heads, reciprocal=reciprocal, **attributes)
        return case(f"{name}_{what}", output, x, params, short)

    yield make("one_element", np.array([[-128], [-1], [127]]), HeadParams(300, 2, 100))
    yield make("random", random.integers(-128, 127, (4, 33)), HeadParams(300, 2, 100))
    yield make("every_code", np.arange(-128, 128)[None], HeadParams(min(highest(256), 4000), 1, 100))
    yield make("all_equal", np.array([[-128], [0], [127]]) + np.zeros((3, 64), int), HeadParams(500, 3, 120))
    x = random.integers(-40, 20, (4, 40))
    x[0, 20:], x[1, :], x[2, 1:], x[3, 1:] = -128, -128, -128, -127
    yield make("masked", x, HeadParams(700, 6, 110), masked=True)
    yield make("minus_128_not_masked", x, HeadParams(700, 6, 110))
    three = (HeadParams(400, 2, 127), HeadParams(1000, 60, 16), HeadParams(300, 0, 1))
    yield make("heads", random.integers(-60, 60, (2, 3, 2, 9)), *three, masked=True)
    short = ("Dmax", "scale")
    folded = (HeadParams(400, 3, 100), HeadParams(900, 8, 100), HeadParams(300, 1, 100))
    yield make("heads_folded_into_batch", random.integers(-128, 127, (6, 2, 9)), *folded, short=short, head_axis=0)
    large, n = highest(17), 17
    slope = min(127, large // 15)
    steep = (HeadParams(large, 0, 127), HeadParams(large, slope, 1), HeadParams(slope * 15, slope, 15))
    x = random.integers(-128, 127, (3, 2, n))
    x[:, 1, :4] = [[-128, 127, 126, 112]] * 3
    yield make("extremes", x, *steep, head_axis=0)
    lowest = 256 if bounded and output == "uint8" else 1
    yield make("smallest_offset", random.integers(-9, 9, (2, 70)), HeadParams(lowest, 1, 1), masked=True)


def float_cases() -> Iterator[Case]:
    """What float rows have beside integer rows: scale, ties, mask gap, NaN, infinities."""
    random = Random(33)
    inf, nan = np.inf, np.nan

    def make(what: str, x: Any, *heads: HeadParams, short: Sequence[str] = (), **attributes: Any) -> Case:
        return case(f"float_{what}", "float", np.asarray(x, np.float32), HccsParams(heads, **attributes), short)

    def logits(shape: Sequence[int], size: int) -> Array:
        return (random.integers(-size, size, shape) / np.float32(1000)).astype(np.float32)

    default = HeadParams(16259, 127, 127, 3.3 / 127)
    yield make("random", logits((4, 33), 5000), default)
    yield make("one_element", [[-3.5], [0], [3e38], [-inf], [inf], [nan]], default)
    yield make("all_equal", np.zeros((2, 64)) - [[3.5], [0]], default)
    halves = -np.arange(0, 24, dtype=np.float32) / 2
    yield make("ties_round_to_even", halves[None], HeadParams(1000, 50, 9, 1.0))
    quotients = [[0, -0.35], [0, -0.85], [0, -1.55], [0, -2.35]]
    yield make("quotient_is_rounded_to_float32", quotients, HeadParams(20000, 100, 127, 0.1))
    x = logits((4, 20), 3000)
    x[0, 10:], x[1, 1:], x[2, ::2] = -3.4e38, -1e4, -inf
    yield make("masked", x, default, masked=True)
    yield make("mask_values_not_masked", x, default)
    beyond = np.nextafter(np.float32(30.1), np.float32(inf))
    yield make("mask_gap_boundary", [[0, -30.1], [0, -beyond]], HeadParams(200, 1, 90, 0.5), masked=True, mask_gap=30.1)
    special = [
        [nan, 0, 1, 2, 3],
        [0, 1, 2, 3, nan],
        [0, inf, 1, 2, -inf],
        [-inf, -inf, -inf, -inf, -inf],
        [-inf, nan, -inf, -inf, -inf],
        [-inf, -inf, 4, -inf, -inf],
        [3e38, -3e38, 3e38, 0, -inf],
        [0.0, -0.0, 1e-45, -1e-45, 0.0],
    ]
    yield make("special", special, HeadParams(16129, 127, 127, 0.1))
    yield make("special_masked", special, HeadParams(16129, 127, 127, 0.1), masked=True)
    three = (default, HeadParams(1000, 60, 16, 0.25), HeadParams(32767, 0, 1, 1.0))
    yield make("heads", logits((2, 3, 2, 9), 9000), *three, masked=True)
    folded = (HeadParams(400, 3, 100, 0.1), HeadParams(400, 3, 100, 0.02), HeadParams(400, 3, 100, 2.0))
    yield make("heads_folded_into_batch", logits((6, 2, 9), 9000), *folded, short=("B", "S", "Dmax"), head_axis=0)
    scales = (HeadParams(300, 2, 127, 2.0**-149), HeadParams(300, 2, 127, 3e38), HeadParams(1, 0, 127, 1e-3))
    wide = np.array([[0.0, -1e-45, -1e-44, -1.0], [3e38, 1e38, -3e38, -inf], [0.0, -0.0005, -0.0015, -1.0]])
    yield make("extreme_scales", wide[:, None], *scales, head_axis=0)


def cases() -> list[Case]:
    """All cases, in order."""
    profiles: list[tuple[OutputType, Reciprocal]] = [(o, r) for o in ("uint8", "int16") for r in RECIPROCALS]
    return [*float_cases(), *(item for profile in profiles for item in integer_cases(*profile))]


def text() -> str:
    """The file's content."""
    lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in cases())
    return f'{{"format":"hccs-golden","version":1,"cases":[\n{lines}\n]}}\n'


if __name__ == "__main__":
    FILE.write_text(text(), encoding="ascii")
