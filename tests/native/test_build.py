"""What the build promises: no warnings, a right library whatever the compiler and its flags, and nothing else shown."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from native.builds import SOURCES, Builder

AVX2, AVX512 = {"avx2_float", "avx2_int8"}, {"avx512_float", "avx512_int8"}
on_x86_with_gcc = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux" or shutil.which("g++") is None,
    reason="needs g++ on Linux, x86-64",
)


def configured(folder: Path, source: Path, *definitions: str) -> set[str]:
    """Configure a CMake project with g++; returns the kernel files that it would compile."""
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake")
    options = ["CMAKE_CXX_COMPILER=g++", "CMAKE_EXPORT_COMPILE_COMMANDS=ON", *definitions]
    generator = "Ninja" if shutil.which("ninja") else "Unix Makefiles"  # those that export commands
    command = ["cmake", "-G", generator, "-S", str(source), "-B", str(folder), *(f"-D{x}" for x in options)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    files = [Path(entry["file"]).stem for entry in json.loads((folder / "compile_commands.json").read_text())]
    return {file.removeprefix("kernel_") for file in files if file.startswith("kernel_")}


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


@on_x86_with_gcc
@pytest.mark.parametrize(
    ("definitions", "kernels"),
    [
        ([], AVX2 | AVX512),
        # Here the compiler takes the flags, and has lost the intrinsics of one of them.
        (["CMAKE_CXX_FLAGS=-D__AVX512VNNIINTRIN_H_INCLUDED"], AVX2),
        (["CMAKE_CXX_FLAGS=-m32", "CMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY"], set()),
        (["CMAKE_SYSTEM_NAME=Linux", "CMAKE_SYSTEM_PROCESSOR=aarch64"], {"neon"}),
        (["CMAKE_SYSTEM_NAME=Linux", "CMAKE_SYSTEM_PROCESSOR=ARM64", "MSVC=ON"], set()),
    ],
    ids=["x86-64", "no VNNI", "32 bits", "aarch64", "aarch64, MSVC"],
)
def test_kernels_that_the_compiler_cannot_build_are_left_out(
    tmp_path: Path, definitions: list[str], kernels: set[str]
) -> None:
    assert configured(tmp_path, SOURCES, *definitions) == {*kernels, "portable"}


@on_x86_with_gcc
def test_old_compilers_are_not_asked_for_the_processors_avx512() -> None:
    """GCC 7 refuses names that it does not know."""
    command = ["g++", "-E", "-P", str(SOURCES / "src" / "cpu.cpp")]
    without, with_kernels = (
        subprocess.run([*command, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["-DHCCS_BUILD_AVX512"])
    )
    assert '"avx512vnni"' not in without
    assert '"avx512vnni"' in with_kernels


@on_x86_with_gcc
def test_kernels_do_not_compile_where_floats_are_computed_with_more_places() -> None:
    source = SOURCES / "src" / "kernel_portable.cpp"
    command = ["g++", "-std=c++17", "-fsyntax-only", "-I", str(SOURCES / "include"), str(source)]
    assert subprocess.run(command, check=False).returncode == 0
    refused = subprocess.run([*command, "-mfpmath=387"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "floats are computed as floats" in refused.stderr


@pytest.mark.slow
@on_x86_with_gcc
def test_library_is_exact_and_leaves_the_process_alone_when_flags_ask_for_fast_math(build: Builder) -> None:
    fast = ("CMAKE_CXX_COMPILER=g++", "CMAKE_CXX_FLAGS=-ffast-math")
    subprocess.run([build(*fast) / "hccs_kernel_test", "--seconds", "1"], check=True)
    denormals_are_kept = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); sys.exit(sys.float_info.min / 2 == 0)"
    subprocess.run([sys.executable, "-c", denormals_are_kept, str(build.library(*fast))], check=True)


@pytest.mark.slow
@on_x86_with_gcc
def test_library_is_built_and_linked_by_a_project_above(tmp_path: Path) -> None:
    source = "#include <hccs/library.h>\nint main(void) { return hccs_kernel_count() == 0; }\n"
    (tmp_path / "client.c").write_text(source)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(above LANGUAGES C)\n"
        f"add_subdirectory({SOURCES.as_posix()} ops)\n"
        "add_executable(client client.c)\ntarget_link_libraries(client PRIVATE hccs_onnx_ops)\n"
    )
    configured(tmp_path / "build", tmp_path)
    subprocess.run(["cmake", "--build", str(tmp_path / "build")], check=True)
    subprocess.run([str(tmp_path / "build" / "client")], check=True)
