"""The kernels against the reference, on the host emulation."""

from __future__ import annotations

import ctypes
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aie.emulation.compiling import compile_program, compiler
from aie.kernels import Array, Driver, Head, Kernel, Run
from hccs_onnx.aie import emulation
from hccs_onnx.aie.emulation import ARCHITECTURES
from hccs_onnx.aie.kernels import HEADERS, include_dir, working_bytes
from hccs_onnx.params import RECIPROCALS, HccsParams, HeadParams
from hccs_onnx.reference import hccs

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "hccs_golden.json"
MODES = tuple(itertools.product(("uint8", "int16"), RECIPROCALS, (False, True)))
STRICT = ("-O0", "-DAIE_EMULATION_TRAP=1")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DAIE_EMULATION_TRAP=1")
LENGTHS = (1, 2, 7, 31, 32, 33, 49, 64, 100, 127, 128, 129, 197, 256, 512, 1024)


def legal(kernel: Kernel, head: Head) -> bool:
    params = HccsParams((HeadParams(*head),), reciprocal=kernel.reciprocal, masked=kernel.masked)
    return not params.violations(kernel.output, n=kernel.n)  # type: ignore[arg-type]


def extreme_heads(kernel: Kernel) -> list[Head]:
    """Corners of what is legal: largest and smallest offsets, slopes, clip distances and row sums."""
    narrow = 32767 // kernel.n
    offsets = (1, 127, 128, 255, 256, 257, narrow, narrow + 1, 16384, 32767)
    heads = itertools.product(offsets, (0, 1, 127), (1, 64, 127))
    return [head for head in heads if legal(kernel, head)]


def random_heads(rng: np.random.Generator, kernel: Kernel, count: int) -> list[Head]:
    heads: list[Head] = []
    while len(heads) < count:
        slope, distance = int(rng.integers(0, 128)), int(rng.integers(1, 128))
        head = (int(rng.integers(1, 32768)) >> int(rng.integers(0, 8)), slope, distance)
        heads += [head] if legal(kernel, head) else []
    return heads


def random_codes(rng: np.random.Generator, kernel: Kernel, style: int) -> Array:
    """Codes of one of seven kinds: any, two ends, flat rows, clusters, all masked, all but one masked, mixed rows."""
    shape = (kernel.heads, kernel.rows, kernel.n)
    centre = rng.integers(-128, 128, (*shape[:2], 1))
    if style == 0:
        codes = rng.integers(-128, 128, shape)
    elif style == 1:
        codes = rng.choice([-128, 127], shape)
    elif style == 2:
        codes = np.broadcast_to(centre, shape)
    elif style == 3:
        codes = np.clip(centre + rng.integers(-40, 41, shape), -128, 127)
    elif style == 6:  # what one row allows must not be taken for what its neighbours need
        seen = rng.integers(0, kernel.n + 1, (*shape[:2], 1)) * rng.integers(0, 2, (*shape[:2], 1))
        codes = np.where(np.arange(kernel.n) < np.maximum(seen, 1), rng.integers(-127, 128, shape), -128)
    else:
        codes = np.full(shape, -128)
        if style == 5:
            np.put_along_axis(codes, rng.integers(0, kernel.n, (*shape[:2], 1)), np.maximum(centre, -127), -1)
    return codes.astype(np.int8)


def some_runs(kernel: Kernel, count: int, seed: int) -> list[Run]:
    rng = np.random.default_rng(seed)
    heads = random_heads(rng, kernel, count * kernel.heads) + extreme_heads(kernel)
    heads += heads[: -len(heads) % kernel.heads]
    groups = [tuple(heads[at : at + kernel.heads]) for at in range(0, len(heads), kernel.heads)]
    return [Run(kernel, random_codes(rng, kernel, at % 7), group, seed + at) for at, group in enumerate(groups)]


