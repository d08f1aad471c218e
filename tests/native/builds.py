"""Builds custom_ops with CMake, each configuration once a test run, whatever the number of pytest-xdist workers."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "custom_ops"
JOBS = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", "2")


# Definitions of a build with sanitizers: optimised little, for the compiler takes long enough, and with assertions.
SANITIZED = ("CMAKE_BUILD_TYPE=Sanitized", "CMAKE_CXX_FLAGS=-O1", "HCCS_BUILD_FUZZER=ON")


class Builder:
    """Build folders under `root`, one for each set of CMake definitions.

    A test that asks for a build is skipped where CMake or a compiler is missing, and fails where the build does.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *definitions: str) -> Path:
        """The folder of a finished build with the tests and these definitions, as in ``"HCCS_SANITIZE=thread"``."""
        cmake = shutil.which("cmake")
        if cmake is None:
            pytest.skip("needs cmake")
        definitions = ("HCCS_BUILD_TESTS=ON", *definitions)
        folder = self.root / hashlib.sha256("\n".join(definitions).encode()).hexdigest()[:12]
        with _locked(folder.with_suffix(".lock")):
            failure = folder / "failed.txt"
            if not (folder / "ready").exists() and not failure.exists():
                folder.mkdir(parents=True, exist_ok=True)
                generator = ["-G", "Ninja"] if shutil.which("ninja") and "CMAKE_GENERATOR" not in os.environ else []
                options = [f"-D{definition}" for definition in definitions]
                configure = [cmake, *generator, "-S", str(SOURCES), "-B", str(folder), *options]
                said = _run(configure) or _run([cmake, "--build", str(folder), "--parallel", JOBS])
                (failure if said else folder / "ready").write_text(said)
            if failure.exists():
                said = failure.read_text()
                if "No CMAKE_CXX_COMPILER could be found" in said or "CMAKE_MAKE_PROGRAM is not set" in said:
                    pytest.skip("needs a C++ compiler and a build tool that CMake finds")
                pytest.fail(f"build with {definitions}:\n{said}", pytrace=False)
        return folder

    def library(self, *definitions: str) -> Path:
        """The shared library of a build."""
        return next(path for path in self(*definitions).iterdir() if path.stem.endswith("hccs_onnx_ops"))


def _run(command: list[str]) -> str:
    """What a command said, empty where it succeeded."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return result.stdout or "no output" if result.returncode else ""


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lets one process in at a time; on Windows each worker has a root of its own instead."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_builder(factory: pytest.TempPathFactory) -> Builder:
    """A builder whose folders all workers of a test run share."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ and os.name == "posix" else base
    root = shared / "native_builds"
    root.mkdir(exist_ok=True)
    return Builder(root)
