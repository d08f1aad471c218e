"""One binary runs on every onnxruntime from 1.17 on, and an older one says why not.

Each version gets an environment of its own, made with pip; HCCS_RUNTIME_VERSIONS names other versions than the default
ones, separated by commas. HCCS_RUNTIME_CACHE keeps the environments between runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from native import run_recorded
from native.models import (
    DTYPES,
    OUTPUTS,
    RECIPROCALS,
    TWO_HEADS,
    chained_model,
    expected,
    logits,
    one_node_model,
    stacked_model,
)

VERSIONS = os.environ.get("HCCS_RUNTIME_VERSIONS", "1.17.3,1.18.1,1.22.1").split(",")
TOO_OLD = "1.16.3"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every form with what the reference computes for them."""
    folder = tmp_path_factory.mktemp("recorded")

    def record(name: str, model: bytes, x: np.ndarray, y: np.ndarray) -> None:
        (folder / f"{name}.onnx").write_bytes(model)
        np.savez(folder / f"{name}.npz", x=x, y=y)

    shape = (2, 4, 5, 45)
    shapes = {"static": shape, "dynamic": ("b", 4, "q", "k"), "unknown": None}
    for output in OUTPUTS:
        x = logits(output, shape)
        for reciprocal in RECIPROCALS:
            for masked in (0, 1):
                attributes = {**TWO_HEADS, "reciprocal": reciprocal, "masked": masked}
                if output == "int16":
                    attributes.update(B=[300, 700], S=[2, 20])
                y = expected(output, x, **attributes)
                for rank, declared in shapes.items():
                    name = f"{output}-{reciprocal}-{masked}-{rank}"
                    record(name, one_node_model(output, declared, **attributes), x, y)
                    record(f"{name}-chained", chained_model(output, declared, **attributes), x, y.astype(np.float32))
        empty = np.zeros((0, 4, 5, 45), DTYPES[output][0])
        record(f"{output}-empty", one_node_model(output, None, **TWO_HEADS), empty, empty.astype(DTYPES[output][1]))
        large = logits(output, (2, 4, 200, 300))
        record(
            f"{output}-large", one_node_model(output, None, **TWO_HEADS), large, expected(output, large, **TWO_HEADS)
        )
    x = y = logits("float", shape)
    for scale in (0.1, 0.001):
        y = expected("float", y, **{**TWO_HEADS, "scale": [scale]})
    record("stacked", stacked_model([0.1, 0.001]), x, y)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the environments."""
    kept = os.environ.get("HCCS_RUNTIME_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("runtimes")


def environment(version: str, cache: Path) -> Path:
    """Python of an environment with this onnxruntime; skips where it cannot be had."""
    folder = cache / version
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        numpy = "numpy<2" if tuple(map(int, version.split("."))) < (1, 19) else "numpy"
        command = [python, "-m", "pip", "install", "--quiet", "--retries", "1", f"onnxruntime=={version}", numpy]
        installed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if installed.returncode:
            shutil.rmtree(folder)
            pytest.skip(f"cannot install onnxruntime {version}: {installed.stdout.strip().splitlines()[-1]}")
        (folder / "ready").touch()
    return python


def run(python: str | Path, library: str, folder: Path) -> dict[str, Any]:
    command = [str(python), run_recorded.__file__, library, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return said


def assert_all_equal(result: dict[str, Any], version: str, recorded: Path) -> None:
    assert result["version"] == version
    assert result["refused"] is None
    assert result["different"] == []
    assert result["equal"] == len(list(recorded.glob("*.onnx")))


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_library_runs_every_form_when_onnxruntime_is(version: str, library: str, recorded: Path, cache: Path) -> None:
    assert_all_equal(run(environment(version, cache), library, recorded), version, recorded)


def test_library_runs_every_form_when_onnxruntime_is_this_one(library: str, recorded: Path) -> None:
    assert_all_equal(run(sys.executable, library, recorded), onnxruntime.__version__, recorded)


@pytest.mark.slow
def test_library_says_what_is_missing_when_onnxruntime_is_too_old(library: str, recorded: Path, cache: Path) -> None:
    result = run(environment(TOO_OLD, cache), library, recorded)
    assert result["version"] == TOO_OLD
    assert (
        f"hccs_onnx_ops: this ONNX Runtime is too old ({TOO_OLD}, needs >= 1.17). Upgrade onnxruntime, or run the "
        "model without this library: its function body needs none."
    ) in result["refused"]
