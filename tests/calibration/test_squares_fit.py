"""The fit by squares: no other line is better, and what it minimises is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import DIGITS

from hccs_onnx import calibrate, hccs
from hccs_onnx.calibration.fit import fit_heads, legal_head
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.calibration.squares_fit import fit_squares
from hccs_onnx.errors import HccsError
from hccs_onnx.params import HeadParams

LOGITS = np.random.default_rng(0).normal(0, 2.5, (3, 2, 40, 40))
LOGITS[:, 1] *= 0.6


def sampled(logits: np.ndarray, masked: bool = False) -> RowSample:
    sample = RowSample.empty(heads=2)
    sample.add(logits, masked=masked, self_attention=False)
    return sample


def loss(head: int, params: HeadParams) -> float:
    """Mean squared difference of the operator's own probabilities."""
    x = LOGITS[:, head].astype(np.float32)
    weight = np.exp(x - x.max(axis=-1, keepdims=True))
    p = weight / weight.sum(axis=-1, keepdims=True)
    y = hccs(x, np.float32, B=[params.B], S=[params.S], Dmax=[params.Dmax], scale=[params.scale])
    return float(((y - p) ** 2).sum(axis=-1).mean())


@pytest.mark.parametrize("head", [0, 1])
def test_fit_has_the_least_squares_of_all_lines(head: int) -> None:
    fitted = loss(head, fit_squares(sampled(LOGITS))[head])
    lines = [legal_head(clip, ratio) for clip in np.geomspace(1, 8, 25) for ratio in (0.0, 1e-3, 0.01, 0.03, 0.1, 0.3)]
    assert fitted <= 1.001 * min(loss(head, line) for line in lines)


@pytest.mark.parametrize("head", [0, 1])
def test_fit_by_squares_is_not_that_by_kl(head: int) -> None:
    sketch = Sketch.empty(heads=2)
    sketch.add(LOGITS, masked=False, self_attention=False)
    assert loss(head, fit_squares(sampled(LOGITS))[head]) < 0.97 * loss(head, fit_heads(sketch)[head])


def test_masked_keys_and_shorter_rows_do_not_count() -> None:
    masked = np.concatenate([LOGITS, np.full((3, 2, 40, 9), -1e9)], axis=-1)
    expected = [head.clip_range for head in fit_squares(sampled(LOGITS))]
    assert [head.clip_range for head in fit_squares(sampled(masked, masked=True))] == pytest.approx(expected, rel=1e-3)
    hidden = np.where(np.arange(40) < 25, LOGITS, -1e9)
    expected = [head.clip_range for head in fit_squares(sampled(LOGITS) + sampled(hidden, masked=True))]
    longer = sampled(LOGITS) + sampled(LOGITS[..., :25])
    longer.longest += 5
    assert [head.clip_range for head in fit_squares(longer)] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("granularity", ["head", "layer", "global"])
def test_calibration_by_squares_shares_parameters_as_told(granularity: str) -> None:
    with np.load(DIGITS / "calibration.npz") as arrays:
        feeds = [{"pixels": arrays["pixels"][i : i + 1]} for i in range(8)]
    found = calibrate(DIGITS / "digits_dynamo.onnx", feeds, granularity=granularity, objective="squares")
    heads = [[fit.params for fit in softmax.heads] for softmax in found.softmaxes]
    different = {"head": 8, "layer": 2, "global": 1}[granularity]
    assert len({head for layer in heads for head in layer}) == different
    assert all(fit.kl > 0 for softmax in found.softmaxes for fit in softmax.heads)
    again = calibrate(DIGITS / "digits_dynamo.onnx", feeds[::-1], granularity=granularity, objective="squares")
    assert again.to_json() == found.to_json()


def test_squares_are_for_float_output() -> None:
    model, data = DIGITS / "digits_dynamo.onnx", DIGITS / "calibration.npz"
    with pytest.raises(HccsError, match=r"^objective: is for float output \(squares, needs kl\)\. Leave it out\.$"):
        calibrate(model, data, to="uint8", objective="squares")
    with pytest.raises(HccsError, match=r"^objective: unknown \(l1, needs one of kl, squares\)\.$"):
        calibrate(model, data, objective="l1")
