"""A C program, without Python, runs models on the library through ONNX Runtime's C API."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from native.models import TWO_HEADS, expected, logits, one_node_model

SHAPE = (2, 4, 5, 45)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    program = tmp_path_factory.mktemp("client") / "c_client"
    source = Path(__file__).with_name("c_client.c")
    subprocess.run([compiler, "-std=c99", "-Wall", "-Werror", str(source), "-o", str(program), "-ldl"], check=True)
    return program


@pytest.fixture(scope="module")
def runtime() -> str:
    """ONNX Runtime's shared library, which newer Python packages of it hold."""
    found = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if not found:
        pytest.skip("this onnxruntime package has no libonnxruntime")
    return str(found[0])


def run(client: Path, runtime: str, library: str, model: bytes, folder: Path) -> subprocess.CompletedProcess[bytes]:
    (folder / "model.onnx").write_bytes(model)
    command = [str(client), runtime, library, str(folder / "model.onnx"), *map(str, SHAPE)]
    return subprocess.run(command, input=logits("float", SHAPE).tobytes(), capture_output=True, check=False)


def test_c_program_gets_the_definitions_results(client: Path, runtime: str, library: str, tmp_path: Path) -> None:
    attributes = {**TWO_HEADS, "masked": 1}
    done = run(client, runtime, library, one_node_model("float", SHAPE, **attributes), tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    y = np.frombuffer(done.stdout, np.float32).reshape(SHAPE)
    np.testing.assert_array_equal(y, expected("float", logits("float", SHAPE), **attributes))


def test_c_program_is_told_of_an_illegal_node(client: Path, runtime: str, library: str, tmp_path: Path) -> None:
    model = one_node_model("float", SHAPE, **{**TWO_HEADS, "S": [2, 127]})
    done = run(client, runtime, library, model, tmp_path)
    assert done.returncode == 1
    assert "node 'sm'" in done.stderr.decode()
