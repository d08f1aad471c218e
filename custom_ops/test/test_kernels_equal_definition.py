"""Every kernel goes through the one tester: on vectors from the reference, on sweeps, and under sanitizers."""

from __future__ import annotations

import platform
import shutil
import subprocess

import pytest
from write_vectors import write_vectors


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.bin"
    write_vectors(path, cases=200)
    return path


def run_tester(*command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_kernel_equals_reference_and_definition(build, vectors):
    output = run_tester(build() / "hccs_kernel_test", vectors)
    assert "portable" in output


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_sanitizers_find_nothing_in_the_kernels(build, vectors, sanitizers):
    run_tester(build(f"HCCS_SANITIZE={sanitizers}") / "hccs_kernel_test", "--seconds", "1", vectors)


@pytest.mark.slow
def test_aarch64_kernels_equal_definition_under_emulation(build, vectors):
    compiler, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if platform.machine() == "aarch64" or compiler is None or emulator is None:
        pytest.skip("needs aarch64-linux-gnu-g++ and qemu-aarch64 on another machine than aarch64")
    folder = build(
        "CMAKE_SYSTEM_NAME=Linux",
        "CMAKE_SYSTEM_PROCESSOR=aarch64",
        f"CMAKE_CXX_COMPILER={compiler}",
        "CMAKE_EXE_LINKER_FLAGS=-static",
    )
    assert "neon" in run_tester(emulator, folder / "hccs_kernel_test", "--seconds", "1", vectors)