def golden_runs(name: str) -> list[Run]:
    runs = []
    for case in json.loads(GOLDEN.read_text())["cases"]:
        if case["output"] == "float":
            continue
        x = np.array(case["x"], np.int8).reshape(case["shape"])
        count = max(len(case[key]) for key in ("B", "S", "Dmax"))
        axis = case["head_axis"] % x.ndim if count > 1 else 0
        heads = x.shape[axis] if count > 1 else 1
        codes = np.moveaxis(x, axis, 0).reshape(heads, -1, x.shape[-1]) if count > 1 else x.reshape(1, -1, x.shape[-1])
        if codes.size == 0:
            continue
        kernel = Kernel(case["output"], case["reciprocal"], bool(case["masked"]), *codes.shape[:0:-1], heads, name)
        per_head = tuple(tuple(case[key][h % len(case[key])] for key in ("B", "S", "Dmax")) for h in range(heads))
        run = Run(kernel, codes, per_head)
        y = np.array(case["y"]).reshape(case["shape"])
        moved = np.moveaxis(y, axis, 0).reshape(codes.shape) if count > 1 else y.reshape(codes.shape)
        assert np.array_equal(run.expected(), moved)
        runs.append(run)
    return runs


def assert_exact(driver: Driver, runs: Sequence[Run]) -> None:
    for run, y in zip(runs, driver.run(runs), strict=True):
        n = run.kernel.n
        np.testing.assert_array_equal(y[..., :n], run.expected(), err_msg=f"{run.kernel} {run.heads} {run.seed}")
        assert not y[..., n:].any(), f"padding is not 0: {run.kernel}"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_equal_reference(arch: int, tmp_path: Path) -> None:
    # chosen so that padding, half blocks, incomplete groups and incomplete bands all occur
    shapes = ((49, 11, 2), (128, 33, 1), (33, 3, 1))
    kernels = [Kernel(*mode, *shapes[at % 3]) for at, mode in enumerate(MODES)]
    kernels += [Kernel("uint8", "norm", False, 300, 9), Kernel("int16", "norm", True, 1, 1)]
    kernels += [Kernel("int16", "norm", True, 652, 3), Kernel("uint8", "div", False, 600, 3)]  # loops, not unrolled
    kernels += [Kernel("uint8", "norm", True, 49, 11, 2, "softmax_reference")]
    driver = Driver(tmp_path, arch, kernels, *STRICT)
    assert_exact(driver, [run for at, kernel in enumerate(kernels) for run in some_runs(kernel, 12, at)])


def test_kernels_do_not_depend_on_undefined_state(tmp_path: Path) -> None:
    kernel = Kernel("uint8", "norm", True, 49, 11)
    driver = Driver(tmp_path, 20, [kernel], *STRICT)
    rng = np.random.default_rng(7)
    codes = random_codes(rng, kernel, 3)
    assert_exact(driver, [Run(kernel, codes, ((20000, 127, 60),), seed) for seed in range(20)])


LOOP_DIRECTIVE = re.compile(r"HCCS_(?:PIPELINED|UNROLLED)\b")

UNROLLED_STEPS = """
#include <adf.h>
#include <cstdio>
inline int unrolled = 0;
#define __chess__
#undef chess_unroll_loop
#define chess_unroll_loop(times) if (++unrolled)
#include <hccs_kernel.h>

template <bool masked, unsigned n>
void print() {
  alignas(64) static int8 x[n] = {};
  alignas(64) static int16 y[n];
  const int32 params[4] = {16259, 127, 127, 0};
  unrolled = 0;
  hccs::softmax<int16, hccs::Reciprocal::norm, masked, n, 1, 1>(x, y, params);
  std::printf("%d ", unrolled);
}
int main() {
  print<false, 256>(), print<false, 512>(), print<false, 2048>(), print<true, 512>(), print<true, 2048>();
}
"""


def test_loop_directives_stand_between_head_and_body() -> None:
    """AMD's compiler takes them nowhere else; the emulation, for which they are empty, would not notice."""
    lines = [line for name in HEADERS for line in (include_dir() / name).read_text().splitlines()]
    used = [line.strip() for line in lines if LOOP_DIRECTIVE.search(line) and "#define" not in line]
    assert len(used) >= 5
    assert [line for line in used if not re.fullmatch(r"for \(.*\) HCCS_\w+ \{", line)] == []


