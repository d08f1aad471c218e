"""Calibrating a model: the same file whatever the order and cut of the data, one batch in memory, clear failures."""

from __future__ import annotations

import json
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph.models import build

from hccs_onnx import Calibration, HccsError, calibrate
from hccs_onnx.calibration.collect import with_outputs
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.demo import bundled_models
from hccs_onnx.errors import CalibrationError, DataError, ModelError
from hccs_onnx.graph.files import file_sha256
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.reference import hccs

Feed = dict[str, np.ndarray]
COUNT = 12

ATTENTION = """<ir_version: 8, opset_import: ["": 17]>
attention (float[batch,2,queries,4] q, float[batch,2,keys,4] k, float[batch,2,keys,4] v, float[batch,1,1,keys] mask)
  => (float[batch,2,queries,4] y)
{
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  product = MatMul (q, kt)
  logits = Add (product, mask)
  probabilities = Softmax <axis = -1> (logits)
  y = MatMul (probabilities, v)
}"""


@pytest.fixture
def pixels() -> np.ndarray:
    with np.load(bundled_models() / "calibration.npz") as data:
        return data["pixels"][:COUNT]


@pytest.fixture
def attention(tmp_path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(ATTENTION), tmp_path / "attention.onnx")
    return tmp_path / "attention.onnx"


def attention_feed(queries: int = 6, keys: int = 5, masked: slice = slice(0, 0)) -> Feed:
    rng = np.random.default_rng(queries)
    feed = {
        "q": rng.normal(size=(1, 2, queries, 4)),
        "k": rng.normal(size=(1, 2, keys, 4)),
        "v": rng.normal(size=(1, 2, keys, 4)),
        "mask": np.zeros((1, 1, 1, keys)),
    }
    feed["mask"][..., masked] = -1e4
    return {name: value.astype(np.float32) for name, value in feed.items()}


class Reader:
    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def as_npz(folder: Path, pixels: np.ndarray) -> Path:
    np.savez(folder / "whole.npz", pixels=pixels)
    return folder / "whole.npz"


def as_folder(folder: Path, pixels: np.ndarray) -> Path:
    (folder / "parts").mkdir()
    for number, sample in enumerate(pixels):
        np.savez_compressed(folder / "parts" / f"{number}.npz", pixels=sample[None])
    return folder / "parts"


def as_data_sets(folder: Path, pixels: np.ndarray) -> Path:
    for number, sample in enumerate(pixels):
        (folder / f"test_data_set_{number}").mkdir()
        tensor = onnx.numpy_helper.from_array(sample[None], "pixels")
        (folder / f"test_data_set_{number}" / "input_0.pb").write_bytes(tensor.SerializeToString())
    return folder


def as_feeds(_: Path, pixels: np.ndarray) -> list[Feed]:
    return [{"pixels": sample[None]} for sample in pixels]


FORMS: dict[str, Callable] = {
    "npz": as_npz,
    "folder": as_folder,
    "data_sets": as_data_sets,
    "list": as_feeds,
    "generator": lambda folder, pixels: iter(as_feeds(folder, pixels)),
    "reader": lambda folder, pixels: Reader(as_feeds(folder, pixels)),
}


@pytest.mark.parametrize("granularity", ["head", "layer", "global"])
def test_calibration_has_the_same_bytes_whatever_the_order_and_form_of_the_data(
    tmp_path: Path, pixels: np.ndarray, digits_model: Path, granularity: str
) -> None:
    def calibrated(form: str, order: np.ndarray) -> bytes:
        folder = tmp_path / form
        folder.mkdir()
        calibration = calibrate(digits_model, FORMS[form](folder, pixels[order]), granularity=granularity)
        calibration.save(tmp_path / f"{form}.json")
        return (tmp_path / f"{form}.json").read_bytes()

    rng = np.random.default_rng(0)
    files = {form: calibrated(form, rng.permutation(COUNT)) for form in FORMS}
    assert set(files.values()) == {files["npz"]}
    assert json.loads(files["npz"])["granularity"] == granularity


def test_calibration_differs_when_one_sample_does(pixels: np.ndarray, digits_model: Path) -> None:
    first = calibrate(digits_model, as_feeds(Path(), pixels))
    other = calibrate(digits_model, as_feeds(Path(), pixels[:-1]))
    assert first.data_fingerprint != other.data_fingerprint
    assert first.softmaxes != other.softmaxes


def test_calibration_says_what_it_is_of(pixels: np.ndarray, digits_model: Path) -> None:
    calibration = calibrate(digits_model, as_feeds(Path(), pixels))
    assert calibration.model_sha256 == file_sha256(digits_model)
    assert calibration.rows == COUNT * 2 * 4 * 16
    assert [softmax.longest for softmax in calibration.softmaxes] == [16, 16]
    assert [len(softmax.heads) for softmax in calibration.softmaxes] == [4, 4]
    assert not any(softmax.masked for softmax in calibration.softmaxes)
    assert (calibration.profile, calibration.output, calibration.reciprocal) == ("extended", "float", "norm")


