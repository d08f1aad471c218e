"""Compiling programs against the emulation's headers and running them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hccs_onnx.aie.emulation import include_dir

SOURCES = Path(__file__).parent / "sources"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wpedantic", "-Werror")


def compiler() -> str:
    """A C++20 compiler of this machine; without one the test skips."""
    found = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if found is None:
        pytest.skip("needs a C++ compiler: g++ or clang++, or CXX")
    return found


def compile_program(source: Path, program: Path, arch: int, *flags: str | Path, cxx: str | None = None) -> Path:
    """The program that `source` and sources among `flags` compile to; the compiler's complaints where they do not."""
    command = [cxx or compiler(), "-std=c++20", f"-D__AIE_ARCH__={arch}", "-I", include_dir(), "-I", SOURCES, *flags]
    result = subprocess.run(
        [str(part) for part in (*command, source, "-o", program)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return program


def run_program(
    program: Path, *arguments: object, folder: Path, check: bool = True, **environment: object
) -> subprocess.CompletedProcess[str]:
    """The program's run in `folder`, which has to succeed where `check` is true."""
    result = subprocess.run(
        [str(program), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not check or result.returncode == 0, result.stdout + result.stderr
    return result
