"""Models quantised in QDQ form: pairs of QuantizeLinear and DequantizeLinear around attention's nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import DIGITS
from graph.models import build, nodes, op_types, tapped
from onnx import numpy_helper

from hccs_onnx import calibrate, inspect, rewrite, verify
from hccs_onnx.errors import CalibrationError, HccsError
from hccs_onnx.graph.attention import find_attention
from hccs_onnx.params import OutputType

FILL = -1e4


def attention_text(before: str, behind: str, inputs: str = "") -> str:
    """Attention of q, k, v with `before` between product (raw) and Softmax (l), `behind` between it (p) and w."""
    return (
        f"g (float[b,2,n,4] q, float[b,2,4,n] k, float[b,2,n,4] v{inputs}) => (float[b,2,n,4] y)"
        f"{{ raw = MatMul (q, k) {before} p = Softmax <axis = -1> (l) {behind} y = MatMul (w, v) }}"
    )


PAIR = "{0}_codes = QuantizeLinear ({0}, s, z) {1} = DequantizeLinear ({0}_codes, s, z)"
CONSTANTS = {
    "s": np.float32(0.05),
    "z": np.int8(-7),
    "t": np.float32(1 / 256),
    "zu": np.uint8(0),
    "half": np.float32(0.5),
    "s2": np.float32(0.06),
    "z2": np.int8(-8),
}
BEHIND = "p_codes = QuantizeLinear (p, t, zu) w = DequantizeLinear (p_codes, t, zu)"


def model(before: str, behind: str = "w = Identity (p)", inputs: str = "") -> onnx.ModelProto:
    return build(attention_text(before, behind, inputs), CONSTANTS)


def reason(proto: onnx.ModelProto) -> str | None:
    (found,) = find_attention(proto)
    return found.reason


def feed(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"q": (2, 2, 9, 4), "k": (2, 2, 4, 9), "v": (2, 2, 9, 4)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("before", "logits"),
    [
        (PAIR.format("raw", "l"), "raw"),
        (PAIR.format("raw", "a") + " c = Mul (a, half) " + PAIR.format("c", "l"), "c"),
        (PAIR.format("raw", "a") + " l = Mul (a, half)", "l"),
    ],
)
def test_pairs_between_product_and_softmax_are_understood(before: str, logits: str) -> None:
    (found,) = find_attention(model(before, BEHIND))
    assert found.reason is None
    assert found.logits == logits
    assert found.requantized is not None


@pytest.mark.parametrize(
    "before",
    [
        "raw_codes = QuantizeLinear (raw, s, z) l = DequantizeLinear (raw_codes, s2, z)",  # another scale
        "raw_codes = QuantizeLinear (raw, s, z) l = DequantizeLinear (raw_codes, s, z2)",  # another zero point
        "l = DequantizeLinear (raw_codes, s, z)",  # codes from outside
    ],
)
def test_a_dequantiser_that_undoes_no_quantiser_is_not_a_pair(before: str) -> None:
    inputs = ", int8[b,2,n,n] raw_codes" if "Quantize" not in before.replace("Dequantize", "") else ""
    found = reason(model(before, inputs=inputs))
    assert found is not None
    assert "DequantizeLinear" in found


def test_probabilities_whose_codes_go_elsewhere_are_left_alone() -> None:
    text = attention_text(PAIR.format("raw", "l"), BEHIND).replace(
        "(float[b,2,n,4] y)", "(float[b,2,n,4] y, uint8[b,2,n,n] p_codes)"
    )
    assert "QuantizeLinear" in (reason(build(text, CONSTANTS)) or "")


@pytest.mark.parametrize("to", ["uint8", "int16"])
def test_integer_output_takes_the_place_of_both_quantisations(tmp_path: Path, to: str) -> None:
    before = PAIR.format("raw", "a") + " c = Mul (a, half) " + PAIR.format("c", "l")
    onnx.save(model(before, BEHIND), tmp_path / "m.onnx")
    feeds = [feed(seed) for seed in range(4)]
    report = rewrite(tmp_path / "m.onnx", calibration=calibrate(tmp_path / "m.onnx", feeds, to=to))  # type: ignore[arg-type]
    result = onnx.load(report.output)
    assert len(nodes(result, "QuantizeLinear")) == 1
    (quantize,), (hccs,) = nodes(result, "QuantizeLinear"), nodes(result, "HCCS")
    assert quantize.input[0] == "raw"  # rounding and scale are absorbed
    assert hccs.input[0] == quantize.output[0]
    assert nodes(result, "MatMul")[1].input[0] == "w"
    compared = verify(tmp_path / "m.onnx", report.output, feeds)
    assert compared.outputs[0].mean_cosine > 0.98
    assert all(head.kl < 0.2 for head in compared.heads)


def test_float_output_keeps_the_quantisation_of_the_probabilities(tmp_path: Path) -> None:
    onnx.save(model(PAIR.format("raw", "l"), BEHIND), tmp_path / "m.onnx")
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert op_types(result) == ["MatMul", "HCCS", "QuantizeLinear", "DequantizeLinear", "MatMul"]


def test_logits_that_others_read_stay_quantised(tmp_path: Path) -> None:
    text = attention_text(PAIR.format("raw", "l"), BEHIND).replace(
        "(float[b,2,n,4] y)", "(float[b,2,n,4] y, float[b,2,n,n] l)"
    )
    onnx.save(build(text, CONSTANTS), tmp_path / "m.onnx")
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert nodes(result, "HCCS")[0].input[0] == "l"


def test_scale_before_a_pair_that_stays_is_kept() -> None:
    """A pair in half precision is not absorbed, and its codes are those of scaled logits."""
    before = "c = Mul (raw, half) f = Cast <to = 10> (c) " + PAIR.format("f", "d").replace(" s,", " s16,")
    text = attention_text(f"{before} l = Cast <to = 1> (d)", BEHIND)
    (found,) = find_attention(build(text, {**CONSTANTS, "s16": np.float16(0.05)}, opset=19, ir_version=9))
    assert (found.reason, found.scales) == (None, ())


@pytest.mark.parametrize("to", ["float", "uint8"])
def test_logits_behind_a_mask_are_calibrated_when_the_pair_lies_before_it(tmp_path: Path, to: OutputType) -> None:
    """Keys 6 and above have huge logits and are masked: they must not be learned from."""
    before = PAIR.format("raw", "a") + " l = Add (a, hide)"
    hide = np.where(np.arange(9) >= 6, FILL, 0).astype(np.float32)
    onnx.save(build(attention_text(before, BEHIND), CONSTANTS | {"hide": hide}), tmp_path / "m.onnx")
    feeds = [feed(seed) for seed in range(4)]
    for each in feeds:
        each["k"][..., 6:] *= 20
    (softmax,) = calibrate(tmp_path / "m.onnx", feeds, to=to).softmaxes
    assert softmax.logits == "l"
    assert all(fit.kl < 0.2 for fit in softmax.heads)


def test_mask_before_the_quantiser_masks_exactly(tmp_path: Path) -> None:
    """The mask ruins the given scale; the fitted one leaves it out."""
    before = (
        PAIR.format("raw", "a")
        + " m = Add (a, mask) "
        + ("m_codes = QuantizeLinear (m, wide, z) l = DequantizeLinear (m_codes, wide, z)")
    )
    text = attention_text(before, BEHIND, ", float[b,1,1,n] mask")
    onnx.save(build(text, CONSTANTS | {"wide": np.float32(80.0)}), tmp_path / "m.onnx")
    mask = np.where(np.arange(9) >= 6, FILL, 0).astype(np.float32).reshape(1, 1, 1, 9).repeat(2, axis=0)
    feeds = [feed(seed) | {"mask": mask} for seed in range(4)]
    calibration = calibrate(tmp_path / "m.onnx", feeds, to="uint8")
    report = rewrite(tmp_path / "m.onnx", calibration=calibration)
    assert report.found[0].masked
    assert all(head.kl < 0.2 for head in calibration.softmaxes[0].heads)
    result = onnx.load(report.output)
    result.graph.output.append(onnx.ValueInfoProto(name="w"))
    w = ort.InferenceSession(result.SerializeToString()).run(["w"], feeds[0])[0]
    assert (w[..., 6:] == 0).all()
    assert (w[..., :6] > 0).any()


@pytest.mark.parametrize("to", ["uint8", "int16"])
@pytest.mark.parametrize("zero_point", [np.int8(-7), np.int8(0), np.uint8(121), np.uint8(128)])
@pytest.mark.parametrize("masked", [False, True])
def test_without_data_the_codes_are_those_of_the_model(
    tmp_path: Path, to: OutputType, zero_point: np.generic, masked: bool
) -> None:
    """Behind a mask one higher, for the lowest is the mask, where the model may use it for logits."""
    before = PAIR.format("raw", "a").replace(" z)", " own)") + " c = Mul (a, half) "
    before += "l = Add (c, causal)" if masked else "l = Identity (c)"
    causal = np.where(np.tri(9, dtype=bool), 0, FILL).astype(np.float32)
    constants = CONSTANTS | {"own": zero_point, "causal": causal, "s": np.float32(0.04)}
    onnx.save(build(attention_text(before, BEHIND), constants), tmp_path / "m.onnx")
    result = onnx.load(rewrite(tmp_path / "m.onnx", to=to).output)
    (hccs,) = nodes(result, "HCCS")
    feeds = feed() | {"q": 2 * feed()["q"]}
    own = ort.InferenceSession(tapped(onnx.load(tmp_path / "m.onnx"), "raw_codes").SerializeToString())
    new = ort.InferenceSession(tapped(result, hccs.input[0], "w").SerializeToString())
    expected = own.run(["raw_codes"], feeds)[0].astype(int) - 128 * (zero_point.dtype == np.uint8)
    codes, w = new.run([hccs.input[0], "w"], feeds)
    assert expected.min() == -128
    assert expected.max() == 127
    if masked:
        live = np.broadcast_to(np.tri(9, dtype=bool), codes.shape)
        assert (codes[~live] == -128).all()
        assert (w[~live] == 0).all()
        moved = 0 if zero_point == np.int8(0) and zero_point.dtype == np.int8 else 1
        np.testing.assert_array_equal(codes[live], np.minimum(expected + moved, 127)[live])
        assert (w.sum(axis=-1) > 0.95).all() == bool(moved)  # symmetric codes are used down to -127 only
    else:
        np.testing.assert_array_equal(codes, expected)
        assert (w.sum(axis=-1) > 0.95).all()


def test_without_data_a_float_model_is_refused(tmp_path: Path) -> None:
    onnx.save(model("l = Mul (raw, half)"), tmp_path / "m.onnx")
    problem = "node 'Softmax_p': integers without data need logits that the model has quantised: no QuantizeLinear"
    with pytest.raises(CalibrationError, match=problem):
        rewrite(tmp_path / "m.onnx", to="uint8")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_choices_without_data_are_checked(tmp_path: Path) -> None:
    onnx.save(model(PAIR.format("raw", "l")), tmp_path / "m.onnx")
    with pytest.raises(HccsError, match="means nothing for float output"):
        rewrite(tmp_path / "m.onnx", reciprocal="div")
    calibration = calibrate(tmp_path / "m.onnx", [feed()], to="uint8")
    with pytest.raises(CalibrationError, match=r"was made with another --to \(uint8, needs int16\)"):
        rewrite(tmp_path / "m.onnx", calibration=calibration, to="int16")
    assert len(rewrite(tmp_path / "m.onnx", calibration=calibration, to="uint8").rewritten) == 1


class _Reader:
    """Samples, one by one, as onnxruntime's quantiser asks for them."""

    def __init__(self, feeds: Iterable[dict[str, np.ndarray]]) -> None:
        self._feeds: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantised(
    source: Path, target: Path, activation: str, symmetric: bool, feeds: Iterable[dict[str, np.ndarray]] = ()
) -> None:
    """Quantise a model statically, by default with digits."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    if not feeds:
        with np.load(DIGITS / "calibration.npz") as data:
            feeds = [{"pixels": data["pixels"][i : i + 1]} for i in range(16)]
    quantization.quantize_static(
        str(source), str(target), _Reader(feeds), quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType[activation], weight_type=quantization.QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(("activation", "symmetric"), [("QUInt8", False), ("QInt8", False), ("QInt8", True)])
def test_statically_quantised_digits_model_is_rewritten_to_integers(
    digits_model: Path, tmp_path: Path, activation: str, symmetric: bool
) -> None:
    source = tmp_path / "qdq.onnx"
    quantised(digits_model, source, activation, symmetric)
    assert [item.reason for item in inspect(source)] == [None, None]
    with np.load(DIGITS / "test.npz") as data:
        pixels = data["pixels"]
    feeds = [{"pixels": pixels[i : i + 1]} for i in range(40)]
    report = rewrite(source, calibration=calibrate(source, feeds, to="uint8"))
    result = verify(source, report.output, [{"pixels": pixels[40:140]}])
    assert result.outputs[0].mean_cosine > 0.97
    assert (result.outputs[0].argmax_agreement or 0) > 0.94


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(("activation", "symmetric"), [("QUInt8", False), ("QInt8", False), ("QInt8", True)])
def test_statically_quantised_digits_model_needs_no_data(tmp_path: Path, activation: str, symmetric: bool) -> None:
    """Measured: 0.958 to 0.967 correct; the float model rewritten to float without data has 0.958, QDQ models 0.982."""
    source = tmp_path / "qdq.onnx"
    quantised(DIGITS / "digits_torchscript.onnx", source, activation, symmetric)
    labels = np.load(DIGITS / "test_labels.npy")
    with np.load(DIGITS / "test.npz") as data:
        pixels = data["pixels"]
    report = rewrite(source, to="uint8")
    (scores,) = ort.InferenceSession(str(report.output)).run(None, {"pixels": pixels})
    assert (scores.argmax(axis=1) == labels).mean() > 0.94
    paper = rewrite(source, tmp_path / "paper.onnx", to="int16", reciprocal="div", profile="paper")
    assert paper.params[paper.rewritten[0].logits].violations("int16", profile="paper", n=16) == ()
    (scores,) = ort.InferenceSession(str(paper.output)).run(None, {"pixels": pixels})
    assert (scores.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("fill", [None, FILL])
@pytest.mark.parametrize(("activation", "symmetric"), [("QUInt8", False), ("QInt8", False), ("QInt8", True)])
def test_statically_quantised_encoder_comes_closer_to_its_float_original_without_data(
    minilm_l3: Path,
    sentences: dict[str, np.ndarray],
    tmp_path: Path,
    activation: str,
    symmetric: bool,
    fill: float | None,
) -> None:
    """The mask ruins the quantiser before the Softmax, and with it all attention of the QDQ model; not that before the
    mask. Measured, mean cosine of embeddings to the float model, QDQ and then rewritten: 0.62 and 0.86 for asymmetric
    codes, 0.53 and 0.72 for symmetric ones."""
    source, target = tmp_path / "m.onnx", tmp_path / "qdq.onnx"
    original = onnx.load(minilm_l3)
    for node in nodes(original, "Constant"):
        value = numpy_helper.to_array(node.attribute[0].t)
        if fill is not None and value.size == 1 and value < FILL:
            node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(fill, np.float32).reshape(value.shape)))
    onnx.save(original, source)
    inputs = {name: sentences[name] for name in ("input_ids", "attention_mask")}
    feeds = [{name: value[i : i + 1] for name, value in inputs.items()} for i in range(8)]
    quantised(source, target, activation, symmetric, feeds)
    if symmetric and fill is None:  # -3.4e38 becomes -inf, and 0 times that NaN
        with pytest.raises(CalibrationError, match="too coarse"):
            rewrite(target, to="uint8")
        return
    for to in ("uint8", "int16"):
        report = rewrite(target, tmp_path / f"{to}.onnx", to=to)
        assert [item.masked for item in report.rewritten] == [True] * 3
        cosines = [_embedding_cosine(source, path, inputs) for path in (target, report.output)]
        assert cosines[1] > cosines[0] + 0.15


def _embedding_cosine(one: Path, other: Path, inputs: dict[str, np.ndarray]) -> float:
    """Mean cosine of mean-pooled embeddings of the samples that nothing was quantised for."""
    feed = {name: value[8:] for name, value in inputs.items()}
    mask = feed["attention_mask"][:, :, None]
    results = [next(y for y in ort.InferenceSession(str(m)).run(None, feed) if y.ndim == 3) for m in (one, other)]
    left, right = ((states * mask).sum(axis=1) for states in results)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.mean((left * right).sum(axis=1) / norms))


@pytest.mark.filterwarnings("ignore::Warning")
def test_static_quantisation_keeps_the_hccs_nodes_of_a_rewritten_model(digits_model: Path, tmp_path: Path) -> None:
    rewritten = rewrite(digits_model, tmp_path / "digits.hccs.onnx").output
    quantised(rewritten, tmp_path / "qdq.onnx", "QInt8", True)
    before, after = (nodes(onnx.load(path), "HCCS") for path in (rewritten, tmp_path / "qdq.onnx"))
    assert [list(node.attribute) for node in after] == [list(node.attribute) for node in before]
    with np.load(DIGITS / "test.npz") as data:
        feed = {"pixels": data["pixels"][:100]}
    outputs = [
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for path in (rewritten, tmp_path / "qdq.onnx")
    ]
    assert (outputs[0].argmax(axis=1) == outputs[1].argmax(axis=1)).mean() > 0.9
