"""What the build promises: no warnings from either compiler, and a library that shows its interface and no more."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess

import pytest

from native.builds import SOURCES, Builder


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_build_has_no_warnings(build: Builder, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    build(f"CMAKE_CXX_COMPILER={compiler}", "HCCS_WARNINGS_AS_ERRORS=ON", "HCCS_BUILD_FUZZER=ON")


@pytest.mark.skipif(platform.system() != "Linux" or shutil.which("nm") is None, reason="needs nm on Linux")
def test_library_exports_what_its_header_declares_and_nothing_else(library: str) -> None:
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", library]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    header = (SOURCES / "include" / "hccs" / "library.h").read_text()
    declared = re.findall(r"^HCCS_EXPORT .*?\b(\w+)\(", header, re.MULTILINE)
    assert len(declared) >= 6
    assert sorted(line.split()[0].split("@")[0] for line in listed.splitlines()) == sorted(declared)


@pytest.mark.skipif(platform.system() != "Linux" or shutil.which("nm") is None, reason="needs nm on Linux")
def test_library_needs_nothing_of_onnxruntime_when_it_is_loaded(library: str) -> None:
    command = ["nm", "--dynamic", "--undefined-only", "--format=posix", library]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if "Ort" in line] == []
