"""Corrections of whole models: what changes, what it gains on data it has not seen, what is left alone and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DIGITS
from correction.models import PROJECTIONS, WIDTH, attention, constants, samples
from graph.models import Attention, build, nodes

from hccs_onnx import calibrate, rewrite, verify
from hccs_onnx.errors import DataError, HccsError
from hccs_onnx.params import OutputType
from hccs_onnx.workflow import Correction, RewriteReport

SEEN, UNSEEN = samples(40), samples(10, seed=1)
Run = Callable[..., list[np.ndarray]]


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def difference(run: Run, original: Path, other: Path) -> float:
    """Root mean square over feeds that no correction has seen."""
    errors = [run(original, feed)[0] - run(other, feed)[0] for feed in UNSEEN]
    return float(np.sqrt(np.mean(np.square(errors))))


def corrected(path: Path, method: Correction) -> RewriteReport:
    return rewrite(path, path.with_name(f"{method}.onnx"), correct=method, data=SEEN)


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("method", ["bias", "least-squares"])
def test_output_comes_closer_and_nothing_else_changes(name: str, method: Correction, tmp_path: Path, run: Run) -> None:
    path = save(attention(name), tmp_path)
    plain = rewrite(path, tmp_path / "plain.onnx").output
    report = corrected(path, method)
    (layer,) = report.corrections
    before, after = onnx.load(plain), onnx.load(report.output)
    assert [node for node in after.graph.node if node.op_type != "Constant"] == [
        node for node in before.graph.node if node.op_type != "Constant"
    ]
    changed = {key for key, value in constants(before).items() if not np.array_equal(value, constants(after)[key])}
    kinds = {key: (value.dtype, value.shape) for key, value in constants(before).items()}
    assert kinds == {key: (value.dtype, value.shape) for key, value in constants(after).items()}
    if name == "no bias" and method == "bias":
        assert layer.reason == "MatMul 'MatMul_y' has no bias of its own"
        assert not changed
        return
    assert layer.reason is None
    assert layer.after < layer.before
    weight = next(key for key in ("bytes", "codes", "w_half", "w_node", "w_t", "w") if key in kinds)
    bias = next((key for key in ("b", "b_half", "b_node") if key in kinds), weight)
    assert changed == {bias} if method == "bias" else {weight, bias}
    share = 0.95 if method == "bias" else 0.75
    assert difference(run, path, report.output) < share * difference(run, path, plain)


def test_report_promises_what_new_data_shows(tmp_path: Path, run: Run) -> None:
    path = save(attention("matmul"), tmp_path)
    (layer,) = corrected(path, "least-squares").corrections
    outputs = [run(path, feed)[0] for feed in UNSEEN]
    size = float(np.sqrt(np.mean(np.square(outputs))))
    assert layer.after == pytest.approx(difference(run, path, tmp_path / "least-squares.onnx") / size, rel=0.2)


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    path = save(attention("dequantised"), tmp_path)
    first = corrected(path, "least-squares").output.read_bytes()
    assert corrected(path, "least-squares").output.read_bytes() == first


def test_external_weights_are_corrected_inside_the_new_file(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(attention("matmul"), path, save_as_external_data=True, location="weights.bin", size_threshold=200)
    data = (tmp_path / "weights.bin").read_bytes()
    report = corrected(path, "least-squares")
    assert (tmp_path / "weights.bin").read_bytes() == data
    assert report.corrections[0].reason is None
    plain = rewrite(path, tmp_path / "plain.onnx").output
    assert difference(run, path, report.output) < 0.7 * difference(run, path, plain)


def test_correction_is_named_in_the_model(tmp_path: Path) -> None:
    path = save(attention("matmul"), tmp_path)
    for method in ("none", "bias"):
        data = SEEN if method == "bias" else None
        proto = onnx.load(rewrite(path, tmp_path / "out.onnx", correct=method, data=data).output)
        entries = {entry.key: entry.value for entry in proto.metadata_props}
        assert entries.get("hccs_onnx.correction") == (None if method == "none" else "bias")


def test_shared_weight_is_left_alone_and_the_other_layer_corrected(tmp_path: Path) -> None:
    model = attention("o = MatMul (joined, w) e = MatMul (x, w) s = Add (o, e) y = Add (s, b)")
    path = save(model, tmp_path)
    report = corrected(path, "least-squares")
    assert report.corrections[0].reason == "weight of MatMul 'MatMul_o': 'w' is shared, by 2 readers"
    assert report.corrections[0].before is None
    plain = rewrite(path, tmp_path / "plain.onnx").output
    assert onnx.load(report.output).graph == onnx.load(plain).graph


def test_layer_without_projection_is_left_alone(tmp_path: Path) -> None:
    path = save(attention("y = Relu (joined)"), tmp_path)
    (layer,) = corrected(path, "bias").corrections
    assert layer.reason == "Relu 'Relu_y' is behind the product with values, no projection"
    assert layer.projection == ""


def test_layer_is_left_alone_when_its_held_out_error_does_not_fall(tmp_path: Path) -> None:
    path = save(attention("matmul"), tmp_path)
    rng = np.random.default_rng(2)  # two samples far from each other: what helps on one harms on the other
    data = [{"x": (sign * 4 + rng.normal(size=(1, 6, WIDTH))).astype(np.float32)} for sign in (-1, 1)]
    report = rewrite(path, tmp_path / "out.onnx", correct="bias", data=data)
    (layer,) = report.corrections
    assert layer.reason == "no correction lowers the error on samples held out"
    assert layer.before == layer.after > 0
    plain = rewrite(path, tmp_path / "plain.onnx").output
    assert onnx.load(report.output).graph == onnx.load(plain).graph


def test_attention_in_a_body_is_left_alone(tmp_path: Path) -> None:
    inner = attention("matmul")
    body = onnx.helper.make_graph(
        inner.graph.node, "then", [], [onnx.helper.make_tensor_value_info("y", 1, None)], inner.graph.initializer
    )
    model = build(f"g (float[b, 6, {WIDTH}] x, bool c) => (float[b, 6, {WIDTH}] z) {{ z = Identity (x) }}")
    other = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["same"])], "else", [],
        [onnx.helper.make_tensor_value_info("same", 1, None)],
    )  # fmt: skip
    model.graph.node[0].CopyFrom(
        onnx.helper.make_node("If", ["c"], ["z"], name="choose", then_branch=body, else_branch=other)
    )
    path = save(model, tmp_path)
    data = [{**feed, "c": np.array(True)} for feed in SEEN[:4]]
    (layer,) = rewrite(path, tmp_path / "out.onnx", correct="bias", data=data).corrections
    assert layer.reason == "lies in a body, of which nothing can be observed"


def masked_feed(seed: int, batch: int, padding: float = 0.0, length: int = 5) -> dict[str, np.ndarray]:
    """Samples of 2 to 4 tokens, behind which is noise."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(length) < 2 + (np.arange(batch) + seed)[:, None] % 3).astype(np.int64)
    x, noise = rng.normal(size=(2, batch, length, 8))
    return {"x": np.where(mask[..., None] == 1, x, padding * noise).astype(np.float32), "mask": mask}


