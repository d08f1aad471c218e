"""The native library under test: the one that HCCS_LIBRARY names, else the package's, else one built here."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

import hccs_onnx
from native.builds import Builder, make_builder
from native.worker import Worker
from native.write_vectors import write_golden_vectors, write_vectors

MakeOptions = Callable[..., onnxruntime.SessionOptions]
MakeSession = Callable[..., onnxruntime.InferenceSession]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Builds custom_ops with given CMake definitions and returns the build folder; each configuration once."""
    return make_builder(tmp_path_factory)


@pytest.fixture(scope="session")
def library(build: Builder) -> str:
    """Path of the shared library."""
    given = os.environ.get("HCCS_LIBRARY")
    if given:
        return str(Path(given).resolve())
    if hasattr(hccs_onnx, "library_path"):
        try:
            return str(hccs_onnx.library_path())
        except hccs_onnx.HccsError:
            pass  # this installation has none
    return str(build.library())


@pytest.fixture(scope="session")
def native(library: str) -> ctypes.CDLL:
    """The library's functions for diagnostics."""
    handle = ctypes.CDLL(library)
    handle.hccs_kernel_count.restype = ctypes.c_size_t
    handle.hccs_kernel_name.argtypes = [ctypes.c_size_t]
    handle.hccs_kernel_name.restype = ctypes.c_char_p
    handle.hccs_kernel_runs_here.argtypes = [ctypes.c_size_t]
    handle.hccs_selected_kernel.restype = ctypes.c_char_p
    return handle


@pytest.fixture(scope="session")
def kernels(native: ctypes.CDLL) -> list[str]:
    """Names of the kernels that run here, best first."""
    count = native.hccs_kernel_count()
    return [native.hccs_kernel_name(i).decode() for i in range(count) if native.hccs_kernel_runs_here(i)]


@pytest.fixture(scope="session")
def options(library: str) -> MakeOptions:
    """Session options with the library registered and `threads` intra-op threads."""

    def make(threads: int = 1) -> onnxruntime.SessionOptions:
        result = onnxruntime.SessionOptions()
        result.log_severity_level = 4
        result.intra_op_num_threads = threads
        # An address sanitizer sees the bounds of a tensor only where each is allocated by itself.
        result.enable_cpu_mem_arena = "asan" not in os.environ.get("LD_PRELOAD", "")
        result.register_custom_ops_library(library)
        return result

    return make


@pytest.fixture(scope="session")
def session(options: MakeOptions) -> MakeSession:
    """A session of a serialised model on the native library."""

    def make(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(model, options(threads), providers=["CPUExecutionProvider"])

    return make


@pytest.fixture(scope="session")
def worker(library: str, request: pytest.FixtureRequest) -> Worker:
    """Runs models in a child process, so that a crash is an answer like any other."""
    made = Worker(library)
    request.addfinalizer(made.close)
    return made


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Vector files for the kernel tester: random ones from the reference, and the golden ones."""
    folder = tmp_path_factory.mktemp("vectors")
    write_vectors(folder / "random.bin", cases=200)
    write_golden_vectors(folder / "golden.bin")
    return [folder / "random.bin", folder / "golden.bin"]
