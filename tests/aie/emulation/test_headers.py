"""The headers: their own tests on every architecture, what they refuse to compile, and what a user gets installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from aie.emulation.compiling import SOURCES, WARNINGS, compile_program, compiler, run_program
from hccs_onnx.aie.emulation import ARCHITECTURES, include_dir

slow = pytest.mark.slow


@pytest.mark.parametrize("arch", [10, 20, pytest.param(21, marks=slow), 22])
def test_api_does_what_its_guide_says(arch: int, tmp_path: Path) -> None:
    program = compile_program(SOURCES / "api_test.cpp", tmp_path / "test", arch, *WARNINGS)
    assert ", 0 failures" in run_program(program, folder=tmp_path).stdout


@pytest.mark.parametrize("arch", [pytest.param(10, marks=slow), 20, pytest.param(22, marks=slow)])
def test_graphs_do_what_their_guide_says(arch: int, tmp_path: Path) -> None:
    program = compile_program(SOURCES / "graph_test.cpp", tmp_path / "test", arch, *WARNINGS)
    assert ", 0 failures" in run_program(program, folder=tmp_path).stdout
    report = json.loads((tmp_path / "report.json").read_text())
    expected = {"source": "kernel.cpp", "column": 3, "row": 1, "runs": 2, "load": 2, "store": 2, "multiply": 0}
    assert [expected] == [{name: kernel[name] for name in expected} for kernel in report]


@slow
@pytest.mark.parametrize("test", ["api_test.cpp", "graph_test.cpp"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_headers_are_clean_under_sanitizers_and_clang(test: str, arch: int, tmp_path: Path) -> None:
    clang = shutil.which("clang++") or shutil.which("clang++-14")
    sanitized = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    for cxx, flags in ((compiler(), (*sanitized, "-O1")), (clang, ())):
        if cxx is None:
            pytest.skip("needs clang++")
        program = compile_program(SOURCES / test, tmp_path / "test", arch, *WARNINGS, *flags, cxx=cxx)
        assert ", 0 failures" in run_program(program, folder=tmp_path).stdout


ILLEGAL = {
    "vector below 128 bits": (20, "aie::vector<int8, 8> v;", "128 bits or more"),
    "vector of 24 lanes": (20, "aie::vector<int16, 24> v;", "power of two lanes"),
    "unsigned vector on AIE": (10, "aie::vector<uint16, 16> v;", "no vectors of this type"),
    "accumulator of 72 bits on AIE-ML": (20, "aie::accum<acc72, 8> a;", "no such accumulator"),
    "accumulator of 4 lanes": (20, "aie::accum<acc32, 4> a;", "8 to 128 lanes"),
    "shape of another architecture": (22, "aie::mmul<4, 8, 4, int8, int8> m;", "no mmul of this shape"),
    "accumulator of another width": (22, "aie::mmul<4, 2, 8, int16, int16, acc64> m;", "another accumulator width"),
    "sum of accumulators on AIE": (10, "aie::accum<acc48, 8> a; aie::add(a, a);", "no matching function"),
    "scalar of another type": (20, "aie::vector<int8, 16> v; aie::max(v, 5);", "no matching function"),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_code_that_the_device_cannot_run_does_not_compile(case: str, tmp_path: Path) -> None:
    arch, code, reason = ILLEGAL[case]
    source = tmp_path / "illegal.cpp"
    source.write_text(f"#include <aie_api/aie.hpp>\nvoid f() {{ {code} }}\n")
    command = [compiler(), "-std=c++20", "-fsyntax-only", f"-D__AIE_ARCH__={arch}", f"-I{include_dir()}", str(source)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    )
    assert result.returncode != 0
    assert reason in result.stderr


def test_wrapping_accumulator_is_an_error_when_trapped(tmp_path: Path) -> None:
    source = tmp_path / "wrap.cpp"
    source.write_text(
        """#include <aie_api/aie.hpp>
        int main() {
          aie::accum<acc32, 8> a(aie::broadcast<int32, 8>(2147483647));
          a = aie::mac(a, aie::broadcast<int16, 8>(1), aie::broadcast<int16, 8>(1));
        }
        """
    )
    program = compile_program(source, tmp_path / "wrap", 20, "-DAIE_EMULATION_TRAP=1")
    result = run_program(program, folder=tmp_path, check=False)
    assert result.returncode != 0
    assert "AIE emulation: an accumulator wrapped" in result.stderr


def test_seed_decides_what_undefined_values_are(tmp_path: Path) -> None:
    source = tmp_path / "undefined.cpp"
    source.write_text(
        """#include <aie_api/aie.hpp>
        #include <cstdio>
        int main() {
          const aie::vector<int32, 4> v;
          std::printf("%d %d", static_cast<int>(aie::get_rounding()), v.lanes[0]);
        }
        """
    )
    program = compile_program(source, tmp_path / "undefined", 20)
    said = [run_program(program, folder=tmp_path, AIE_EMULATION_SEED=seed).stdout for seed in (1, 2, 2)]
    assert said[0] != said[1] == said[2]


def test_include_dir_holds_the_public_headers() -> None:
    assert {"adf.h", "aie_api", "adf", "emulation"} <= {path.name for path in include_dir().iterdir()}
