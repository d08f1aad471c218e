"""Sanitizers find nothing: in the kernels, in the op inside onnxruntime, and in the whole library on many threads.

onnxruntime itself is not instrumented. An address sanitizer can live with that, a thread sanitizer cannot, so threads
are driven by a runtime of our own (custom_ops/fuzz/op_threads.cpp).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from native.builds import SANITIZED, Builder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.system() != "Linux" or shutil.which("g++") is None, reason="needs g++ on Linux"),
]

SANITIZERS = ["address,undefined", "thread"]
OP_TESTS = ["op", "golden_vectors", "bad_nodes", "malformed_nodes", "dispatch", "library_lifetime", "thread_pool"]


@pytest.fixture
def sanitized(build: Builder, sanitizers: str) -> Path:
    return build(*SANITIZED, "CMAKE_CXX_COMPILER=g++", f"HCCS_SANITIZE={sanitizers}")


def assert_silent(command: list[str | Path], **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stdout[-20000:]
    return result.stdout


@pytest.mark.parametrize("sanitizers", SANITIZERS)
def test_sanitizers_find_nothing_in_the_kernels(sanitized: Path, vectors: list[Path]) -> None:
    assert_silent([sanitized / "hccs_kernel_test", "--seconds", "1", *vectors])


@pytest.mark.parametrize("sanitizers", SANITIZERS)
def test_sanitizers_find_nothing_in_the_library_when_driven_from_many_threads(sanitized: Path) -> None:
    assert "all as defined" in assert_silent([sanitized / "hccs_op_threads", "8", "25"])


@pytest.mark.parametrize("sanitizers", ["address,undefined"])
def test_sanitizers_find_nothing_in_the_op_in_onnxruntime(sanitized: Path) -> None:
    names = ["libasan.so", "libubsan.so", "libstdc++.so.6"]  # the last: else exceptions pass the sanitizer by
    found = [subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip() for name in names]
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in OP_TESTS]
    said = assert_silent(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        LD_PRELOAD=" ".join(found),
        ASAN_OPTIONS="detect_leaks=0",  # Python's own
        HCCS_LIBRARY=str(sanitized / "libhccs_onnx_ops.so"),
        PYTHONPATH=os.pathsep.join(sys.path),
    )
    assert " passed" in said
