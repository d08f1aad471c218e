"""Writes rows and their probabilities, as hccs_onnx.reference defines them, for the kernel tester.

python write_vectors.py vectors.bin [--seed 1] [--cases 400]
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hccs_onnx.reference import hccs

RESULTS = (np.uint8, np.int16, np.float32)
RECIPROCALS = ("norm", "div", "clb")


def write_vectors(path: Path, seed: int = 1, cases: int = 400) -> None:
    """Writes `cases` random cases of every output type, reciprocal and mask setting."""
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(b"HCCSVEC1")
        for case in range(cases):
            n = int(random.integers(1, 301)) if case % 8 else int(random.integers(300, 5000))
            for result in RESULTS:
                for reciprocal in RECIPROCALS if result is not np.float32 else RECIPROCALS[:1]:
                    _write_case(file, random, result, reciprocal, bool(random.integers(2)), n)


def _write_case(
    file: BinaryIO, random: np.random.Generator, result: type, reciprocal: str, masked: bool, n: int
) -> None:
    offset = int(random.integers(1, 32768 if random.integers(2) else 400))
    clip = int(random.integers(1, 128))
    slope = int(random.integers(0, min(127, offset // clip) + 1))
    scale = np.float32(np.exp(random.uniform(-5, 2)))
    mask_gap = np.float32(random.choice([64.0, 8.0, np.inf]))
    rows = 4
    x = _float_rows(random, rows, n) if result is np.float32 else _code_rows(random, rows, n)
    y = hccs(
        x,
        result,
        B=[offset],
        S=[slope],
        Dmax=[clip],
        scale=[float(scale)],
        reciprocal=reciprocal,
        masked=masked,
        mask_gap=float(mask_gap),
    )
    header = (RESULTS.index(result), RECIPROCALS.index(reciprocal), int(masked), offset, slope, clip)
    file.write(struct.pack("<IIIiiiffQQ", *header, scale, mask_gap, rows, n))
    file.write(x.astype(x.dtype.newbyteorder("<")).tobytes())
    file.write(y.astype(y.dtype.newbyteorder("<")).tobytes())


def _code_rows(random: np.random.Generator, rows: int, n: int) -> np.ndarray:
    x = np.clip(np.rint(random.normal(0, random.choice([5, 30, 100]), (rows, n))), -128, 127).astype(np.int8)
    x[1, random.integers(0, n) :] = -128
    x[2] = random.choice(np.array([-128, 0, 127], np.int8), n)
    return x


def _float_rows(random: np.random.Generator, rows: int, n: int) -> np.ndarray:
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
    arguments = parser.parse_args()
    write_vectors(arguments.path, arguments.seed, arguments.cases)
