"""The headers: their own tests on every architecture, what they refuse to compile, and what a user gets installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
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


def test_project_of_several_files_runs_as_it_is(tmp_path: Path) -> None:
    project = SOURCES / "project"
    rng = np.random.default_rng(5)
    inputs = rng.integers(-128, 128, (3, 4 * 64))
    (tmp_path / "data").mkdir()
    for tile, x in enumerate(inputs):
        np.savetxt(tmp_path / "data" / f"x_{tile}.txt", x.reshape(-1, 16), fmt="%d")
    program = compile_program(
        project / "graph.cpp", tmp_path / "graph", 20, *WARNINGS, "-D__X86SIM__", project / "kernels.cc"
    )
    run_program(program, folder=tmp_path)
    for tile, x in enumerate(inputs):
        y = np.loadtxt(tmp_path / "x86simulator_output" / f"y_{tile}.txt", dtype=np.int64)
        assert y.shape == (32, 8)
        np.testing.assert_array_equal(y.reshape(-1), x * (3 * tile + 1) >> 1)


@slow
@pytest.mark.parametrize("test", ["api_test.cpp", "graph_test.cpp"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_headers_are_clean_under_sanitizers(test: str, arch: int, tmp_path: Path) -> None:
    flags = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = compile_program(SOURCES / test, tmp_path / "test", arch, *WARNINGS, *flags)
    assert ", 0 failures" in run_program(program, folder=tmp_path).stdout


@slow
@pytest.mark.parametrize("test", ["api_test.cpp", "graph_test.cpp"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_headers_are_clean_under_clang(test: str, arch: int, tmp_path: Path) -> None:
    clang = shutil.which("clang++") or shutil.which("clang++-14")
    if clang is None:
        pytest.skip("needs clang++")
    program = compile_program(SOURCES / test, tmp_path / "test", arch, *WARNINGS, cxx=clang)
    assert ", 0 failures" in run_program(program, folder=tmp_path).stdout


ILLEGAL = {
    10: {
        "aie::vector<uint16, 16> v;": "no vectors of this type",
        "aie::accum<acc48, 8> a; aie::add(a, a);": "no matching function for call to",
    },
    20: {
        "aie::vector<int8, 8> v;": "128 bits or more",
        "aie::vector<int16, 24> v;": "power of two lanes",
        "aie::accum<acc72, 8> a;": "no such accumulator",
        "aie::accum<acc32, 4> a;": "8 to 128 lanes",
        "aie::vector<int8, 16> v; aie::max(v, 5);": "no matching function for call to",
        "aie::vector<int8, 16> v; aie::vector<int32, 16> w; aie::mul(v, w);": "8 by 32 bits cannot be multiplied",
    },
    22: {
        "aie::mmul<4, 8, 4, int8, int8> m;": "no mmul of this shape",
        "aie::mmul<4, 2, 8, int16, int16, acc64> m;": "another accumulator width",
    },
}


@pytest.mark.parametrize("arch", ILLEGAL)
def test_code_that_the_device_cannot_run_does_not_compile(arch: int, tmp_path: Path) -> None:
    source = tmp_path / "illegal.cpp"
    lines = [f"void f{i}() {{ {code} }}" for i, code in enumerate(ILLEGAL[arch])]
    source.write_text("\n".join(["#include <aie_api/aie.hpp>", *lines]))  # the first line; f0 is in the second
    command = [compiler(), "-std=c++20", "-fsyntax-only", f"-D__AIE_ARCH__={arch}", f"-I{include_dir()}", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert result.returncode != 0
    for number, reason in enumerate(ILLEGAL[arch].values(), start=2):
        assert reason in result.stderr
        assert f"illegal.cpp:{number}:" in result.stderr


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
