"""One binary runs on every onnxruntime from 1.17 on, and an older one says why not.

Each version gets an environment of its own, made with pip; HCCS_RUNTIME_VERSIONS names other versions than the default
ones, separated by commas. HCCS_RUNTIME_CACHE keeps the environments between runs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from native_models import DTYPES, TWO_HEADS, chained_model, expected, logits, one_node_model

pytestmark = pytest.mark.slow

VERSIONS = os.environ.get("HCCS_RUNTIME_VERSIONS", "1.17.3,1.18.1,1.22.1,1.23.2").split(",")
TOO_OLD = "1.16.3"
RUNNER = Path(__file__).with_name("run_recorded.py")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Models of every form with what the reference computes for them."""
    folder = tmp_path_factory.mktemp("recorded")
    x_shape = (2, 4, 5, 45)
    for output in DTYPES:
        x = logits(output, x_shape)
        for declared in (x_shape, ("b", 4, "q", "k"), None):
            for reciprocal in ("norm", "div", "clb"):
                for masked in (0, 1):
                    attributes = {**TWO_HEADS, "reciprocal": reciprocal, "masked": masked}
                    if output == "int16":
                        attributes["B"] = [300, 700]
                        attributes["S"] = [2, 20]
                    y = expected(output, x, **attributes)
                    rank = "unknown" if declared is None else "static" if declared is x_shape else "dynamic"
                    name = f"{output}-{reciprocal}-{masked}-{rank}"
                    (folder / f"{name}.onnx").write_bytes(one_node_model(output, declared, **attributes))
                    np.savez(folder / f"{name}.npz", x=x, y=y)
                    (folder / f"{name}-chained.onnx").write_bytes(chained_model(output, declared, **attributes))
                    np.savez(folder / f"{name}-chained.npz", x=x, y=y.astype(np.float32))
    return folder


def environment(version, cache):
    """Python of an environment with this onnxruntime."""
    folder = cache / version
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        numpy = "numpy<2" if tuple(map(int, version.split("."))) < (1, 19) else "numpy"
        command = [python, "-m", "pip", "install", "--quiet", f"onnxruntime=={version}", numpy]
        if subprocess.run(command, check=False).returncode:
            pytest.skip(f"onnxruntime {version} cannot be installed for Python {sys.version.split()[0]}")
        (folder / "ready").touch()
    return python


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    kept = os.environ.get("HCCS_RUNTIME_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("runtimes")


def run_recorded(python, library, folder):
    result = subprocess.run([python, RUNNER, library, folder], capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_form_runs_on(version, library, recorded, cache):
    result = run_recorded(environment(version, cache), library, recorded)
    assert result["version"] == version
    assert result["refused"] is None
    assert result["different"] == []
    assert result["equal"] == len(list(recorded.glob("*.onnx")))


def test_the_runtime_that_runs_these_tests_too(library, recorded):
    result = run_recorded(sys.executable, library, recorded)
    assert (result["refused"], result["different"]) == (None, [])


def test_an_older_runtime_is_told_what_it_lacks(library, recorded, cache):
    result = run_recorded(environment(TOO_OLD, cache), library, recorded)
    assert f"this ONNX Runtime is too old ({TOO_OLD}, needs >= 1.17). Upgrade onnxruntime" in result["refused"]