def logits_of(model: Path, calibration: Calibration, feeds: list[Feed]) -> list[np.ndarray]:
    names = [softmax.logits for softmax in calibration.softmaxes]
    session = load_session(with_outputs(onnx.load(model), names), model)
    return [np.concatenate(parts) for parts in zip(*(session.run(names, feed) for feed in feeds), strict=True)]


def test_kl_in_the_file_equals_kl_from_all_rows(pixels: np.ndarray, digits_model: Path) -> None:
    feeds = as_feeds(Path(), pixels)
    calibration = calibrate(digits_model, feeds)
    for softmax, logits in zip(calibration.softmaxes, logits_of(digits_model, calibration, feeds), strict=True):
        heads = [fit.params for fit in softmax.heads]
        lists = {name: [getattr(head, name) for head in heads] for name in ("B", "S", "Dmax", "scale")}
        q = hccs(logits, np.float32, **lists).astype(np.float64)
        p = np.exp((logits - logits.max(-1, keepdims=True)).astype(np.float64))
        p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
        exact = (p * np.log(p / q)).sum(-1).mean(axis=(0, 2))
        for fit, kl in zip(softmax.heads, exact, strict=True):
            assert abs(fit.kl - kl) <= max(0.01 * kl, 1e-4)
            assert fit.deficit == 0.0


def test_granularity_shares_parameters_and_finer_is_closer(pixels: np.ndarray, digits_model: Path) -> None:
    feeds = as_feeds(Path(), pixels)
    by = {name: calibrate(digits_model, feeds, granularity=name) for name in ("head", "layer", "global")}
    distinct = {
        name: [len({fit.params for fit in softmax.heads}) for softmax in calibration.softmaxes]
        for name, calibration in by.items()
    }
    assert distinct == {"head": [4, 4], "layer": [1, 1], "global": [1, 1]}
    assert len({softmax.heads[0].params for softmax in by["layer"].softmaxes}) == 2
    assert len({softmax.heads[0].params for softmax in by["global"].softmaxes}) == 1
    mean = {
        name: np.mean([fit.kl for s in calibration.softmaxes for fit in s.heads]) for name, calibration in by.items()
    }
    assert mean["head"] < mean["layer"] < mean["global"]
    assert {calibration.rows for calibration in by.values()} == {COUNT * 2 * 4 * 16}


def test_granularity_is_refused_when_unknown(digits_model: Path, pixels: np.ndarray) -> None:
    with pytest.raises(HccsError, match=r"granularity: unknown \(row, needs one of head, layer, global\)"):
        calibrate(digits_model, as_feeds(Path(), pixels), granularity="row")  # type: ignore[arg-type]


# --- memory --------------------------------------------------------------------------------------------------------


