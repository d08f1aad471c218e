"""Compiling kernels against the host emulation and running them on arrays."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aie.emulation.compiling import WARNINGS, compile_program
from hccs_onnx.aie.kernels import include_dir
from hccs_onnx.params import Reciprocal
from hccs_onnx.reference import hccs

DRIVER = Path(__file__).with_name("kernel_driver.cpp")

Array = np.ndarray[Any, Any]
Head = tuple[int, int, int]


@dataclass(frozen=True)
class Kernel:
    """One instantiation: what the template parameters of hccs::softmax say."""

    output: str
    reciprocal: Reciprocal
    masked: bool
    n: int
    rows: int
    heads: int = 1
    name: str = "softmax"

    @property
    def columns(self) -> int:
        """Row length with padding."""
        return (self.n + 31) // 32 * 32

    def line(self) -> str:
        """How kernel_driver.cpp is told of it."""
        masked = str(self.masked).lower()
        return (
            f"HCCS_CASE({self.name}, {self.output}, {self.reciprocal}, {masked}, {self.n}, {self.rows}, {self.heads})\n"
        )


@dataclass(frozen=True)
class Run:
    """Codes of shape (heads, rows, n) and B, S, Dmax of every head."""

    kernel: Kernel
    codes: Array
    heads: tuple[Head, ...]
    seed: int = 1

    def expected(self) -> Array:
        """What the reference gives."""
        b, s, d = zip(*self.heads, strict=True)
        kernel = self.kernel
        return hccs(self.codes, kernel.output, B=b, S=s, Dmax=d, reciprocal=kernel.reciprocal, masked=kernel.masked)


class Driver:
    """The driver, compiled for some kernels and one architecture."""

    def __init__(self, folder: Path, arch: int, kernels: Sequence[Kernel], *flags: str) -> None:
        self.kernels = list(dict.fromkeys(kernels))
        cases = folder / f"cases_{arch}.inc"
        cases.write_text("".join(kernel.line() for kernel in self.kernels))
        self.program = compile_program(
            DRIVER, folder / f"driver_{arch}", arch, f'-DHCCS_CASES="{cases}"', "-I", include_dir(), *WARNINGS, *flags
        )

    def run(self, runs: Sequence[Run]) -> list[Array]:
        """Padded outputs of each run."""
        request = b"".join(self._request(run) for run in runs)
        result = subprocess.run([self.program], input=request, capture_output=True, check=False, timeout=600)
        assert result.returncode == 0, result.stderr.decode()
        answers, at = [], 0
        for run in runs:
            kernel = run.kernel
            shape = (kernel.heads, kernel.rows, kernel.columns)
            y = np.frombuffer(result.stdout, kernel.output, int(np.prod(shape)), at).reshape(shape)
            at += y.nbytes
            answers.append(y)
        assert at == len(result.stdout)
        return answers

    def _request(self, run: Run) -> bytes:
        kernel = run.kernel
        assert run.codes.shape == (kernel.heads, kernel.rows, kernel.n)
        padding = np.random.default_rng(run.seed).integers(-128, 128, (kernel.heads, kernel.rows, kernel.columns))
        codes = padding.astype(np.int8)
        codes[..., : kernel.n] = run.codes
        head = [self.kernels.index(kernel), run.seed, *(value for b, s, d in run.heads for value in (b, s, d, 0))]
        return np.array(head, np.int32).tobytes() + codes.tobytes()
