"""The main job from file to file: what is written, what is reported, and what is refused."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graph.models import Attention, build, head_params, nodes
from onnx import numpy_helper

from hccs_onnx import workflow
from hccs_onnx.calibration.file import Calibration, SoftmaxCalibration
from hccs_onnx.calibration.fit import HeadFit
from hccs_onnx.errors import CalibrationError, HccsError, MatchError, ModelError
from hccs_onnx.graph.files import read_model
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.params import DATA_FREE, OutputType
from hccs_onnx.verify import verify

VARIANT = Attention(mask="computed", scale="mul")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """One attention of three heads."""
    path = tmp_path / "model.onnx"
    onnx.save(VARIANT.model(), path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def calibration_for(path: Path, *, heads: int = 3, logits: str = "logits") -> Calibration:
    """A calibration that fits the model at `path`."""
    fits = tuple(HeadFit(head, 0.01, 0.0) for head in head_params(heads))
    softmax = SoftmaxCalibration("Softmax_probabilities", logits, -3, 7, True, fits)
    return Calibration(
        model_sha256=sha256(path), tool_version="0", profile="extended", granularity="head", output="float",
        reciprocal="norm", data_fingerprint="0" * 64, rows=1, softmaxes=(softmax,),
    )  # fmt: skip


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in read_model(path).metadata_props}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# inspect


def test_inspect_lists_every_softmax_of_a_file(model: Path) -> None:
    for path in (model, str(model)):
        (found,) = workflow.inspect(path)
        assert (found.node, found.heads, found.masked, found.reason) == ("Softmax_probabilities", 3, True, None)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        (b"", "is not an ONNX model"),
        (b"not a model at all", "is not an ONNX file, or is truncated"),
        ("half", "is not an ONNX file, or is truncated"),
    ],
)
def test_inspect_refuses_what_is_no_model(tmp_path: Path, content: bytes | str | None, problem: str) -> None:
    path = tmp_path / "bad.onnx"
    if content == "half":
        whole = VARIANT.model().SerializeToString()
        path.write_bytes(whole[: len(whole) // 2])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"bad\.onnx: {problem}") as error:
        workflow.inspect(path)
    assert len(str(error.value).splitlines()) == 1


def test_inspect_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder, not an ONNX file\. Name the \.onnx file in it\."):
        workflow.inspect(tmp_path)


# rewrite


def test_rewrite_without_calibration_uses_the_data_free_default(model: Path) -> None:
    report = workflow.rewrite(model)
    assert report.output == model.with_name("model.hccs.onnx")
    assert report.calibration == "data-free"
    assert [item.node for item in report.rewritten] == ["Softmax_probabilities"]
    assert report.params["logits"].heads == (DATA_FREE,)
    assert report.params["logits"].masked
    attributes = read_attributes(nodes(read_model(report.output), "HCCS")[0])
    (head,) = attributes.heads
    assert (head.B, head.S, head.Dmax) == (16259, 127, 127)
    np.testing.assert_allclose(head.scale * VARIANT.logit_factor, 3.3 / 127, rtol=1e-6)
    assert metadata(report.output)["hccs_onnx.calibration"] == "data-free"


def test_rewrite_leaves_the_original_as_it_is(model: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    workflow.rewrite(model)
    assert model.read_bytes() == before
    assert files(tmp_path) == {"model.onnx", "model.hccs.onnx"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.onnx", "a.hccs.onnx"), ("a", "a.hccs.onnx"), ("a.v2.onnx", "a.v2.hccs.onnx"), ("a.pb", "a.pb.hccs.onnx")],
)
def test_default_output_lies_beside_the_model(name: str, expected: str) -> None:
    assert workflow.default_output(Path("folder") / name) == Path("folder") / expected


def test_rewrite_replaces_an_older_output(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    workflow.rewrite(model, target)
    fresh = workflow.rewrite(model, tmp_path / "fresh.onnx").output
    assert target.read_bytes() == fresh.read_bytes()


def test_rewrite_uses_the_parameters_of_the_calibration(model: Path) -> None:
    calibration = calibration_for(model)
    report = workflow.rewrite(model, calibration=calibration)
    heads = read_attributes(nodes(read_model(report.output), "HCCS")[0]).heads
    for head, wanted in zip(heads, head_params(3), strict=True):
        assert (head.B, head.S, head.Dmax) == (wanted.B, wanted.S, wanted.Dmax)
        np.testing.assert_allclose(head.scale * VARIANT.logit_factor, wanted.scale, rtol=1e-6)
    digest = hashlib.sha256(calibration.to_json().encode()).hexdigest()
    assert report.calibration == digest
    assert metadata(report.output)["hccs_onnx.calibration"] == digest


def test_rewrite_takes_one_entry_for_all_heads(model: Path) -> None:
    report = workflow.rewrite(model, calibration=calibration_for(model, heads=1))
    assert len(read_attributes(nodes(read_model(report.output), "HCCS")[0]).heads) == 1


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"to": "uint8"}, r"another --to \(float, needs uint8\)"),
        ({"reciprocal": "div"}, r"another --reciprocal \(norm, needs div\)"),
        ({"profile": "paper"}, r"another --profile \(extended, needs paper\)"),
    ],
)
def test_rewrite_refuses_a_choice_that_the_calibration_was_not_made_with(
    model: Path, choice: dict[str, Any], text: str
) -> None:
    before = files(model.parent)
    with pytest.raises(CalibrationError, match=rf"^calibration: was made with {text}\. Calibrate again"):
        workflow.rewrite(model, calibration=calibration_for(model), **choice)
    assert files(model.parent) == before


def test_rewrite_takes_choices_that_the_calibration_was_made_with(model: Path) -> None:
    made: dict[str, Any] = {"to": "float", "reciprocal": "norm", "profile": "extended"}
    assert workflow.rewrite(model, calibration=calibration_for(model), **made).rewritten


def test_rewrite_masks_by_what_the_model_does_not_by_what_the_calibration_says(model: Path) -> None:
    calibration = calibration_for(model)
    unmasked = replace(calibration, softmaxes=(replace(calibration.softmaxes[0], masked=False),))
    report = workflow.rewrite(model, calibration=unmasked)
    assert read_attributes(nodes(read_model(report.output), "HCCS")[0]).masked


def refused(model: Path, error: type[HccsError], text: str, calibration: Calibration) -> None:
    """The rewrite fails with one line, and writes nothing."""
    before = files(model.parent)
    with pytest.raises(error, match=text) as caught:
        workflow.rewrite(model, calibration=calibration)
    assert len(str(caught.value).splitlines()) == 1
    assert files(model.parent) == before


def test_rewrite_refuses_the_calibration_of_another_model(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    onnx.save(Attention(mask="computed", scale="mul", size=8).model(), other)
    refused(
        model,
        CalibrationError,
        rf"model\.onnx: calibration is for another model \({sha256(other)[:12]}, needs {sha256(model)[:12]}\)\.",
        calibration_for(other),
    )


@pytest.mark.parametrize("heads", [2, 4, 6])
def test_rewrite_refuses_a_calibration_with_a_wrong_number_of_heads(model: Path, heads: int) -> None:
    text = (
        rf"node 'Softmax_probabilities': calibration has a wrong number of heads \({heads}, needs 1 or 3\)\. Calibrate"
    )
    refused(model, CalibrationError, text, calibration_for(model, heads=heads))


def test_rewrite_refuses_a_calibration_with_a_divisor_of_the_number_of_heads(tmp_path: Path) -> None:
    path = tmp_path / "four.onnx"
    onnx.save(Attention(heads=4).model(), path)
    refused(path, CalibrationError, r"wrong number of heads \(2, needs 1 or 4\)", calibration_for(path, heads=2))


def test_rewrite_refuses_a_calibration_that_lacks_a_node(model: Path) -> None:
    text = r"node 'Softmax_probabilities': is not in the calibration\. Calibrate again\."
    refused(model, CalibrationError, text, calibration_for(model, logits="others"))


@pytest.mark.parametrize("change", [{"B": 40000}, {"S": 128}, {"Dmax": 0}, {"scale": 0.0}, {"scale": float("nan")}])
def test_rewrite_refuses_illegal_parameters(model: Path, change: dict[str, float]) -> None:
    # Files are checked when they are read; this one comes from Python.
    calibration = calibration_for(model)
    softmax = calibration.softmaxes[0]
    heads = (replace(softmax.heads[0], params=replace(DATA_FREE, **change)), *softmax.heads[1:])
    refused(model, HccsError, "Softmax_probabilities", replace(calibration, softmaxes=(replace(softmax, heads=heads),)))


def test_rewrite_leaves_a_rewritten_model_as_it_is(model: Path, tmp_path: Path) -> None:
    first = workflow.rewrite(model).output
    report = workflow.rewrite(first, tmp_path / "again.onnx")
    assert report.rewritten == ()
    assert onnx.load(report.output) == onnx.load(first)


@pytest.mark.parametrize("choice", [{"to": "float"}, {"correct": "bias", "data": [VARIANT.feed()]}])
def test_rewrite_refuses_to_make_something_else_of_a_rewritten_model(model: Path, choice: dict[str, Any]) -> None:
    first = workflow.rewrite(model).output
    problem = r"model\.hccs\.onnx: holds 1 HCCS node already, and no other attention\. Start from the original\."
    with pytest.raises(ModelError, match=problem):
        workflow.rewrite(first, **choice)
    with pytest.raises(ModelError, match=problem):
        workflow.calibrate(first, [VARIANT.feed()])


def test_rewrite_refuses_to_overwrite_the_samples_it_corrects_on(model: Path, tmp_path: Path) -> None:
    (tmp_path / "feeds").mkdir()
    target = tmp_path / "feeds" / "0.npz"
    np.savez(target, **VARIANT.feed())
    before = target.read_bytes()
    with pytest.raises(ModelError, match=r"0\.npz: output is an input file"):
        workflow.rewrite(model, target, correct="bias", data=str(tmp_path / "feeds"))
    assert target.read_bytes() == before


def test_rewrite_adds_to_a_rewritten_model_what_was_left(digits_model: Path, tmp_path: Path) -> None:
    both = workflow.rewrite(digits_model, tmp_path / "both.onnx")
    names = [item.node for item in both.rewritten]
    one = workflow.rewrite(digits_model, tmp_path / "one.onnx", include=re.escape(names[0]))
    other = workflow.rewrite(digits_model, tmp_path / "other.onnx", exclude=re.escape(names[0]))
    assert [[item.node for item in report.rewritten] for report in (one, other)] == [names[:1], names[1:]]
    assert "not among those included" in str(one.found[1].reason)
    assert "excluded by" in str(other.found[0].reason)
    second = workflow.rewrite(one.output, tmp_path / "second.onnx")
    assert [item.node for item in second.rewritten] == names[1:]
    assert [node.name for node in onnx.load(second.output).graph.node if node.op_type == "HCCS"] == names


def test_excluded_attention_does_not_count_in_strict_mode(digits_model: Path, tmp_path: Path) -> None:
    name = workflow.inspect(digits_model)[0].node
    report = workflow.rewrite(digits_model, tmp_path / "o.onnx", strict=True, exclude=re.escape(name))
    assert len(report.rewritten) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include": "nothing"}, "include 'nothing'"),
        ({"exclude": "."}, "exclude '.'"),
        ({"include": "Softmax", "exclude": "."}, "include 'Softmax' and exclude '.'"),
    ],
)
def test_rewrite_refuses_patterns_that_leave_nothing(model: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(HccsError, match=rf"model\.onnx: none of 1 attention Softmax is chosen by {said}\. Their names"):
        workflow.rewrite(model, **options)  # type: ignore[arg-type]
    assert files(model.parent) == {"model.onnx"}


def test_rewrite_leaves_a_rewritten_model_as_it_is_when_nothing_else_is_chosen(
    digits_model: Path, tmp_path: Path
) -> None:
    first = workflow.inspect(digits_model)[0].node
    one = workflow.rewrite(digits_model, tmp_path / "one.onnx", include=re.escape(first))
    again = workflow.rewrite(one.output, tmp_path / "again.onnx", include=re.escape(first))
    assert onnx.load(again.output) == onnx.load(one.output)


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_rewrite_refuses_what_is_no_regular_expression(model: Path, option: str) -> None:
    with pytest.raises(HccsError, match=rf"^{option}: is no regular expression: .* \(\(\)"):
        workflow.rewrite(model, **{option: "("})


def test_rewrite_refuses_to_overwrite_its_input(model: Path) -> None:
    before = model.read_bytes()
    link = model.with_name("link.onnx")
    link.symlink_to(model)
    for target in (model, model.parent / ".." / model.parent.name / "model.onnx", link):
        with pytest.raises(ModelError, match=r"output is an input file\. Choose another name with -o\."):
            workflow.rewrite(model, target)
    assert model.read_bytes() == before


@pytest.mark.parametrize("target", ["missing/out.onnx", "folder"])
def test_rewrite_refuses_an_output_that_cannot_be_written(model: Path, target: str) -> None:
    (model.parent / "folder").mkdir()
    before = files(model.parent)
    with pytest.raises(ModelError, match=r"missing does not exist|is a folder, not a file"):
        workflow.rewrite(model, model.parent / target)
    assert files(model.parent) == before


def test_rewrite_leaves_nothing_when_writing_fails(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = files(model.parent)
    monkeypatch.setattr("hccs_onnx.graph.files.os.fsync", full)
    with pytest.raises(ModelError, match=r"model\.hccs\.onnx: cannot be written \(No space left on device\)\."):
        workflow.rewrite(model)
    assert files(model.parent) == before


def test_rewrite_leaves_nothing_when_it_is_interrupted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    old = model.with_name("model.hccs.onnx")
    old.write_bytes(b"old")
    monkeypatch.setattr("hccs_onnx.graph.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        workflow.rewrite(model)
    assert files(model.parent) == {"model.onnx", "model.hccs.onnx"}
    assert old.read_bytes() == b"old"


# models without attention, strict mode

CLASSIFIER = "g (float[b,8] x) => (float[b,8] y) { l = MatMul (x, w) y = Softmax <axis = -1> (l) }"
W = {"w": np.eye(8, dtype=np.float32)}
MIXED = """g (float[b,n,8] x, float[b,n,n] scores) => (float[b,n,8] y, float[b,n,8] z, float[b,n,8] c) {
    k = Transpose <perm = [0, 2, 1]> (x)
    l = MatMul (x, k) p = Softmax <axis = -1> (l) y = MatMul (p, x)
    p2 = Softmax <axis = -1> (scores) z = MatMul (p2, x)
    s = MatMul (x, w) c = Softmax <axis = -1> (s) }"""


def test_rewrite_refuses_a_model_without_softmax(tmp_path: Path) -> None:
    path = tmp_path / "relu.onnx"
    onnx.save(build("g (float[n] x) => (float[n] y) { y = Relu (x) }"), path)
    with pytest.raises(ModelError, match=r"relu\.onnx: holds no Softmax node\. Export it"):
        workflow.rewrite(path)
    assert workflow.inspect(path) == []
    assert files(tmp_path) == {"relu.onnx"}


def test_rewrite_refuses_a_model_without_attention_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "classifier.onnx"
    onnx.save(build(CLASSIFIER, W), path)
    text = r"holds no attention \(1 Softmax left alone, the first: logits come from MatMul 'MatMul_l' with"
    with pytest.raises(ModelError, match=text):
        workflow.rewrite(path)
    assert files(tmp_path) == {"classifier.onnx"}


def test_strict_refuses_when_something_like_attention_has_to_be_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mixed.onnx"
    onnx.save(build(MIXED, W), path)
    with pytest.raises(MatchError, match=r"Softmax 'Softmax_p2' looks like attention and cannot be rewritten: logits"):
        workflow.rewrite(path, strict=True)
    assert files(tmp_path) == {"mixed.onnx"}
    report = workflow.rewrite(path)
    assert [item.logits for item in report.rewritten] == ["l"]
    assert len(report.found) == 3


def test_strict_leaves_a_classifier_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    text = MIXED.replace("p2 = Softmax <axis = -1> (scores) z = MatMul (p2, x)", "z = Neg (x)")
    onnx.save(build(text, W), path)
    report = workflow.rewrite(path, strict=True)
    assert [item.reason is None for item in report.found] == [True, False]


def test_opset_that_is_too_old_is_refused_at_every_step(tmp_path: Path) -> None:
    path = tmp_path / "old.onnx"
    text = """g (float[b,n,8] x) => (float[b,n,8] y) { k = Transpose <perm = [0, 2, 1]> (x) l = MatMul (x, k)
        p = Softmax <axis = 2> (l) y = MatMul (p, x) }"""
    onnx.save(build(text, opset=10, ir_version=5), path)
    (found,) = workflow.inspect(path)
    assert (found.reason, found.attention_like) == ("is of opset 10, needs >= 11", True)
    refusal = r"old\.onnx: opset is too old \(10, needs >= 11\)\. Convert it with"
    with pytest.raises(ModelError, match=refusal):
        workflow.rewrite(path)
    with pytest.raises(ModelError, match=refusal):
        workflow.calibrate(path, [{"x": np.zeros((1, 3, 8), np.float32)}])
    assert files(tmp_path) == {"old.onnx"}


# calibrate


TWO_LAYERS = """g (float[b,n,8] x) => (float[b,n,8] z) {
    k = Transpose <perm = [0, 2, 1]> (x) l = MatMul (x, k) p = Softmax <axis = -1> (l) y = MatMul (p, x)
    s = Softplus (y) k2 = Transpose <perm = [0, 2, 1]> (s)
    l2 = MatMul (s, k2) p2 = Softmax <axis = -1> (l2) z = MatMul (p2, s) }"""


def test_calibrate_and_rewrite_fit_each_other(model: Path) -> None:
    feeds = [VARIANT.feed(4, 9, seed) for seed in range(3)]
    calibration = workflow.calibrate(model, feeds)
    assert calibration.model_sha256 == sha256(model)
    assert (calibration.granularity, calibration.output, calibration.profile) == ("head", "float", "extended")
    (softmax,) = calibration.softmaxes
    assert (softmax.node, softmax.logits, softmax.masked) == ("Softmax_probabilities", "logits", True)
    assert len({fit.params for fit in softmax.heads}) == 3
    report = workflow.rewrite(model, calibration=calibration)
    assert report.params["logits"].heads == tuple(fit.params for fit in softmax.heads)


@pytest.mark.parametrize("to", ["float", "uint8"])
def test_mask_input_of_minus_infinity_is_like_a_large_negative_one(tmp_path: Path, to: OutputType) -> None:
    path, data = tmp_path / "model.onnx", tmp_path / "data.npz"
    onnx.save(Attention(mask="input").model(), path)
    results = []
    for fill in (-1e4, -np.inf):
        np.savez(data, **Attention(mask="input", fill=fill).feed(8, 9))
        calibration = workflow.calibrate(path, data, to=to)
        report = workflow.rewrite(path, calibration=calibration, correct="least-squares", data=data)
        results.append((calibration.softmaxes, report.corrections, verify(path, report.output, data)))
    assert results[0] == results[1]
    assert results[1][1][0].reason is None
    assert all(np.isfinite(head.kl) for head in results[1][2].heads)


def test_rewrite_takes_a_calibration_by_its_path(model: Path, tmp_path: Path) -> None:
    calibration, path = calibration_for(model), tmp_path / "calibration.json"
    calibration.save(path)
    expected = workflow.rewrite(model, calibration=calibration).output.read_bytes()
    for given in (path, str(path)):
        assert workflow.rewrite(model, calibration=given).output.read_bytes() == expected
    with pytest.raises(CalibrationError, match=r"none\.json: cannot be read"):
        workflow.rewrite(model, calibration="none.json")


def test_calibrate_shares_parameters_within_a_layer(model: Path) -> None:
    (softmax,) = workflow.calibrate(model, [VARIANT.feed(4, 9)], granularity="layer").softmaxes
    assert len(softmax.heads) == 3
    assert len({fit.params for fit in softmax.heads}) == 1


def test_calibrate_shares_parameters_between_layers_only_when_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    onnx.save(build(TWO_LAYERS), path)
    feeds = [{"x": np.random.default_rng(0).normal(size=(4, 9, 8)).astype(np.float32)}]
    layer, shared = (workflow.calibrate(path, feeds, granularity=g) for g in ("layer", "global"))  # type: ignore[arg-type]
    distinct = [len({softmax.heads[0].params for softmax in result.softmaxes}) for result in (layer, shared)]
    assert distinct == [2, 1]


def test_calibrate_refuses_an_unknown_granularity(digits_model: Path) -> None:
    with pytest.raises(HccsError, match=r"granularity: unknown \(row, needs one of head, layer, global\)"):
        workflow.calibrate(digits_model, digits_model.parent / "calibration.npz", granularity="row")  # type: ignore[arg-type]


def test_calibrate_refuses_a_model_without_attention(tmp_path: Path) -> None:
    path = tmp_path / "classifier.onnx"
    onnx.save(build(CLASSIFIER, W), path)
    with pytest.raises(ModelError, match="holds no attention"):
        workflow.calibrate(path, [{"x": np.zeros((1, 8), np.float32)}])


def test_provenance_tells_parameters_apart(model: Path, tmp_path: Path) -> None:
    free = metadata(workflow.rewrite(model, tmp_path / "a.onnx").output)
    fitted = metadata(workflow.rewrite(model, tmp_path / "b.onnx", calibration=calibration_for(model)).output)
    assert set(free) == set(fitted) == {"hccs_onnx.calibration", "hccs_onnx.parameters_sha256", "hccs_onnx.version"}
    assert free["hccs_onnx.parameters_sha256"] != fitted["hccs_onnx.parameters_sha256"]
    assert free["hccs_onnx.version"] == fitted["hccs_onnx.version"]


def test_weights_are_not_touched(model: Path) -> None:
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in read_model(model).graph.initializer}
    after = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in read_model(workflow.rewrite(model).output).graph.initializer
    }
    for name, value in before.items():
        if name != "factor":  # absorbed
            np.testing.assert_array_equal(after[name], value)
