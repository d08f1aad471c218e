"""Real encoders: all attention found, nothing else, and the data-free rewrite runs on stock onnxruntime."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import DATA, DIGITS
from graph.models import names, nodes, op_types, tapped

from hccs_onnx import reference, workflow
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.sessions import create_session
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.params import DATA_FREE

Feed = dict[str, np.ndarray]


@cache
def samples(path: Path) -> Feed:
    with np.load(path) as data:
        return dict(data)


class Real:
    """A real model, its rewritten copy, sessions of both, and its inputs."""

    def __init__(self, name: str, path: Path, folder: Path) -> None:
        self.name, self.path = name, path
        self.report = workflow.rewrite(path, folder / f"{name}.onnx")
        self.original, self.result = read_model(path), read_model(self.report.output)
        self._sessions: dict[tuple[bool, bool], ort.InferenceSession] = {}

    def feed(self, batch: int, length: int = 0) -> Feed:
        """Real inputs; images have no length."""
        if self.name.startswith("digits"):
            return {"pixels": samples(DIGITS / "test.npz")["pixels"][:batch]}
        feed = {name: value[:batch, :length].copy() for name, value in samples(DATA / "sentences.npz").items()}
        return {name: feed[name] for name in names(self.original.graph.input)}

    def run(self, feed: Feed, *, rewritten: bool, optimize: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The main output, and logits and probabilities of the first attention."""
        first = self.report.found[0]
        if self.original.ir_version > 9 and tuple(map(int, ort.__version__.split(".")[:2])) < (1, 18):
            pytest.skip("this onnxruntime is older than the model's IR version")
        if (rewritten, optimize) not in self._sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            if not optimize:
                options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            if rewritten:
                node = nodes(self.result, "HCCS")[0]
                model = tapped(self.result, node.input[0], node.output[0])
            else:
                model = tapped(self.original, first.logits, first.probabilities)
            self._sessions[rewritten, optimize] = create_session(model.SerializeToString(), self.path, options)
        *outputs, logits, probabilities = self._sessions[rewritten, optimize].run(None, feed)
        main = [output for output in outputs if output.dtype == np.float32]
        return main[0], logits, probabilities


REAL = ("l6", "l3", "digits_torchscript", "digits_dynamo")


@pytest.fixture(scope="module")
def reals() -> dict[str, Real]:
    """Those that a test has asked for."""
    return {}


def real_model(name: str, reals: dict[str, Real], request: pytest.FixtureRequest) -> Real:
    if name not in reals:
        path = DIGITS / f"{name}.onnx" if name.startswith("digits") else request.getfixturevalue(f"minilm_{name}")
        reals[name] = Real(name, path, request.getfixturevalue("tmp_path_factory").mktemp(name))
    return reals[name]


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest, reals: dict[str, Real]) -> Real:
    """Each of the real models."""
    return real_model(request.param, reals, request)


@pytest.fixture(params=["l6", "l3"])
def encoder(request: pytest.FixtureRequest, reals: dict[str, Real]) -> Real:
    """Either MiniLM."""
    return real_model(request.param, reals, request)


