"""Writes rows and their probabilities for the kernel tester: random ones from hccs_onnx.reference, or the golden ones.

In tests/, with hccs_onnx installed:

    python -m native.write_vectors vectors.bin [--seed 1] [--cases 400]
    python -m native.write_vectors golden.bin --golden

Format, little-endian: "HCCSVEC1", then cases until the end. A case is a header (uint32 result: 0 uint8, 1 int16,
2 float; uint32 reciprocal: 0 norm, 1 div, 2 clb; uint32 masked; int32 B, S, Dmax; float32 scale, mask_gap; uint64 rows,
n), then rows*n logits, then rows*n probabilities. A case has one head.
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hccs_onnx.reference import hccs
from native.golden import GoldenCase, golden_cases

Array = np.ndarray[Any, Any]

MAGIC = b"HCCSVEC1"
RESULTS = (np.uint8, np.int16, np.float32)
RECIPROCALS = ("norm", "div", "clb")


def write_vectors(path: Path, seed: int = 1, cases: int = 400) -> None:
    """Writes `cases` random cases of every output type, reciprocal and mask setting."""
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(MAGIC)
        for case in range(cases):
            n = int(random.integers(1, 301)) if case % 8 else int(random.integers(300, 5000))
            for result in RESULTS:
                for reciprocal in RECIPROCALS if result is not np.float32 else RECIPROCALS[:1]:
                    _write_case(file, random, result, reciprocal, bool(random.integers(2)), n)


def write_golden_vectors(path: Path) -> None:
    """Writes tests/golden/hccs_golden.json; a case of several heads becomes one for each."""
    with path.open("wb") as file:
        file.write(MAGIC)
        for case in golden_cases():
            for head in range(case.heads):
                _write_golden_head(file, case, head)


def _write_golden_head(file: BinaryIO, case: GoldenCase, head: int) -> None:
    x, y = ((array if case.heads == 1 else _of_head(array, case, head)) for array in (case.x, case.y))
    numbers = {name: values[head % len(values)] for name, values in case.lists.items()}
    _write(file, x, y, **numbers, reciprocal=case.reciprocal, masked=case.masked, mask_gap=case.mask_gap)


def _of_head(array: Array, case: GoldenCase, head: int) -> Array:
    return np.moveaxis(array, case.head_axis, 0)[head :: case.heads]


def _write_case(
    file: BinaryIO, random: np.random.Generator, result: type, reciprocal: str, masked: bool, n: int
) -> None:
    offset = int(random.integers(1, 32768 if random.integers(2) else 400))
    clip = int(random.integers(1, 128))
    slope = int(random.integers(0, min(127, offset // clip) + 1))
    scale = float(np.float32(np.exp(random.uniform(-5, 2))))
    mask_gap = float(np.float32(random.choice([64.0, 8.0, np.inf])))
    x = _float_rows(random, 4, n) if result is np.float32 else _code_rows(random, 4, n)
    shared = {"reciprocal": reciprocal, "masked": masked, "mask_gap": mask_gap}
    y = hccs(x, result, B=[offset], S=[slope], Dmax=[clip], scale=[scale], **shared)
    _write(file, x, y, B=offset, S=slope, Dmax=clip, scale=scale, **shared)


def _write(
    file: BinaryIO,
    x: Array,
    y: Array,
    *,
    B: int,
    S: int,
    Dmax: int,
    scale: float,
    reciprocal: str,
    masked: bool,
    mask_gap: float,
) -> None:
    n = x.shape[-1]
    header = (RESULTS.index(y.dtype.type), RECIPROCALS.index(reciprocal), int(masked), B, S, Dmax, scale, mask_gap)
    file.write(struct.pack("<IIIiiiffQQ", *header, x.size // n, n))
    file.write(x.astype(x.dtype.newbyteorder("<")).tobytes())
    file.write(y.astype(y.dtype.newbyteorder("<")).tobytes())


def _code_rows(random: np.random.Generator, rows: int, n: int) -> Array:
    x = np.clip(np.rint(random.normal(0, random.choice([5, 30, 100]), (rows, n))), -128, 127).astype(np.int8)
    x[1, random.integers(0, n) :] = -128
    x[2] = random.choice(np.array([-128, 0, 127], np.int8), n)
    return x


def _float_rows(random: np.random.Generator, rows: int, n: int) -> Array:
    x = random.normal(0, 10, (rows, n)).astype(np.float32)
    x[1, random.integers(0, n) :] = -np.inf
    x[2] = random.choice(
        np.array([np.nan, np.inf, -np.inf, 0, 3e38, -3e38], np.float32), n, p=[0.01, 0.01, *[0.245] * 4]
    )
    return x


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--golden", action="store_true", help="write the golden vectors instead")
    arguments = parser.parse_args()
    if arguments.golden:
        write_golden_vectors(arguments.path)
    else:
        write_vectors(arguments.path, arguments.seed, arguments.cases)