def test_program_memory_does_not_grow_with_long_rows(tmp_path: Path) -> None:
    source = tmp_path / "steps.cpp"
    source.write_text(UNROLLED_STEPS)
    program = compile_program(source, tmp_path / "steps", 20, "-I", include_dir())
    short, longest, very_long, masked, masked_very_long = map(int, subprocess.check_output([program]).split())
    assert short < longest == masked
    assert very_long == masked_very_long < short  # a loop is left


@pytest.mark.slow
def test_masked_lanes_of_very_long_rows_are_counted(tmp_path: Path) -> None:
    kernels = [Kernel("uint8", "norm", True, n, 1) for n in (8064, 8320, 12001)]  # 126 blocks of 64, 130, 188
    driver = Driver(tmp_path, 20, kernels, "-O1", "-DAIE_EMULATION_TRAP=1")
    rng = np.random.default_rng(3)
    assert_exact(driver, [Run(kernel, random_codes(rng, kernel, style), ((20000, 127, 60),))
                          for kernel in kernels for style in (0, 1, 3, 4, 5, 6)])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", "softmax_reference"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_equal_golden_vectors(arch: int, name: str, tmp_path: Path) -> None:
    runs = golden_runs(name)
    assert runs
    assert_exact(Driver(tmp_path, arch, [run.kernel for run in runs], *STRICT), runs)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_equal_reference_at_all_lengths(arch: int, mode: Any, tmp_path: Path) -> None:
    rows = itertools.cycle((1, 8, 9, 32, 35, 5))
    kernels = [Kernel(*mode, n, next(rows) if n < 512 else 9) for n in LENGTHS]
    kernels += [Kernel(*mode, n, 3, 2, "softmax_reference") for n in (1, 33, 128)] + [Kernel(*mode, 4000, 2)]
    driver = Driver(tmp_path, arch, kernels, *SANITIZED)
    assert_exact(driver, [run for at, kernel in enumerate(kernels) for run in some_runs(kernel, 40, at)])


@pytest.mark.slow
@pytest.mark.parametrize("arch", [20, 21])
def test_kernel_on_pointers_needs_no_adf(arch: int, tmp_path: Path) -> None:
    """The example of docs/aie_kernels.md, as a function that C can call."""
    page = (ROOT / "docs" / "aie_kernels.md").read_text()
    (example,) = (text for text in re.findall(r"```cpp\n(.*?)```", page, re.DOTALL) if 'extern "C"' in text)
    source = tmp_path / "hccs_rows.cc"
    source.write_text(example)
    shutil.copytree(emulation.include_dir(), tmp_path / "api", ignore=shutil.ignore_patterns("adf*", "aie_adf*"))
    library = tmp_path / "hccs_rows.so"
    paths = ["-I", str(include_dir()), "-I", str(tmp_path / "api")]
    flags = ["-std=c++20", "-O1", f"-D__AIE_ARCH__={arch}", "-shared", "-fPIC"]
    subprocess.run([compiler(), *flags, *paths, str(source), "-o", str(library)], check=True)
    codes = np.random.default_rng(1).integers(-128, 128, (32, 64)).astype(np.int8)
    x, y = aligned(codes.nbytes), aligned(codes.nbytes)
    x[:] = codes.ravel().view(np.uint8)
    ctypes.CDLL(str(library)).hccs_rows(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), 16259, 127, 127)
    expected = hccs(codes, np.uint8, B=[16259], S=[127], Dmax=[127], reciprocal="norm")
    np.testing.assert_array_equal(y.reshape(codes.shape), expected)


def aligned(count: int) -> Array:
    """Bytes that begin at a multiple of 64."""
    memory = np.zeros(count + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count]


def test_headers_are_listed() -> None:
    assert sorted(HEADERS) == sorted(path.name for path in include_dir().glob("*.h"))


def test_working_bytes_shrink_the_band_when_rows_are_long() -> None:
    assert working_bytes(1024, 32, masked=False) - working_bytes(64, 1, masked=False) == 8 * 1024 - 64
    assert working_bytes(1024, 32, masked=True, arch=10) < working_bytes(1024, 32, masked=True)
