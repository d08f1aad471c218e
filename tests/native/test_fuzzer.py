"""libFuzzer looks for bytes for which a kernel differs from the definition, or leaves its rows (custom_ops/fuzz)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from native.builds import SANITIZED, Builder

pytestmark = pytest.mark.slow

SECONDS = int(os.environ.get("HCCS_FUZZ_SECONDS", "20"))
LONGEST = 4096  # bytes of an input


def has_libfuzzer(folder: Path) -> bool:
    if shutil.which("clang++") is None:
        return False
    source = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'
    command = ["clang++", "-fsanitize=fuzzer,address,undefined", "-x", "c++", "-", "-o", str(folder / "probe")]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0


def test_fuzzer_finds_no_difference(build: Builder, tmp_path: Path) -> None:
    if not has_libfuzzer(tmp_path):
        pytest.skip("needs clang++ with libFuzzer (Debian: libclang-rt-dev)")
    folder = build(*SANITIZED, "CMAKE_CXX_COMPILER=clang++", "HCCS_SANITIZE=address,undefined")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    options = [f"-max_total_time={SECONDS}", f"-max_len={LONGEST}", f"-artifact_prefix={tmp_path}/"]
    command = [str(folder / "hccs_kernel_fuzz"), *options, str(corpus)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:]
    assert len(list(corpus.iterdir())) > 100  # it came about


def test_replay_of_random_inputs_finds_no_difference(build: Builder, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    folder = build(*SANITIZED, "CMAKE_CXX_COMPILER=g++", "HCCS_SANITIZE=address,undefined")
    random = np.random.default_rng(1)
    files = [tmp_path / str(i) for i in range(300)]
    for i, file in enumerate(files):
        file.write_bytes(random.bytes(i * 7))
    command = [str(folder / "hccs_kernel_fuzz"), *map(str, files)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:]
    assert "300 files, no difference" in result.stdout
