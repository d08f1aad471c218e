"""Where processors flush denormals to zero, results are the same down to the scale that docs/native.md names."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest

from native.conftest import MakeSession
from native.models import assert_same_bits, expected, one_node_model

SMALLEST = 1e-30
SOURCE = """
#include <xmmintrin.h>
unsigned exchange(unsigned state) { unsigned old = _mm_getcsr(); _mm_setcsr(state); return old; }
"""
FLUSH = 0x8040  # results and operands
DEFAULT = 0x1F80


@pytest.fixture(scope="module")
def flushing(tmp_path_factory: pytest.TempPathFactory) -> AbstractContextManager[None]:
    """While it is entered, this thread knows no denormals."""
    compiler = shutil.which("cc")
    if compiler is None or platform.machine() != "x86_64" or platform.system() != "Linux":
        pytest.skip("needs a C compiler on Linux, x86-64")
    library = tmp_path_factory.mktemp("denormals") / "mode.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    exchange = ctypes.CDLL(str(library)).exchange

    @contextmanager
    def mode() -> Iterator[None]:
        before = exchange(DEFAULT | FLUSH)
        try:
            yield
        finally:
            exchange(before)

    return mode()


def rows_of_denormals(scale: float) -> np.ndarray:
    """Logits next to halves of the scale, where codes change, and denormals beside them."""
    random = np.random.default_rng(0)
    x = random.choice([-2.5, -1.5, -0.5, -1, 0, 0.5, 1.5], (200, 40)) * scale
    x = np.where(random.random(x.shape) < 0.3, random.uniform(-1.17e-38, 1.17e-38, x.shape), x).astype(np.float32)
    return np.where(random.random(x.shape) < 0.3, np.nextafter(x, np.float32(1)), x)


def test_results_are_the_same_when_denormals_are_flushed(
    session: MakeSession, kernels: list[str], monkeypatch: pytest.MonkeyPatch, flushing: AbstractContextManager[None]
) -> None:
    attributes = {"B": [3000], "S": [20], "Dmax": [100], "scale": [SMALLEST], "masked": 1, "mask_gap": SMALLEST}
    x, tiny = rows_of_denormals(SMALLEST), np.float32(1e-40)
    wanted = expected("float", x, **attributes)
    runs = []
    for name in kernels:
        monkeypatch.setenv("HCCS_KERNEL", name)
        runs.append(session(one_node_model("float", ["q", "k"], **attributes)))
    with flushing:
        flushed = tiny * np.float32(1) == 0
        results = [run.run(None, {"X": x})[0] for run in runs]
    assert flushed and tiny * np.float32(1) != 0
    for name, y in zip(kernels, results, strict=True):
        assert_same_bits(y, wanted, name)
