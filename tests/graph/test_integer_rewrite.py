"""Float models rewritten to integer attention: quantised logits, integer HCCS, dequantised probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import Run
from graph.models import LOGITS, Attention, name_of, nodes, tapped
from onnx import numpy_helper

from hccs_onnx import calibrate, rewrite
from hccs_onnx.backends import Backend, open_session
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.errors import CalibrationError, HccsError
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.params import PROBABILITY_UNIT, OutputType
from hccs_onnx.reference import hccs

DTYPES = {"uint8": np.uint8, "int16": np.int16}
VARIANTS = [
    Attention(scale="mul", size=5),
    Attention(scale="query"),
    Attention(scale="computed", mask="computed"),
    Attention(mask="chosen", fill=-np.inf, guard=True),
    Attention(mask="where", scale="mul"),
    Attention(mask="causal", length=6),
    Attention(mask="bias", length=6),
    Attention(layout="folded"),
    Attention(layout="single"),
    Attention(layout="windows", mask="where"),
    Attention(opset=11, mask="computed"),
    Attention(opset=21, mask="computed", ir_version=10),
    Attention(dtype="float16", ir_version=8),
]


@pytest.fixture
def rewritten(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Attention, OutputType, Path, Path, Calibration]:
    """A variant, the output type, the original's file, the rewritten file and the calibration."""
    variant, output = request.param
    original, target = tmp_path / "model.onnx", tmp_path / "model.hccs.onnx"
    onnx.save(variant.model(), original)
    supported(original)
    feeds = [variant.feed(batch=3, length=7, seed=seed) for seed in range(4)]
    calibration = calibrate(original, feeds, to=output)
    rewrite(original, target, calibration=calibration)
    return variant, output, original, target, calibration


def each_variant(
    variants: list[Attention], outputs: tuple[OutputType, ...] = ("uint8", "int16")
) -> pytest.MarkDecorator:
    cases = [
        pytest.param((variant, output), id=f"{name_of(variant)}-{output}") for variant in variants for output in outputs
    ]
    return pytest.mark.parametrize("rewritten", cases, indirect=True)


def supported(model: Path) -> None:
    """Skip where this onnxruntime does not know the model's opset."""
    try:
        ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except Exception as error:
        pytest.skip(f"onnxruntime {ort.__version__}: {str(error).splitlines()[0]}")


@each_variant(VARIANTS)
def test_integer_attention_equals_the_reference_on_quantised_logits(
    rewritten: tuple[Attention, OutputType, Path, Path, Calibration], run: Run
) -> None:
    variant, output, original, target, calibration = rewritten
    feed = variant.feed(batch=3, length=7, seed=9)
    model = onnx.load(target)
    (node,) = nodes(model, "HCCS")
    (quantize,) = nodes(model, "QuantizeLinear")
    codes, y = run(tapped(model, node.input[0], node.output[0]), feed, optimize=False)[-2:]
    params = read_attributes(node)
    assert (codes.dtype, y.dtype) == (np.int8, DTYPES[output])
    np.testing.assert_array_equal(
        y,
        hccs(
            codes, DTYPES[output], B=[h.B for h in params.heads], S=[h.S for h in params.heads],
            Dmax=[h.Dmax for h in params.heads], masked=params.masked,
        ),
    )  # fmt: skip

    logits = run(tapped(onnx.load(original), LOGITS), feed, optimize=False)[-1].astype(np.float64)
    (softmax,) = calibration.softmaxes
    scale, zero_point = (np.array(values) for values in (softmax.quantizer.scale, softmax.quantizer.zero_point))
    if scale.size > 1:
        assert scale.size == variant.heads
        assert quantize.attribute[0].i == -3
        scale, zero_point = scale[:, None, None], zero_point[:, None, None]
    expected = np.clip(np.rint(logits / scale) + zero_point, -128, 127)
    assert (np.abs(codes - expected) <= 1).all()  # an absorbed scale can turn a tie
    assert (codes == expected).mean() > 0.98
    hidden = logits.max(axis=-1, keepdims=True) - logits > 64
    assert (codes[hidden] == -128).all()
    assert (y[hidden] == 0).all()