def masked_weight(folder: Path, feeds: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The corrected output projection of self-attention with a mask."""
    path = save(Attention(mask="computed", heads=2, size=4).model(), folder)
    report = rewrite(path, folder / "out.onnx", correct="least-squares", data=feeds)
    assert report.corrections[0].reason is None
    result = constants(onnx.load(report.output))["w_out"]
    assert not np.array_equal(result, constants(onnx.load(path))["w_out"])
    return result


@pytest.mark.parametrize("batch", [1, 2, 5])  # 5: as many samples as tokens
def test_padding_does_not_count(batch: int, tmp_path: Path) -> None:
    expected, other = (
        masked_weight(tmp_path, [masked_feed(seed, batch, padding) for seed in range(12)]) for padding in (0.0, 3.0)
    )
    np.testing.assert_allclose(other, expected, atol=1e-5)


def test_sample_that_is_all_padding_does_not_count(tmp_path: Path) -> None:
    feeds = [masked_feed(seed, 3) for seed in range(12)]
    padded = [{name: value.copy() for name, value in feed.items()} for feed in feeds]
    for feed in padded:
        feed["mask"][1] = 0
    shorter = [{name: np.delete(value, 1, axis=0) for name, value in feed.items()} for feed in feeds]
    np.testing.assert_allclose(masked_weight(tmp_path, padded), masked_weight(tmp_path, shorter), atol=1e-5)


@pytest.mark.parametrize(
    ("exporter", "to", "method"),
    [
        ("dynamo", "float", "bias"),
        ("torchscript", "float", "least-squares"),
        ("torchscript", "uint8", "bias"),
        ("dynamo", "uint8", "least-squares"),
    ],
)
def test_digits_come_closer_on_images_not_seen(
    exporter: str, to: OutputType, method: Correction, tmp_path: Path
) -> None:
    digits_model = DIGITS / f"digits_{exporter}.onnx"
    calibration = calibrate(digits_model, DIGITS / "calibration.npz", to=to)
    plain = rewrite(digits_model, tmp_path / "plain.onnx", calibration=calibration)
    data = DIGITS / "calibration.npz"
    report = rewrite(digits_model, tmp_path / "out.onnx", calibration=calibration, correct=method, data=data)
    assert [layer.reason for layer in report.corrections] == [None, None]
    assert all(layer.after < layer.before for layer in report.corrections)
    assert plain.corrections == ()
    with np.load(DIGITS / "test.npz") as arrays:
        feeds = [{"pixels": arrays["pixels"]}]
    labels = np.load(DIGITS / "test_labels.npy")
    one, other = (verify(digits_model, it.output, feeds, backend="function").outputs[0] for it in (plain, report))
    assert other.mean_difference < (0.95 if method == "bias" else 0.85) * one.mean_difference
    assert other.mean_cosine > one.mean_cosine
    import onnxruntime

    scores = onnxruntime.InferenceSession(str(report.output)).run(None, feeds[0])[0]
    least = {"bias": 0.975, "least-squares": 0.98}[method]  # measured 0.980 to 0.982, 0.984 to 0.987; float 0.987
    assert np.mean(scores.argmax(axis=1) == labels) >= least
    assert len(nodes(onnx.load(report.output), "HCCS")) == 2


def test_data_is_needed(tmp_path: Path) -> None:
    path = save(attention("matmul"), tmp_path)
    with pytest.raises(HccsError, match=r"^correct: needs samples \(bias\)\. Give data as well\.$"):
        rewrite(path, correct="bias")
    with pytest.raises(HccsError, match=r"^data: means nothing without a correction\. "):
        rewrite(path, data=SEEN)
    with pytest.raises(HccsError, match=r"^correct: unknown \(magic, needs one of none, bias, least-squares\)\.$"):
        rewrite(path, correct="magic", data=SEEN)
    assert list(tmp_path.iterdir()) == [path]


def test_data_that_can_be_read_once_is_refused(tmp_path: Path) -> None:
    path = save(attention("matmul"), tmp_path)
    with pytest.raises(DataError, match="can be gone through only once"):
        rewrite(path, correct="bias", data=iter(SEEN))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("count", [1, 0])
def test_too_little_data_is_refused(count: int, tmp_path: Path) -> None:
    path = save(attention("matmul"), tmp_path)
    with pytest.raises(DataError, match=r"holds no samples|leaves nothing to judge a correction on"):
        rewrite(path, correct="bias", data=SEEN[:count])
    assert list(tmp_path.iterdir()) == [path]


def test_data_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = save(attention("matmul"), tmp_path)
    with pytest.raises(DataError, match="wrong shape"):
        rewrite(path, correct="bias", data=[{"x": np.zeros((1, 6, 3), np.float32)}] * 4)
