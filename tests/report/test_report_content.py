"""What a report tells is what models, data and calibration say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import DIGITS, needs_ir_version_10

from hccs_onnx import calibrate, hccs, rewrite, verify
from hccs_onnx.calibration.fit import HeadFit
from hccs_onnx.calibration.granularity import fit_floats
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.errors import DataError
from hccs_onnx.params import DATA_FREE
from hccs_onnx.report.accuracy import read_labels
from hccs_onnx.report.attention_maps import telling_heads
from hccs_onnx.report.content import Gaps, Head, Measured
from hccs_onnx.report.gaps import WIDTH, gaps_of, reach_of, sharing
from hccs_onnx.report.gather import Request, gather
from hccs_onnx.report.small_plots import head_plot

from .conftest import MODEL, SAMPLES, Made


def sketched(logits: np.ndarray, heads: int) -> Sketch:
    sketch = Sketch.empty(heads)
    sketch.add(logits, masked=False, self_attention=False)
    return sketch


def outputs_of(model: Path, feed: dict[str, np.ndarray], *names: str) -> list[np.ndarray]:
    proto = onnx.load(model)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, feed)


def test_histogram_and_spread_are_those_of_the_rows() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (3, 2, 20, 30))
    found = gaps_of(sketched(logits, 2), clips=[2.0, 3.3], reach=5.0)
    for head, clip in enumerate((2.0, 3.3)):
        rows = logits[:, head].reshape(-1, 30)
        gap = rows.max(axis=1, keepdims=True) - rows
        p = np.exp(-gap) / np.exp(-gap).sum(axis=1, keepdims=True)
        shares = [p[(gap >= WIDTH * k - 1 / 512) & (gap < WIDTH * (k + 1) - 1 / 512)].sum() / 60 for k in range(10)]
        np.testing.assert_allclose(found[head].shares, shares, atol=2e-6)
        assert found[head].top == pytest.approx(p.max(axis=1).mean(), abs=2e-3)
        assert found[head].beyond == pytest.approx(p[np.rint(gap * 256) >= clip * 256].sum() / 60, abs=2e-6)
        entropy = -(p * np.log(p)).sum(axis=1).mean()
        assert found[head].effective_keys == pytest.approx(np.exp(entropy), rel=1e-6)
        assert found[head].keys == pytest.approx(30)


@pytest.mark.parametrize(("row", "breadth"), [(np.zeros(8), 1.0), (np.array([40.0] + [0.0] * 7), 0.0)])
def test_breadth_is_1_for_even_and_0_for_single_minded_rows(row: np.ndarray, breadth: float) -> None:
    (gaps,) = gaps_of(sketched(np.tile(row, (1, 1, 4, 1)), 1), clips=[3.0], reach=4.0)
    assert gaps.breadth == pytest.approx(breadth, abs=1e-6)


def test_sharing_gives_the_kl_of_every_granularity() -> None:
    random = np.random.default_rng(2)
    sketches = [sketched(random.normal(0, width, (2, 2, 40, 40)), 2) for width in (0.5, 3.0)]
    found = sharing(sketches)
    assert [item.sets for item in found] == [4, 2, 1, 1]
    expected = [fit.kl for layer in fit_floats(sketches, "layer") for fit in layer]
    assert list(found[1].kl) == expected
    own, layer, all_in_one, _ = (item.mean for item in found)
    assert own <= layer + 1e-9
    assert layer < all_in_one


def test_plots_reach_beyond_every_clip_range() -> None:
    fits = [HeadFit(replace(DATA_FREE, scale=clip / 127), 0.1, 0.0) for clip in (0.5, 5.0, 60.0)]
    assert [reach_of(fits[:count]) for count in (1, 2, 3)] == [4.0, 8.0, 16.0]


def test_coarse_codes_are_drawn_as_steps_and_fine_ones_as_a_line() -> None:
    coarse = replace(DATA_FREE, B=100, S=30, Dmax=3, scale=1.0)
    plot = head_plot(Head(0, 0, "n", HeadFit(coarse, 0.1, 0.0), masked=False), 4.0)
    assert plot.line == "M5.0 5.0 H26.2 V27.5 H68.8 V50.0 H111.2 V72.5 H175.0"
    assert head_plot(Head(0, 0, "n", HeadFit(DATA_FREE, 0.1, 0.0), masked=False), 4.0).line.count(" V") == 0


def head(index: int, kl: float, keys: float) -> Head:
    gaps = Gaps((1.0,), WIDTH, 0.5, 0.0, keys, 16.0)
    return Head(0, index, "n", HeadFit(DATA_FREE, 9.0, 0.0), True, Measured(kl, 0.0), gaps)


def test_telling_heads_are_best_median_worst_and_the_extremes_of_breadth() -> None:
    heads = [head(0, 0.3, 8.0), head(1, 0.1, 2.0), head(2, 0.2, 4.0), head(3, 0.25, 16.0), head(4, 0.15, 3.0)]
    roles = [(item.index, names) for item, names in telling_heads(heads)]
    assert roles == [(1, ("best", "most focused")), (2, ("median",)), (3, ("broadest",)), (0, ("worst",))]


def test_telling_heads_leave_out_what_was_not_measured_or_is_infinite() -> None:
    heads = [head(0, float("inf"), 8.0), replace(head(1, 0.1, 2.0), measured=None), head(2, 0.2, 4.0)]
    assert [item.index for item, _ in telling_heads(heads)] == [2]


def test_maps_are_the_probabilities_of_both_models(tmp_path: Path) -> None:
    with np.load(DIGITS / "test.npz") as arrays:
        feeds = [{"pixels": image[None]} for image in arrays["pixels"][:4]]
    calibration = calibrate(MODEL, feeds)
    content = gather(MODEL, calibration, Request(feeds, sample=2))
    assert {role for item in content.maps for role in item.roles} == {
        "best", "median", "worst", "most focused", "broadest",
    }  # fmt: skip
    first = calibration.softmaxes[0]
    shown = [item for item in content.maps if item.head.layer == 0]
    assert shown
    (logits,) = outputs_of(MODEL, feeds[2], first.logits)
    for item in shown:
        params = item.head.fit.params
        rows = logits[0, item.head.index]
        softmax = np.exp(rows - rows.max(axis=-1, keepdims=True))
        np.testing.assert_allclose(item.original, softmax / softmax.sum(axis=-1, keepdims=True), atol=1e-6)
        expected = hccs(rows, np.float32, B=[params.B], S=[params.S], Dmax=[params.Dmax], scale=[params.scale])
        np.testing.assert_allclose(item.rewritten, expected, atol=1e-6)


def test_measured_heads_are_those_of_verify(made: Made, tmp_path: Path) -> None:
    output = rewrite(MODEL, tmp_path / "r.onnx", calibration=made.calibration).output
    expected = verify(MODEL, output, made.folder / "test.npz", backend=made.content.result.backend)
    assert made.content.result == expected
    assert [(item.measured.kl, item.measured.deficit) for item in made.content.heads] == [
        (item.kl, item.deficit) for item in expected.heads
    ]


def test_accuracy_is_that_of_both_models(made: Made, tmp_path: Path) -> None:
    output = rewrite(MODEL, tmp_path / "r.onnx", calibration=made.calibration).output
    labels = np.load(made.folder / "labels.npy")
    with np.load(made.folder / "test.npz") as arrays:
        right = [outputs_of(model, dict(arrays))[0].argmax(axis=1) == labels for model in (MODEL, output)]
    accuracy = made.content.accuracy
    assert accuracy.samples == SAMPLES
    assert (accuracy.original, accuracy.rewritten) == (right[0].mean(), right[1].mean())
    assert accuracy.only_original == np.count_nonzero(right[0] & ~right[1])


def test_a_given_model_tells_what_was_rewritten(tmp_path: Path, made: Made) -> None:
    node = made.calibration.softmaxes[1].node
    rewritten = rewrite(MODEL, tmp_path / "r.onnx", calibration=made.calibration, exclude=node).output
    content = gather(MODEL, made.calibration, Request(made.folder / "test.npz", rewritten=rewritten))
    assert [item.reason for item in content.found] == [None, "could be rewritten, but was left out when the model was"]
    assert [item.measured is None for item in content.heads] == [False] * 4 + [True] * 4
    assert all(item.gaps is not None for item in content.heads)


def test_without_data_nothing_is_run(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "InferenceSession", None)
    content = gather(MODEL, made.calibration, Request())
    assert content.result is None
    assert content.maps == content.sharing == ()
    assert [item.kl for item in content.heads] == [fit.kl for each in made.calibration.softmaxes for fit in each.heads]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (np.zeros((2, 2), np.int64), "holds no labels (int64 [2, 2], needs integers of shape [samples])"),
        (np.zeros(3), "holds no labels (float64 [3], needs integers of shape [samples])"),
        (np.array([{}]), "is not an .npy file"),
    ],
)
def test_labels_of_another_kind_are_refused(tmp_path: Path, content: np.ndarray, problem: str) -> None:
    np.save(tmp_path / "l.npy", content, allow_pickle=True)
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / "l.npy")
    assert problem in str(caught.value)


@pytest.mark.slow
def test_padding_is_left_out_of_the_maps_of_a_real_encoder(minilm_l6: Path, sentences: dict[str, np.ndarray]) -> None:
    needs_ir_version_10()
    feeds = [{name: value[index : index + 1] for name, value in sentences.items()} for index in (0, 3, 4)]
    content = gather(minilm_l6, calibrate(minilm_l6, feeds), Request(feeds, sample=1))
    length = int(feeds[1]["attention_mask"].sum())
    assert length < 32
    assert len(content.heads) == 72
    for item in content.maps:
        assert item.original.shape == item.rewritten.shape == (length, length)
        np.testing.assert_allclose(item.original.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(item.rewritten.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("case", ["If", "Loop"])
def test_attention_in_bodies_is_reported_without_maps(tmp_path: Path, case: str) -> None:
    from graph import test_bodies as bodies

    path = tmp_path / "bodies.onnx"
    onnx.save(bodies.model(case), path)
    feeds = [bodies.feed(case, seed, flag=seed % 2 == 0) for seed in range(4)]
    content = gather(path, calibrate(path, feeds), Request(feeds))
    assert content.rewritten == len(content.found) == bodies.COUNT[case]
    assert all(case in item.node for item in content.found)
    assert all(item.measured is not None for item in content.heads)
    assert all(item.gaps is not None for item in content.heads)
    assert content.result.outputs[0].mean_cosine > 0.9
    assert content.maps == ()
    if case == "If":  # attention that this data does not reach
        reached = gather(path, calibrate(path, feeds), Request(feeds[:1]))
        assert sorted(item.gaps is None for item in reached.heads) == [False, False, True, True]


@pytest.mark.parametrize("name", ["Attention", "QAttention"])
def test_fused_operators_are_reported_like_others(tmp_path: Path, name: str) -> None:
    from graph.fused import test_runtime_road as road

    case = road.CASES[name]
    path = tmp_path / "fused.onnx"
    onnx.save(case.model(), path)
    feeds = road.feeds(case)
    content = gather(path, calibrate(path, feeds, to="uint8"), Request(feeds))
    assert content.rewritten == len(content.found) == 1
    assert len(content.heads) == case.attributes["num_heads"]
    assert all(item.measured is not None and item.gaps is not None for item in content.heads)
    assert content.maps