@each_variant([VARIANTS[0], VARIANTS[3], VARIANTS[7], VARIANTS[-1]])
@pytest.mark.parametrize("backend", ["function", "native"])
def test_integer_attention_is_the_same_at_every_optimisation_level(
    rewritten: tuple[Attention, OutputType, Path, Path, Calibration], backend: Backend, request: pytest.FixtureRequest
) -> None:
    variant, _, _, target, _ = rewritten
    if backend == "native":
        request.getfixturevalue("native_library")
    feed = variant.feed(batch=2, length=9, seed=3)
    levels = ort.GraphOptimizationLevel
    results = []
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_EXTENDED, levels.ORT_ENABLE_ALL):
        model = onnx.load(target)
        (node,) = nodes(model, "HCCS")
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        results.append(open_session(tapped(model, node.output[0]), target, backend, options).run(None, feed)[-1])
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@each_variant([VARIANTS[0]])
def test_probabilities_are_dequantised_with_the_outputs_unit(
    rewritten: tuple[Attention, OutputType, Path, Path, Calibration],
) -> None:
    _, output, _, target, _ = rewritten
    model = onnx.load(target)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (node,) = nodes(model, "HCCS")
    (behind,) = [other for other in model.graph.node if node.output[0] in other.input]
    if output == "int16":  # DequantizeLinear has no int16 in this opset
        assert behind.op_type == "Cast"
        (behind,) = [other for other in model.graph.node if behind.output[0] in other.input]
        assert behind.op_type == "Mul"
    else:
        assert behind.op_type == "DequantizeLinear"
        assert constants[behind.input[2]] == 0
    assert constants[behind.input[1]] == PROBABILITY_UNIT[output]
    onnx.checker.check_model(model, full_check=True)


@each_variant([Attention(layout="folded"), Attention(opset=11), Attention(layout="single")], ("uint8",))
def test_logits_share_a_quantiser_where_the_graph_has_no_axis_for_heads(
    rewritten: tuple[Attention, OutputType, Path, Path, Calibration],
) -> None:
    *_, target, calibration = rewritten
    assert len(calibration.softmaxes[0].quantizer.scale) == 1
    (quantize,) = nodes(onnx.load(target), "QuantizeLinear")
    assert not quantize.attribute


@each_variant([Attention(mask="computed")], ("uint8",))
def test_rewrite_gives_the_same_bytes_again(
    rewritten: tuple[Attention, OutputType, Path, Path, Calibration], tmp_path: Path
) -> None:
    _, _, original, target, calibration = rewritten
    rewrite(original, tmp_path / "again.onnx", calibration=calibration)
    assert (tmp_path / "again.onnx").read_bytes() == target.read_bytes()
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration


def test_paper_profile_leaves_out_the_mask_and_takes_no_norm(tmp_path: Path) -> None:
    variant = Attention(mask="computed")
    onnx.save(variant.model(), tmp_path / "m.onnx")
    feeds = [variant.feed(batch=3, length=7)]
    with pytest.raises(
        HccsError,
        match=r"profile: paper has integers only, and no reciprocal norm \(uint8, norm, needs --to uint8 or int16, and",
    ):
        calibrate(tmp_path / "m.onnx", feeds, to="uint8", profile="paper")
    with pytest.raises(
        HccsError,
        match=r"profile: paper has integers only, and no reciprocal norm \(float, norm, needs --to uint8 or int16, and",
    ):
        calibrate(tmp_path / "m.onnx", feeds, profile="paper")
    calibration = calibrate(tmp_path / "m.onnx", feeds, to="uint8", profile="paper", reciprocal="div")
    report = rewrite(tmp_path / "m.onnx", calibration=calibration)
    (node,) = nodes(onnx.load(report.output), "HCCS")
    params = read_attributes(node)
    assert not params.masked
    assert params.reciprocal == "div"
    assert params.violations("uint8", profile="paper", n=7) == ()


def test_reciprocal_means_nothing_for_float_output(tmp_path: Path) -> None:
    variant = Attention()
    onnx.save(variant.model(), tmp_path / "m.onnx")
    with pytest.raises(HccsError, match="reciprocal: means nothing for float output"):
        calibrate(tmp_path / "m.onnx", [variant.feed()], reciprocal="div")


def test_calibration_with_quantisers_per_head_is_refused_where_heads_are_folded(tmp_path: Path) -> None:
    from dataclasses import replace

    variant = Attention(layout="folded")
    onnx.save(variant.model(), tmp_path / "m.onnx")
    calibration = calibrate(tmp_path / "m.onnx", [variant.feed()], to="uint8")
    (softmax,) = calibration.softmaxes
    heads = tuple(replace(fit, zero_point=index) for index, fit in enumerate(softmax.heads))
    broken = replace(calibration, softmaxes=(replace(softmax, heads=heads),))
    with pytest.raises(CalibrationError, match="logits cannot be quantised per head"):
        rewrite(tmp_path / "m.onnx", calibration=broken)
