"""Every kernel goes through the one tester: on the golden vectors, on vectors from the reference and on sweeps."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from native.builds import Builder
from native.golden import golden_cases


def run_tester(*command: str | Path) -> str:
    """What the tester says, which has to be satisfied."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_kernels_equal_reference_and_definition(build: Builder, vectors: list[Path]) -> None:
    said = run_tester(build() / "hccs_kernel_test", "--seconds", "1", *vectors)
    assert f"golden.bin: {sum(case.heads for case in golden_cases())} cases" in said
    assert "portable" in said.splitlines()[-1]


def test_tester_fails_when_a_vector_is_wrong(build: Builder, vectors: list[Path], tmp_path: Path) -> None:
    content = bytearray(vectors[0].read_bytes())
    content[-1] ^= 1
    wrong = tmp_path / "wrong.bin"
    wrong.write_bytes(content)
    result = subprocess.run([build() / "hccs_kernel_test", wrong], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"{wrong} case" in result.stdout


@pytest.mark.slow
def test_neon_kernels_equal_reference_and_definition_when_emulated(build: Builder, vectors: list[Path]) -> None:
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if platform.machine() == "aarch64" or compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64 on another machine than aarch64")
    folder = build(
        "CMAKE_SYSTEM_NAME=Linux",
        "CMAKE_SYSTEM_PROCESSOR=aarch64",
        f"CMAKE_CXX_COMPILER={compiler}",
        "CMAKE_EXE_LINKER_FLAGS=-static",
    )
    said = run_tester(emulator, folder / "hccs_kernel_test", "--seconds", "1", *vectors)
    assert "neon" in said.splitlines()[-1] and "neon (does not run here)" not in said
