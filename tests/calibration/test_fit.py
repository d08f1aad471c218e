"""The fit: legal parameters, as good as an exhaustive search over clip range and floor ratio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import needs_ir_version_10
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx.calibration.collect import with_outputs
from hccs_onnx.calibration.data import Samples, input_specs
from hccs_onnx.calibration.fit import fit_heads, legal_head, mean_kl
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.demo import bundled_models
from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.params import DATA_FREE, HccsParams, HeadParams
from hccs_onnx.reference import hccs

TOLERANCE = 1e-4  # nats
GRID_CLIPS = np.geomspace(0.4, 40.0, 40)
GRID_RATIOS = np.geomspace(1e-4, 0.95, 24)


def live_keys(rows: np.ndarray) -> np.ndarray:
    return rows.max(-1, keepdims=True) - rows <= 64


def softmax_kl(rows: np.ndarray, head: HeadParams) -> float:
    """Mean KL(softmax || HCCS) over float32 rows with the exact operator, masked keys left out."""
    y = hccs(rows, np.float32, B=[head.B], S=[head.S], Dmax=[head.Dmax], scale=[head.scale], masked=True)
    p, live = softmax(rows), live_keys(rows)
    q = y / y.sum(-1, keepdims=True, dtype=np.float64)
    return float((p * np.log(np.where(p > 0, p, 1) / np.where(live, q, 1))).sum(-1).mean())


def softmax(rows: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        p = np.where(live_keys(rows), np.exp((rows - rows.max(-1, keepdims=True)).astype(np.float64)), 0)
    return p / p.sum(-1, keepdims=True)


def best_of_grid(rows: np.ndarray) -> float:
    """Least mean KL over the grid of clip range and floor ratio, from all rows, scores not rounded."""
    p, live = softmax(rows), live_keys(rows)
    gap = np.where(live, rows.max(-1, keepdims=True) - rows, 0).astype(np.float64)
    own = (p * np.log(np.where(p > 0, p, 1))).sum(-1)
    best = np.inf
    for clip in GRID_CLIPS:
        drop = np.minimum(gap, clip) / clip
        for ratio in GRID_RATIOS:
            score = np.where(live, 1 - (1 - ratio) * drop, 1)
            total = (score * live).sum(-1)
            best = min(best, float((own - (p * np.log(score)).sum(-1) + np.log(total)).mean()))
    return best


def sketch_of(rows: np.ndarray, masked: bool = False) -> Sketch:
    sketch = Sketch.empty(1)
    sketch.add(rows[None, None], masked=masked, self_attention=False)
    return sketch


def model_rows(path: Path, feeds: list[dict[str, np.ndarray]]) -> list[list[np.ndarray]]:
    """Logits (row, key) of each feed and head, padding cut off with the help of the attention mask."""
    model = read_model(path)
    found = [item for item in find_attention(model, path.parent) if item.reason is None]
    names = [item.logits for item in found]
    session = load_session(with_outputs(model, names), path)
    specs = [spec.name for spec in input_specs(model)]
    heads: list[list[np.ndarray]] = [[] for item in found for _ in range(item.heads or 1)]
    for whole in feeds:
        feed = {name: whole[name] for name in specs}
        length = int(feed["attention_mask"].sum()) if "attention_mask" in feed else None
        logits = session.run(names, feed)
        for rows, one in zip(heads, (one for layer in logits for one in layer[0]), strict=True):
            rows.append(one[:length, :length])
    return heads


def as_rows(parts: list[np.ndarray]) -> np.ndarray:
    """Rows of different lengths as one array, short ones filled with masked keys."""
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1e9) for part in parts])


def assert_fit_is_best(rows: np.ndarray, masked: bool = False, kl_tolerance: float = TOLERANCE) -> None:
    sketch = sketch_of(rows, masked)
    head = fit_heads(sketch)[0]
    exact = softmax_kl(rows, head)
    assert exact <= best_of_grid(rows) + TOLERANCE
    assert exact <= softmax_kl(rows, DATA_FREE) + TOLERANCE
    assert abs(mean_kl(sketch, [head])[0] - exact) <= max(0.01 * exact, kl_tolerance)


@pytest.mark.parametrize("n", [4, 16, 64, 200])
@pytest.mark.parametrize("spread", [0.2, 0.5, 1.0, 2.0, 4.0, 8.0])
def test_fit_is_as_good_as_the_best_of_a_grid_on_random_rows(spread: float, n: int) -> None:
    rng = np.random.default_rng(n)
    assert_fit_is_best(rng.normal(0, spread, (max(100, 16000 // n), n)).astype(np.float32))


@pytest.mark.parametrize("shape", ["local", "peaked", "two_levels", "mixed"])
def test_fit_is_as_good_as_the_best_of_a_grid_on_rows_of_a_shape(shape: str) -> None:
    rng = np.random.default_rng(0)
    n = 40
    position = np.arange(n)
    rows = {
        "local": -0.3 * np.abs(position[:, None] - position) + rng.normal(0, 0.3, (n, n)),
        "peaked": np.where(rng.random((200, n)) < 0.05, 9.0, 0.0) + rng.normal(0, 0.5, (200, n)),
        "two_levels": np.where(rng.random((200, n)) < 0.5, 2.0, 0.0),
        "mixed": rng.normal(0, 1, (200, n)) * rng.choice([0.2, 5.0], (200, 1)),
    }[shape]
    # Gaps of one and the same size bend the objective, and the sketch goes smoothly from one clip range to the next.
    assert_fit_is_best(rows.astype(np.float32), kl_tolerance=5e-3 if shape == "two_levels" else TOLERANCE)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_fit_is_as_good_as_the_best_of_a_grid_on_the_digits_model(exporter: str) -> None:
    path = bundled_models() / f"digits_{exporter}.onnx"
    feeds = list(Samples(bundled_models() / "calibration.npz", input_specs(read_model(path))))[::8]
    for parts in model_rows(path, feeds):
        assert_fit_is_best(as_rows(parts))


@pytest.mark.parametrize("name", ["minilm_l3", "minilm_l6"])
def test_fit_is_as_good_as_the_best_of_a_grid_on_a_real_encoder(
    name: str, request: pytest.FixtureRequest, sentences: dict[str, np.ndarray]
) -> None:
    if name == "minilm_l6":
        needs_ir_version_10()
    feeds = [{key: value[i : i + 1] for key, value in sentences.items()} for i in range(0, 16, 2)]
    heads = model_rows(request.getfixturevalue(name), feeds)
    assert len(heads) == {"minilm_l3": 36, "minilm_l6": 72}[name]
    for parts in heads[::5]:  # each layer, different heads
        assert_fit_is_best(as_rows(parts), masked=True, kl_tolerance=3e-4)  # some 150 rows in bins


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((3, 1)),
        np.zeros((3, 8)),
        np.eye(4) * 200,
        np.eye(4) * 20,
        np.array([[0.0, -64.0]]),
        np.full((2, 5), 1e4),
    ],
    ids=["one_key", "flat", "one_hot", "sharp", "at_the_mask_gap", "huge"],
)
def test_fit_is_legal_and_exact_on_degenerate_rows(rows: np.ndarray) -> None:
    sketch = sketch_of(rows.astype(np.float32))
    head = fit_heads(sketch)[0]
    assert HccsParams((head,)).violations("float") == ()
    y = hccs(rows.astype(np.float32), np.float32, B=[head.B], S=[head.S], Dmax=[head.Dmax], scale=[head.scale])
    np.testing.assert_allclose(y, softmax(rows), atol=1e-3)
    assert abs(mean_kl(sketch, [head])[0]) < 1e-3


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 40), st.floats(0, 15), st.booleans())
def test_fit_is_always_legal_with_a_finite_kl(seed: int, rows: int, n: int, spread: float, masked: bool) -> None:
    logits = np.random.default_rng(seed).normal(0, spread, (rows, n)).astype(np.float32)
    sketch = sketch_of(logits, masked)
    (head,) = fit_heads(sketch)
    assert HccsParams((head,), masked=masked).violations("float", n=n) == ()
    (kl,) = mean_kl(sketch, [head])
    assert -1e-3 < kl < np.log(n) + 1e-3


def test_heads_are_fitted_each_on_its_own() -> None:
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(4, 3, 20, 20)) * np.array([0.3, 2, 8])[:, None, None]).astype(np.float32)
    sketch = Sketch.empty(3)
    sketch.add(logits, masked=False, self_attention=False)
    alone = [fit_heads(sketch_of(logits[:, head].reshape(-1, 20)))[0] for head in range(3)]
    assert fit_heads(sketch) == alone
    assert len(set(alone)) == 3


def test_fit_gives_the_same_parameters_every_time() -> None:
    rows = np.random.default_rng(0).normal(0, 2, (100, 30)).astype(np.float32)
    assert fit_heads(sketch_of(rows)) == fit_heads(sketch_of(rows))


# --- legal_head ----------------------------------------------------------------------------------------------------


@given(st.floats(1e-3, 1e4), st.floats(0.0, 1.0))
def test_legal_head_is_legal_and_close(clip: float, ratio: float) -> None:
    head = legal_head(clip, ratio)
    assert HccsParams((head,)).violations("float") == ()
    assert head.floor >= 1  # no key that Softmax sees gets probability 0
    assert head.clip_range == pytest.approx(clip, rel=1e-6)
    # S = 0 is as far as B reaches: the least slope above it has F/B = 1 - 127/32767
    assert head.floor_ratio == pytest.approx(ratio, abs=1e-4 if ratio < 1 - 127 / 32767 else 127 / 32767)


@given(st.floats(1e-3, 1e4), st.floats(0.0, 1.0))
def test_legal_head_has_a_scale_that_float32_holds(clip: float, ratio: float) -> None:
    scale = legal_head(clip, ratio).scale
    assert float(np.float32(scale)) == scale


@pytest.mark.parametrize("ratio", [0.0, 0.008, 0.3, 0.5, 0.6, 0.9, 0.99])
def test_legal_head_uses_the_finest_steps(ratio: float) -> None:
    head = legal_head(3.3, ratio)
    assert head.Dmax == 127
    assert head.S == 127 or (head.S + 1) * 127 / (1 - ratio) > 32767


def test_legal_head_is_the_data_free_default_at_its_clip_range_and_ratio() -> None:
    head = legal_head(DATA_FREE.clip_range, 0.008)
    assert (head.B, head.S, head.Dmax) == (DATA_FREE.B, DATA_FREE.S, DATA_FREE.Dmax)
    assert head.scale == pytest.approx(DATA_FREE.scale, rel=1e-6)
