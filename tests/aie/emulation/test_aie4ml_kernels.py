"""The kernels of the package aie4ml, as installed, give what the reference gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from aie.emulation.compiling import SOURCES, compile_program, run_program
from hccs_onnx.reference import hccs

ITERATIONS = 12


class Kernel(NamedTuple):
    """One instance of a kernel; `sources/aie4ml_kernels.cpp` has the same list."""

    name: str
    rows: int
    n: int
    microtile: tuple[int, int] = (0, 0)

    @property
    def output(self) -> str:
        return self.name.split("-")[1]

    @property
    def reciprocal(self) -> str:
        return self.name.split("-")[2]


KERNELS = [
    Kernel("linear-uint8-div", 8, 64),
    Kernel("linear-uint8-clb", 8, 32),
    Kernel("linear-int16-div", 8, 128),
    Kernel("linear-int16-clb", 4, 96),
    Kernel("tiled-uint8-div", 8, 64, (4, 8)),
    Kernel("tiled-uint8-clb", 16, 64, (8, 8)),
    Kernel("tiled-int16-div", 8, 128, (2, 8)),
    Kernel("tiled-int16-clb", 8, 32, (4, 16)),
    Kernel("transposed-uint8-clb", 8, 64, (4, 8)),
    Kernel("transposed-int16-div", 8, 64, (8, 8)),
]


def parameters(n: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Legal (B, S, Dmax) of the profile paper: the extremes and some between."""
    highest, floor = 32767 // n, -(-256 // n)
    found = [(highest, 0, 127), (floor, 0, 1), (highest, (highest - floor) // 127, 127)]
    while len(found) < 6:
        B, S, Dmax = int(rng.integers(floor, highest + 1)), int(rng.integers(128)), int(rng.integers(1, 128))
        if B - S * Dmax >= floor:
            found.append((B, S, Dmax))
    return found


def rows(count: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of every kind: any codes, only extremes, flat, around a level, one peak."""
    x = rng.integers(-128, 128, (count, n))
    kind = np.arange(count) % 5
    x[kind == 1] = np.where(x[kind == 1] < 0, -128, 127)
    x[kind == 2] = x[kind == 2][:, :1]
    x[kind == 3] = x[kind == 3][:, :1] + rng.integers(-20, 21, (int(np.sum(kind == 3)), n))
    peaks = np.full((int(np.sum(kind == 4)), n), -128)
    peaks[np.arange(len(peaks)), np.arange(len(peaks)) % n] = 127
    x[kind == 4] = peaks
    return np.clip(x, -128, 127).astype(np.int8)


def tiles(x: np.ndarray, kernel: Kernel, *, transposed: bool = False) -> np.ndarray:
    """Rows in the order in which the kernel's buffer holds them."""
    outer, inner = kernel.microtile
    if outer == 0:
        return x.reshape(-1)
    blocks = x.reshape(-1, outer, kernel.n // inner, inner).transpose(0, 2, 1, 3)
    return (blocks.transpose(0, 1, 3, 2) if transposed else blocks).reshape(-1)


@pytest.fixture(scope="module")
def kernels_of_aie4ml() -> Path:
    specification = importlib.util.find_spec("aie4ml")
    if specification is None or specification.origin is None:
        pytest.skip("needs the package aie4ml")
    return Path(specification.origin).parent / "templates" / "nnet_utils" / "softmax"


@pytest.mark.parametrize(
    "arch", [pytest.param(10, marks=pytest.mark.slow), 20, *(pytest.param(a, marks=pytest.mark.slow) for a in (21, 22))]
)
def test_aie4ml_kernels_equal_reference(arch: int, kernels_of_aie4ml: Path, tmp_path: Path) -> None:
    program = compile_program(
        SOURCES / "aie4ml_kernels.cpp",
        tmp_path / "kernels",
        arch,
        "-w",
        "-DAIE_EMULATION_TRAP=1",
        "-I",
        kernels_of_aie4ml,
    )
    rng = np.random.default_rng(arch)
    checked = 0
    for kernel in KERNELS:
        transposed = kernel.name.startswith("transposed")
        for B, S, Dmax in parameters(kernel.n, rng):
            x = rows(kernel.rows * ITERATIONS, kernel.n, rng)
            np.savetxt(tmp_path / "in.txt", tiles(x, kernel, transposed=transposed).reshape(-1, 8), fmt="%d")
            seed = int(rng.integers(2**31))
            run_program(program, kernel.name, B, S, Dmax, ITERATIONS, folder=tmp_path, AIE_EMULATION_SEED=seed)
            y = np.loadtxt(tmp_path / "x86simulator_output" / "out.txt", dtype=np.int64).reshape(-1)
            expected = hccs(x, kernel.output, B=[B], S=[S], Dmax=[Dmax], reciprocal=kernel.reciprocal)
            np.testing.assert_array_equal(y, tiles(expected, kernel), f"{kernel.name} B={B} S={S} Dmax={Dmax} {seed=}")
            checked += len(x)
    assert checked > 5000