class Watch:
    """Samples whose logits are followed until they are gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, feeds: list[Feed]) -> None:
        self._feeds, self._logits = feeds, []
        self.given, self.alive_between, self.alive_at_add = 0, [], []
        count = Sketch.add

        def add(sketch: Sketch, logits: np.ndarray, **options: bool) -> None:
            self._logits.append((self.given, weakref.ref(logits)))
            self.alive_at_add.append({batch for batch, logits in self._logits if logits() is not None})
            count(sketch, logits, **options)

        monkeypatch.setattr(Sketch, "add", add)

    def __iter__(self) -> Iterator[Feed]:
        for feed in self._feeds:
            self.alive_between.append({batch for batch, logits in self._logits if logits() is not None})
            self.given += 1
            yield feed


def test_logits_of_one_batch_only_are_sketched_at_a_time(
    monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray, digits_model: Path
) -> None:
    watch = Watch(monkeypatch, as_feeds(Path(), pixels))
    calibrate(digits_model, watch)
    assert watch.alive_at_add == [{batch} for batch in range(1, COUNT + 1) for _ in range(2)]


def test_logits_are_gone_when_the_next_batch_is_read(
    monkeypatch: pytest.MonkeyPatch, pixels: np.ndarray, digits_model: Path
) -> None:
    watch = Watch(monkeypatch, as_feeds(Path(), pixels))
    calibrate(digits_model, watch)
    assert watch.alive_between == [set()] * COUNT


def test_memory_does_not_grow_with_the_amount_of_data(tmp_path: Path, pixels: np.ndarray) -> None:
    digits_model = bundled_models() / "digits_dynamo.onnx"

    def peak(copies: int) -> int:
        np.savez(tmp_path / "data.npz", pixels=np.tile(pixels, (copies, 1)))
        tracemalloc.start()
        try:
            calibrate(digits_model, tmp_path / "data.npz")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # imports
    assert peak(5) < 1.05 * peak(1)


# --- models and feeds of other kinds ---------------------------------------------------------------------------------


def test_half_precision_is_calibrated_like_single(tmp_path: Path, attention: Path) -> None:
    onnx.save(onnx.parser.parse_model(ATTENTION.replace("float[", "float16[")), tmp_path / "half.onnx")
    feeds = [attention_feed(queries, 9) for queries in (8, 16, 32)]
    halves = [{name: value.astype(np.float16) for name, value in feed.items()} for feed in feeds]
    half, single = calibrate(tmp_path / "half.onnx", halves), calibrate(attention, feeds)
    assert half.rows == single.rows
    kl = [[fit.kl for fit in calibration.softmaxes[0].heads] for calibration in (half, single)]
    np.testing.assert_allclose(*kl, rtol=0.05, atol=1e-3)


def test_reader_of_onnxruntimes_quantiser_is_taken(pixels: np.ndarray) -> None:
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class PixelReader(CalibrationDataReader):
        def __init__(self) -> None:
            self._samples = iter(pixels)

        def get_next(self) -> Feed | None:
            sample = next(self._samples, None)
            return None if sample is None else {"pixels": sample[None]}

    model = bundled_models() / "digits_dynamo.onnx"
    assert calibrate(model, PixelReader()) == calibrate(model, as_feeds(Path(), pixels))


# --- failures ------------------------------------------------------------------------------------------------------


def test_padding_does_not_change_the_parameters(attention: Path) -> None:
    feeds = [attention_feed(queries, keys) for queries, keys in ((4, 3), (6, 5), (9, 9))]
    wide = []
    for feed in feeds:
        keys = feed["k"].shape[2]
        more = attention_feed(feed["q"].shape[2], keys + 7, slice(keys, None))
        more.update(q=feed["q"])
        for name in ("k", "v"):
            more[name][:, :, :keys] = feed[name]
        wide.append(more)
    bare, padded = calibrate(attention, feeds), calibrate(attention, wide)
    assert padded.softmaxes[0].heads == bare.softmaxes[0].heads
    assert padded.rows == bare.rows
    assert (bare.softmaxes[0].longest, padded.softmaxes[0].longest) == (9, 16)


def test_calibrate_is_refused_when_all_rows_are_masked(attention: Path) -> None:
    with pytest.raises(CalibrationError, match="head 0 has no row to learn from"):
        calibrate(attention, [attention_feed(masked=slice(None))] * 2)


def test_calibrate_is_refused_when_logits_overflow(attention: Path) -> None:
    feed = attention_feed()
    feed["q"] *= np.float32(1e37)
    feed["k"][:] = 1e4
    with pytest.raises(CalibrationError, match="head 0 has no row to learn from"):
        calibrate(attention, [feed])


def test_calibrate_is_refused_when_onnxruntime_fails_on_a_sample(attention: Path) -> None:
    feed = attention_feed()
    feed["mask"] = feed["mask"][..., :3]  # the input's shape allows it, the model does not
    with pytest.raises(
        DataError, match=r"^data: sample 0: onnxruntime fails on it \(.*mask \[1, 1, 1, 3\].*\)"
    ) as caught:
        calibrate(attention, [feed])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "pattern"),
    [("y = Neg (x)", "holds no Softmax node"), ("y = Softmax (x)", r"holds no attention \(1 Softmax left alone, the")],
    ids=["no_softmax", "no_attention"],
)
def test_calibrate_is_refused_when_there_is_no_attention(tmp_path: Path, body: str, pattern: str) -> None:
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x) => (float[n,4] y) {{ {body} }}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=pattern):
        calibrate(tmp_path / "m.onnx", [{"x": np.zeros((1, 4), np.float32)}])


def test_heads_that_the_graph_does_not_tell_are_counted_in_the_data(tmp_path: Path) -> None:
    text = (
        "g (float[b,h,n,8] q, float[b,h,8,n] k, float[b,h,n,8] v) => (float[b,h,n,8] y)"
        "{ l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, v) }"
    )
    onnx.save(build(text, {}), tmp_path / "m.onnx")
    random = np.random.default_rng(0)
    shapes = {"q": (2, 5, 6, 8), "k": (2, 5, 8, 6), "v": (2, 5, 6, 8)}
    feed = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    feed["q"] *= np.arange(1, 6, dtype=np.float32)[:, None, None]  # heads of different temper
    (softmax,) = calibrate(tmp_path / "m.onnx", [feed]).softmaxes
    assert len({fit.params for fit in softmax.heads}) == 5
