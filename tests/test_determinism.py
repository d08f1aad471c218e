"""The same bytes from run to run, and never half a file."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from conftest import DIGITS, ROOT

EVERYTHING = """
import sys
from pathlib import Path
from hccs_onnx.cli import main
model, data, folder, to = sys.argv[1:]
main(["inspect", "--json", model])
calibration = f"{folder}/fit.json"
main(["calibrate", model, "--data", data, "--to", to, "-o", calibration])
main(["rewrite", model, "--calibration", calibration, "-o", f"{folder}/fit.onnx"])
main(["rewrite", model, "-o", f"{folder}/free.onnx"])
"""


def child(code: str, *arguments: Path | str, seed: int = 0) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("to", ["float", pytest.param("int16", marks=pytest.mark.slow)])
def test_everything_written_is_the_same_whatever_the_hash_seed(tmp_path: Path, to: str) -> None:
    model, data = DIGITS / "digits_torchscript.onnx", DIGITS / "calibration.npz"
    results = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        process = child(EVERYTHING, model, data, folder, to, seed=seed)
        said, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert set(files) == {"fit.json", "fit.onnx", "free.onnx"}
        results.append((said.replace(str(folder).encode(), b"FOLDER"), files))
    assert results[0] == results[1]


REWRITE = """
import sys
from hccs_onnx import rewrite
print("ready", flush=True)
rewrite(sys.argv[1], sys.argv[2])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_output_is_the_old_file_or_the_new_when_rewrite_is_killed(tmp_path: Path) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "out.onnx"
    model = onnx.load(DIGITS / "digits_torchscript.onnx")
    # Weight enough that writing takes a while.
    model.graph.initializer.append(
        onnx.helper.make_tensor("ballast", onnx.TensorProto.INT8, [2**24], bytes(2**24), True)
    )
    source.write_bytes(model.SerializeToString())
    process = child(REWRITE, source, target)
    assert process.stdout is not None
    process.stdout.readline()
    begin = time.monotonic()
    process.communicate(timeout=300)
    span = time.monotonic() - begin
    old, new = hashlib.sha256(b"old").digest(), hashlib.sha256(target.read_bytes()).digest()
    rng, killed = random.Random(0), 0
    for share in (0.0, *(rng.random() for _ in range(5))):
        target.write_bytes(b"old")
        process = child(REWRITE, source, target)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(share * span)
        process.kill()
        process.communicate(timeout=300)
        killed += process.returncode == -signal.SIGKILL
        assert hashlib.sha256(target.read_bytes()).digest() in (old, new)
    assert killed  # else nothing was tried
