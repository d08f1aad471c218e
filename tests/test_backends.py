"""Rewritten models give the same bits whatever runs their HCCS nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from conftest import needs_ir_version_10

from hccs_onnx import rewrite
from hccs_onnx.backends import Backend, open_session
from hccs_onnx.graph.files import read_model


def outputs(model: Path, feed: dict[str, np.ndarray], backend: Backend, optimize: bool) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = open_session(read_model(model), model, backend, options)
    return session.run(None, {value.name: feed[value.name] for value in session.get_inputs()})


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("backend", ["function", "native"])
def test_optimised_model_that_a_session_saves_runs_by_the_same_backend(
    backend: Backend, digits_model: Path, tmp_path: Path
) -> None:
    rewrite(digits_model, tmp_path / "digits.onnx")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "saved.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with np.load(digits_model.with_name("test.npz")) as data:
        feed = {name: data[name][:8] for name in data.files}
    results = [
        open_session(read_model(path), path, backend, given).run(None, feed)[0]
        for path, given in ((tmp_path / "digits.onnx", options), (tmp_path / "saved.onnx", None))
    ]
    assert len(results[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("encoder", ["minilm_l6", "minilm_l3"])
def test_encoder_gives_the_same_bits_by_function_body_and_native_library(
    request: pytest.FixtureRequest,
    encoder: str,
    optimize: bool,
    sentences: dict[str, np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if encoder == "minilm_l6":
        needs_ir_version_10()
    target = tmp_path_factory.mktemp("backends") / f"{encoder}.onnx"
    rewrite(request.getfixturevalue(encoder), target)
    by_body = outputs(target, sentences, "function", optimize)
    by_library = outputs(target, sentences, "native", optimize)
    for expected, actual in zip(by_body, by_library, strict=True):
        assert expected.dtype == actual.dtype
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(actual, expected)