@pytest.fixture(params=["digits_torchscript", "digits_dynamo"])
def digits(request: pytest.FixtureRequest, reals: dict[str, Real]) -> Real:
    """The bundled classifier, from either exporter."""
    return real_model(request.param, reals, request)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.sum(a * b, axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return result


# finding


def test_inspect_finds_every_attention_and_nothing_else(real: Real) -> None:
    layers, heads, masked = {"l6": (6, 12, True), "l3": (3, 12, True)}.get(real.name, (2, 4, False))
    found = workflow.inspect(real.path)
    assert len(found) == layers == op_types(real.original).count("Softmax")
    assert {(item.reason, item.heads, item.head_axis, item.masked, item.self_attention) for item in found} == {
        (None, heads, -3, masked, True)
    }
    assert [real.original.graph.node[item.index].name for item in found] == [item.node for item in found]
    assert len({item.node for item in found}) == layers


def test_guards_are_found_where_the_exporter_writes_them(real: Real) -> None:
    guarded = "IsNaN" in op_types(real.original)
    assert guarded == (real.name in ("l6",))
    assert [item.guard is not None for item in real.report.found] == [guarded] * len(real.report.found)
    assert "IsNaN" not in op_types(real.result)


def test_the_whole_scale_of_every_attention_is_absorbed(real: Real) -> None:
    size = {"l6": 32, "l3": 32}.get(real.name, 8)
    np.testing.assert_allclose([item.factor for item in real.report.found], size**-0.5, rtol=1e-6)


# rewriting


@pytest.mark.parametrize(("batch", "length"), [(1, 7), (3, 32)])
def test_rewritten_encoder_runs_with_any_batch_and_length(encoder: Real, batch: int, length: int) -> None:
    feed = encoder.feed(batch, length)
    before, after = (encoder.run(feed, rewritten=rewritten)[0] for rewritten in (False, True))
    assert after.dtype == np.float32
    assert after.shape == before.shape == (batch, length, 384)
    assert cosine(before, after)[feed["attention_mask"] == 1].mean() > 0.9


def test_rewritten_encoder_ignores_padding(encoder: Real) -> None:
    feed = encoder.feed(2, 16)
    feed["attention_mask"][:] = 1
    padded = {name: np.pad(value, ((0, 0), (0, 9)), constant_values=77) for name, value in feed.items()}
    for name in set(padded) - {"input_ids"}:
        padded[name][:, 16:] = 0
    alone, beside_padding = (encoder.run(inputs, rewritten=True) for inputs in (feed, padded))
    assert np.all(beside_padding[2][..., 16:] == 0)
    seen = beside_padding[2][..., :16, :16]
    np.testing.assert_array_equal(seen > 0, alone[2] > 0)  # gaps above 64 nats occur in earnest
    assert (seen > 0).mean() > 0.99
    assert cosine(alone[0], beside_padding[0][:, :16]).min() > 0.999


def test_rewritten_model_gives_the_same_at_any_optimization_level(real: Real) -> None:
    feed = real.feed(4, 9)
    plain, optimized = (real.run(feed, rewritten=True, optimize=optimize) for optimize in (False, True))
    for one, other in zip(plain, optimized, strict=True):
        # Sums in another order may round a gap to the next code, rarely.
        assert np.isclose(one, other, rtol=1e-5, atol=1e-5).mean() > 0.95
        np.testing.assert_allclose(one, other, rtol=0.01, atol=0.02)


def test_rewritten_classifier_agrees_with_the_original(digits: Real) -> None:
    feed = digits.feed(200)
    before, after = (digits.run(feed, rewritten=rewritten)[0] for rewritten in (False, True))
    assert after.shape == before.shape == (200, 10)
    assert (before.argmax(axis=-1) == after.argmax(axis=-1)).mean() > 0.9
    assert not np.array_equal(before, after)


def test_probabilities_of_the_first_layer_equal_the_reference(real: Real) -> None:
    feed = real.feed(3, 32)
    logits = real.run(feed, rewritten=False)[1]
    probabilities = real.run(feed, rewritten=True)[2]
    head = DATA_FREE
    expected = reference.hccs(
        logits, np.float32, B=[head.B], S=[head.S], Dmax=[head.Dmax], scale=[head.scale],
        masked=real.report.found[0].masked,
    )  # fmt: skip
    # The scale is absorbed, so a gap may be rounded to the next code, rarely.
    assert np.isclose(probabilities, expected, rtol=0, atol=1e-6).mean() > 0.98
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=2 * head.S / head.B)
    np.testing.assert_array_equal(probabilities == 0, expected == 0)
    assert (probabilities == 0).any() == real.report.found[0].masked


def test_rewritten_model_is_valid(real: Real) -> None:
    onnx.checker.check_model(real.result, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(real.result, check_type=True, strict_mode=True)
    types: dict[str, Any] = {value.name: value.type.tensor_type for value in inferred.graph.value_info}
    for node in nodes(real.result, "HCCS"):
        assert types[node.output[0]].elem_type == onnx.TensorProto.FLOAT
        assert len(types[node.output[0]].shape.dim) == 4


def test_rewritten_model_keeps_all_but_what_it_replaces(real: Real) -> None:
    before, after = real.original.graph, real.result.graph
    dropped = {
        before.node[index].name
        for item in real.report.rewritten
        for index in (*(step.node for step in item.scales), *(item.guard.nodes if item.guard else ()))
    }
    assert len(dropped) >= len(real.report.rewritten)
    constants = {"Constant", "Identity", "Cast"}  # may die with a scale
    kept = [node.name for node in before.node if node.name not in dropped and node.op_type not in constants]
    assert [node.name for node in after.node if node.op_type not in constants] == kept
    assert "Softmax" not in op_types(real.result)
    assert [read_attributes(node).masked for node in nodes(real.result, "HCCS")] == [
        item.masked for item in real.report.rewritten
    ]
    for field in ("input", "output"):
        assert list(getattr(after, field)) == list(getattr(before, field))
    weights = {tensor.name: tensor for tensor in before.initializer}
    for tensor in after.initializer:
        assert tensor.name == "hccs_y_zero_point" or tensor == weights[tensor.name]


def test_rewritten_model_has_the_same_bytes_every_time(real: Real, tmp_path: Path) -> None:
    again = workflow.rewrite(real.path, tmp_path / "again.onnx").output
    assert again.read_bytes() == real.report.output.read_bytes()
