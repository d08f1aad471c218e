"""Real encoders and sentences, end to end: calibrate on some, rewrite, verify on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_ir_version_10

from hccs_onnx import Bounds, Calibration, calibrate, rewrite, verify

Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Road:
    """A real model, rewritten without data and calibrated on half of the sentences."""

    model: Path
    calibration: Calibration
    data_free: Path
    calibrated: Path
    seen: list[Feed]
    unseen: list[Feed]


LAYERS = {"minilm_l3": 3, "minilm_l6": 6}
LEAST_COSINE = {"minilm_l3": (0.985, 0.965), "minilm_l6": (0.965, 0.92)}  # mean and worst; measured 0.993 and 0.980


def cropped(feeds: list[Feed]) -> list[Feed]:
    """The same sentences without padding."""
    lengths = [int(feed["attention_mask"].sum()) for feed in feeds]
    return [{k: v[:, :length] for k, v in feed.items()} for feed, length in zip(feeds, lengths, strict=True)]


@pytest.fixture(scope="module", params=["minilm_l3", "minilm_l6"])
def road(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sentences: dict[str, np.ndarray]
) -> Road:
    model = request.getfixturevalue(request.param)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    if request.param == "minilm_l6":
        needs_ir_version_10()
    else:
        names.pop()
    feeds = [{name: sentences[name][i : i + 1] for name in names} for i in range(16)]
    folder = tmp_path_factory.mktemp(request.param)
    calibration = calibrate(model, feeds[::2])
    return Road(
        model=model,
        calibration=calibration,
        data_free=rewrite(model, folder / "data_free.onnx").output,
        calibrated=rewrite(model, folder / "calibrated.onnx", calibration=calibration).output,
        seen=feeds[::2],
        unseen=feeds[1::2],
    )


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["road"])


def test_encoder_is_calibrated_on_the_rows_of_its_sentences_and_no_padding(road: Road, name: str) -> None:
    length = sum(int(feed["attention_mask"].sum()) for feed in road.seen)
    assert road.calibration.rows == LAYERS[name] * 12 * length
    assert [len(softmax.heads) for softmax in road.calibration.softmaxes] == [12] * LAYERS[name]
    assert all(softmax.masked for softmax in road.calibration.softmaxes)
    assert {softmax.longest for softmax in road.calibration.softmaxes} == {32}


def test_encoder_gets_the_same_parameters_when_sentences_are_not_padded(road: Road) -> None:
    bare = calibrate(road.model, cropped(road.seen))
    assert bare.rows == road.calibration.rows
    for padded, short in zip(road.calibration.softmaxes, bare.softmaxes, strict=True):
        np.testing.assert_allclose([f.kl for f in padded.heads], [f.kl for f in short.heads], atol=1e-4)
        ranges = [[fit.params.clip_range for fit in softmax.heads] for softmax in (padded, short)]
        np.testing.assert_allclose(*ranges, rtol=0.01)


def test_encoder_stays_close_on_sentences_it_was_not_calibrated_on(road: Road, name: str) -> None:
    mean, worst = LEAST_COSINE[name]
    result = verify(
        road.model, road.calibrated, cropped(road.unseen), bounds=Bounds(min_cosine=mean, min_worst_cosine=worst)
    )
    assert result.failures == ()
    assert result.samples == 8
    assert all(abs(head.deficit) < 1e-6 for head in result.heads)


def test_encoder_is_closer_when_calibrated_than_data_free(road: Road) -> None:
    data_free, calibrated = (
        verify(road.model, model, cropped(road.unseen)) for model in (road.data_free, road.calibrated)
    )
    mean = [np.mean([head.kl for head in result.heads]) for result in (data_free, calibrated)]
    assert mean[1] < 0.8 * mean[0]
    assert calibrated.outputs[0].mean_cosine > data_free.outputs[0].mean_cosine
    assert data_free.outputs[0].mean_cosine > 0.95


def test_encoder_has_the_kl_that_its_calibration_promised(road: Road) -> None:
    result = verify(road.model, road.calibrated, cropped(road.seen))
    promised = [fit.kl for softmax in road.calibration.softmaxes for fit in softmax.heads]
    measured = [head.kl for head in result.heads]
    np.testing.assert_allclose(measured[:12], promised[:12], rtol=0.02, atol=1e-4)  # nothing below changed
    assert np.mean(measured) == pytest.approx(np.mean(promised), rel=0.15)


def test_encoder_has_the_same_head_kl_when_sentences_are_not_padded(road: Road) -> None:
    padded = [head.kl for head in verify(road.model, road.calibrated, road.unseen).heads]
    short = [head.kl for head in verify(road.model, road.calibrated, cropped(road.unseen)).heads]
    np.testing.assert_allclose(padded, short, rtol=0.02, atol=1e-3)  # int8 weights: ranges change with the padding


def test_encoder_gives_the_same_outputs_on_both_backends(road: Road, run: Callable[..., list[np.ndarray]]) -> None:
    batch = {name: np.concatenate([feed[name] for feed in road.unseen[:3]])[:, :24] for name in road.unseen[0]}
    function, python = (run(road.calibrated, batch, backend) for backend in ("function", "python"))
    for one, other in zip(function, python, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_encoder_runs_at_any_batch_and_length_when_rewritten(
    road: Road, run: Callable[..., list[np.ndarray]], sentences: dict[str, np.ndarray]
) -> None:
    for batch, length in ((1, 1), (5, 17)):
        feed = {name: sentences[name][:batch, :length] for name in road.unseen[0]}
        original, rewritten = run(road.model, feed), run(road.calibrated, feed)
        assert [output.shape for output in rewritten] == [output.shape for output in original]
        assert (batch, length, 384) in [output.shape for output in rewritten]
        assert all(np.isfinite(output).all() for output in rewritten)
