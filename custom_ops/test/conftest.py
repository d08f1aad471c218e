"""Builds the native library once a test run, or takes the one that HCCS_LIBRARY names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

SOURCES = Path(__file__).resolve().parents[1]
Build = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes, or needs tools or packages that may not be there")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds custom_ops with given CMake definitions and returns the build folder; each configuration once."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("needs cmake")
    folders: dict[tuple[str, ...], Path] = {}

    def build_with(*definitions: str) -> Path:
        if definitions not in folders:
            folder = tmp_path_factory.mktemp("native")
            options = [f"-D{definition}" for definition in definitions]
            subprocess.run([cmake, "-S", SOURCES, "-B", folder, "-DHCCS_BUILD_TESTS=ON", *options], check=True)
            subprocess.run([cmake, "--build", folder, "--parallel"], check=True)
            folders[definitions] = folder
        return folders[definitions]

    return build_with


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> str:
    """Path of the shared library."""
    given = os.environ.get("HCCS_LIBRARY")
    if given:
        return given
    folder = request.getfixturevalue("build")()
    return str(next(path for path in folder.iterdir() if path.stem.endswith("hccs_onnx_ops")))


@pytest.fixture
def options(library: str) -> Callable[..., onnxruntime.SessionOptions]:
    """Session options with the library registered and `threads` intra-op threads."""

    def make(threads: int = 1) -> onnxruntime.SessionOptions:
        result = onnxruntime.SessionOptions()
        result.log_severity_level = 4
        result.intra_op_num_threads = threads
        result.register_custom_ops_library(library)
        return result

    return make


@pytest.fixture
def session(options: Callable[..., onnxruntime.SessionOptions]) -> Callable[..., onnxruntime.InferenceSession]:
    """A session of a serialised model on the native library."""

    def make(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(model, options(threads), providers=["CPUExecutionProvider"])

    return make
