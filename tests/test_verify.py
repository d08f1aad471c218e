"""Verify: right numbers on hand-made outputs, bounds that hold, and models that do not belong together refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from hccs_onnx import Bounds, HccsError, calibrate, rewrite, verify
from hccs_onnx.backends import Backend
from hccs_onnx.demo import bundled_models
from hccs_onnx.errors import DataError, ModelError, UsageError
from hccs_onnx.operator.schema import is_hccs
from hccs_onnx.params import DATA_FREE, OutputType
from hccs_onnx.reference import hccs
from hccs_onnx.verify import OutputComparison

Feed = dict[str, np.ndarray]
Change = Callable[[onnx.ModelProto], None]

# Attention beside a branch that hands `x` on: the rewritten model's branch is then changed by hand.
TEXT = """<ir_version: 8, opset_import: ["": 17]>
pair (float[batch,2,n,4] q, float[batch,2,n,4] k, float[batch,2,n,4] v, float[rows,classes] x)
  => (float[batch,2,n,4] y, float[rows,classes] side, int64[2] size)
{
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  logits = MatMul (q, kt)
  probabilities = Softmax <axis = -1> (logits)
  y = MatMul (probabilities, v)
  side = Identity (x)
  size = Shape (x)
}"""
CHOOSING = """<ir_version: 8, opset_import: ["": 17]>
choosing (float[batch,2,n,4] q, float[batch,2,n,4] k, float[batch,2,n,4] v) => (int64[batch,2,n,1] best)
{
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  logits = MatMul (q, kt)
  probabilities = Softmax <axis = -1> (logits)
  y = MatMul (probabilities, v)
  best = ArgMax <axis = 3> (y)
}"""
GUARDED = """<ir_version: 8, opset_import: ["": 17]>
guarded (float[batch,2,n,4] q, float[batch,2,n,4] k, float[batch,2,n,4] v, float[batch,1,1,n] mask)
  => (float[batch,2,n,4] y) <float zero = {0.0}>
{
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  product = MatMul (q, kt)
  logits = Add (product, mask)
  softmax = Softmax <axis = -1> (logits)
  bad = IsNaN (softmax)
  probabilities = Where (bad, zero, softmax)
  y = MatMul (probabilities, v)
}"""


def attention_feed(seed: int = 0, n: int = 6, spread: float = 1.0) -> Feed:
    rng = np.random.default_rng(seed)
    return {name: (spread * rng.normal(size=(1, 2, n, 4))).astype(np.float32) for name in "qkv"}


def pair(folder: Path, change: Change | None = None, text: str = TEXT) -> tuple[Path, Path]:
    """A model and what rewrite made of it, changed by hand."""
    original, rewritten = folder / "original.onnx", folder / "rewritten.onnx"
    onnx.save(onnx.parser.parse_model(text), original)
    rewrite(original, rewritten)
    if change is not None:
        model = onnx.load(rewritten)
        change(model)
        onnx.save(model, rewritten)
    return original, rewritten


def side(op: str, constant: np.ndarray | float | None = None) -> Change:
    """The side branch computes `op(x)` or `op(x, constant)`."""

    def change(model: onnx.ModelProto) -> None:
        (node,) = (node for node in model.graph.node if "side" in node.output)
        node.op_type = op
        if constant is not None:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(constant, np.float32), "constant"))
            node.input.append("constant")

    return change


def attribute(name: str, values: list[float]) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (node,) = (node for node in model.graph.node if is_hccs(node))
        (found,) = (item for item in node.attribute if item.name == name)
        found.CopyFrom(onnx.helper.make_attribute(name, values))

    return change


def compare_side(folder: Path, change: Change, *samples: np.ndarray) -> OutputComparison:
    feeds = [{**attention_feed(), "x": np.asarray(x, np.float32)} for x in samples]
    result = verify(*pair(folder, change), feeds)
    assert result.samples == len(samples)
    return next(output for output in result.outputs if output.name == "side")


# --- outputs -------------------------------------------------------------------------------------------------------


def test_outputs_agree_fully_when_they_are_identical(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5))
    assert compare_side(tmp_path, side("Identity"), x, x) == OutputComparison(
        "side", 0.0, 0.0, pytest.approx(1), 1, 1.0
    )


def test_outputs_are_compared_over_all_samples(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=(rows, 5)).astype(np.float32) for rows in (1, 3, 2)]
    shift = rng.normal(size=5).astype(np.float32)
    result = compare_side(tmp_path, side("Add", shift), *samples)

    left = np.concatenate(samples).astype(np.float64)
    right = (np.concatenate(samples) + shift).astype(np.float64)
    cosine = [a @ b / math.sqrt((a @ a) * (b @ b)) for a, b in zip(left, right, strict=True)]
    assert result.max_difference == pytest.approx(np.abs(left - right).max(), rel=1e-12)
    assert result.mean_difference == pytest.approx(np.abs(left - right).mean(), rel=1e-12)
    assert result.mean_cosine == pytest.approx(np.mean(cosine), rel=1e-12)
    assert result.worst_cosine == pytest.approx(min(cosine), rel=1e-12)
    assert result.argmax_agreement == np.mean(left.argmax(1) == right.argmax(1))


def test_cosine_is_minus_one_when_the_output_is_negated(tmp_path: Path) -> None:
    result = compare_side(tmp_path, side("Neg"), [[1.0, -2.0, 3.0]])
    assert (result.mean_cosine, result.worst_cosine) == (pytest.approx(-1), pytest.approx(-1))
    assert (result.max_difference, result.mean_difference, result.argmax_agreement) == (6.0, 4.0, 0.0)


def test_cosine_is_one_for_two_zero_vectors_and_zero_for_one(tmp_path: Path) -> None:
    x = np.zeros((2, 3), np.float32)
    assert compare_side(tmp_path, side("Identity"), x).worst_cosine == 1.0
    assert compare_side(tmp_path, side("Add", 1.0), x).mean_cosine == 0.0


def test_argmax_agreement_counts_rows(tmp_path: Path) -> None:
    x = [[0.0, 1.0, 2.0], [5.0, 1.0, 2.0], [0.0, 9.0, 2.0], [1.0, 2.0, 3.0]]
    assert compare_side(tmp_path, side("Mul", [1.0, 1.0, 0.1]), x).argmax_agreement == 0.5


def test_argmax_agreement_is_for_class_scores_only(tmp_path: Path) -> None:
    assert compare_side(tmp_path, side("Identity"), [[1.0], [2.0]]).argmax_agreement is None
    result = verify(*pair(tmp_path), [{**attention_feed(), "x": np.ones((1, 3), np.float32)}])
    assert {output.name: output.argmax_agreement for output in result.outputs} == {"y": None, "side": 1.0}


def test_outputs_of_whole_numbers_are_left_out(tmp_path: Path) -> None:
    result = verify(*pair(tmp_path), [{**attention_feed(), "x": np.ones((1, 3), np.float32)}])
    assert [output.name for output in result.outputs] == ["y", "side"]


def all_bounds(low: float, difference: float) -> Bounds:
    return Bounds(min_cosine=low, min_worst_cosine=low, min_agreement=max(low, 0), max_difference=difference)


def test_output_fails_bounds_when_it_is_nan(tmp_path: Path) -> None:
    models = pair(tmp_path, side("Div", [0.0, 1.0, 1.0]))
    feeds = [{**attention_feed(), "x": np.array([[0, 1, 2], [3, 4, 5]], np.float32)}]
    bounds = Bounds(min_cosine=-1, min_worst_cosine=-1, max_difference=math.inf)
    result = verify(*models, feeds, bounds=bounds)
    output = next(output for output in result.outputs if output.name == "side")
    assert all(
        math.isnan(value)
        for value in (output.mean_cosine, output.worst_cosine, output.max_difference, output.mean_difference)
    )
    assert len(result.failures) == 3
    assert all("output 'side'" in failure and "(nan, needs" in failure for failure in result.failures)


def test_argmax_does_not_agree_when_the_scores_are_nan(tmp_path: Path) -> None:
    result = compare_side(tmp_path, side("Mul", np.nan), [[3.0, 1.0, 2.0], [5.0, 1.0, 2.0]])
    assert result.argmax_agreement == 0.0


def test_output_fails_bounds_when_it_is_infinite(tmp_path: Path) -> None:
    models = pair(tmp_path, side("Div", 0.0))
    result = verify(
        *models, [{**attention_feed(), "x": np.ones((1, 3), np.float32)}], bounds=Bounds(max_difference=1e30)
    )
    assert [failure.split(":")[0] for failure in result.failures] == ["output 'side'"]


def test_outputs_agree_fully_when_both_hold_the_same_infinities(tmp_path: Path) -> None:
    def suppress(model: onnx.ModelProto) -> None:
        side("Add", [0.0, -np.inf, 0.0])(model)

    original, rewritten = pair(tmp_path, suppress)
    model = onnx.load(original)
    suppress(model)
    onnx.save(model, original)
    result = verify(original, rewritten, [{**attention_feed(), "x": np.ones((1, 3), np.float32)}])
    output = next(output for output in result.outputs if output.name == "side")
    assert (output.max_difference, output.mean_cosine, output.worst_cosine) == (0.0, 1.0, 1.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 6))
def test_cosine_stays_within_its_range(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, classes: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "cosine"
    if not folder.exists():
        folder.mkdir()
        pair(folder, side("Neg"))
    x = np.random.default_rng(seed).normal(size=(rows, classes)).astype(np.float32)
    result = verify(folder / "original.onnx", folder / "rewritten.onnx", [{**attention_feed(), "x": x}])
    for output in result.outputs:
        assert -1 - 1e-12 <= output.worst_cosine <= output.mean_cosine + 1e-12 <= 1 + 2e-12
        assert output.max_difference >= output.mean_difference >= 0


# --- bounds --------------------------------------------------------------------------------------------------------

GOOD = OutputComparison("y", 0.25, 0.125, 0.75, 0.5, 0.875)


def test_bounds_are_met_when_values_equal_them() -> None:
    assert (
        Bounds(min_cosine=0.75, min_worst_cosine=0.5, min_agreement=0.875, max_difference=0.25).failures([GOOD]) == ()
    )


@pytest.mark.parametrize(
    ("bounds", "failure"),
    [
        (Bounds(min_cosine=0.8), "output 'y': mean cosine is too low (0.750000, needs >= 0.8)"),
        (Bounds(min_worst_cosine=0.51), "output 'y': worst cosine is too low (0.500000, needs >= 0.51)"),
        (Bounds(min_agreement=0.9), "output 'y': argmax agreement is too low (0.875000, needs >= 0.9)"),
        (Bounds(max_difference=0.2), "output 'y': largest difference is too high (0.250000, needs <= 0.2)"),
        (Bounds(max_difference=0.0), "output 'y': largest difference is too high (0.250000, needs <= 0.0)"),
    ],
    ids=["cosine", "worst_cosine", "agreement", "difference", "no_difference"],
)
def test_bounds_are_missed_with_a_line_each(bounds: Bounds, failure: str) -> None:
    assert bounds.failures([GOOD]) == (failure,)
    assert len(bounds.failures([GOOD, GOOD])) == 2


def test_bounds_demand_nothing_by_default() -> None:
    worst = OutputComparison("y", math.nan, math.nan, math.nan, math.nan, 0.0)
    assert Bounds().failures([worst]) == ()


def test_bounds_are_all_missed_when_values_are_nan() -> None:
    nan = OutputComparison("y", *[math.nan] * 5)
    assert len(all_bounds(-1.0, math.inf).failures([nan])) == 4


def test_bound_on_agreement_fails_when_no_output_has_classes() -> None:
    y = OutputComparison("y", 1, 1, 0, 0, None)
    expected = ("argmax agreement: no float output (batch, class) to judge (needs >= 0.5)",)
    assert Bounds(min_agreement=0.5).failures([y]) == Bounds(min_agreement=0.5).unjudged([y]) == expected
    assert Bounds(min_agreement=0.5).failures([y, GOOD]) == Bounds(min_agreement=0.5).unjudged([y, GOOD]) == ()


def test_every_bound_fails_when_there_is_no_output_to_judge() -> None:
    failures = all_bounds(0.0, 1.0).failures([])
    assert [failure.split(":")[0] for failure in failures] == [
        "mean cosine", "worst cosine", "argmax agreement", "largest difference",
    ]  # fmt: skip


def test_verify_fails_a_bound_when_the_only_output_is_of_whole_numbers(tmp_path: Path) -> None:
    result = verify(*pair(tmp_path, text=CHOOSING), [attention_feed()], bounds=Bounds(min_cosine=0.5))
    assert result.outputs == ()
    assert result.failures == ("mean cosine: no float output to judge (needs >= 0.5)",)


@pytest.mark.parametrize(
    ("bound", "needs"),
    [
        ({"min_cosine": 95.0}, "95.0, needs -1..1"),
        ({"min_worst_cosine": -1.1}, "-1.1, needs -1..1"),
        ({"min_agreement": 98}, "98, needs 0..1"),
        ({"min_agreement": -0.1}, "-0.1, needs 0..1"),
        ({"max_difference": -1.0}, "-1.0, needs 0..inf"),
        ({"min_cosine": math.nan}, "nan, needs -1..1"),
        ({"max_difference": math.nan}, "nan, needs 0..inf"),
    ],
)
def test_bound_that_can_be_none_is_refused(bound: dict[str, float], needs: str) -> None:
    with pytest.raises(UsageError) as caught:
        Bounds(**bound)
    assert str(caught.value) == f"{next(iter(bound))}: out of range ({needs})."


def test_verify_reports_the_bounds_that_fail(tmp_path: Path) -> None:
    models = pair(tmp_path, side("Neg"))
    feeds = [{**attention_feed(), "x": np.array([[1, 2]], np.float32)}]
    assert verify(*models, feeds, bounds=all_bounds(-1.0, 1e9)).failures == ()
    failures = verify(*models, feeds, bounds=all_bounds(0.5, 3.9)).failures
    assert [failure.split(" is ")[0] for failure in failures] == [
        f"output 'side': {what}" for what in ("mean cosine", "worst cosine", "argmax agreement", "largest difference")
    ]


# --- heads ---------------------------------------------------------------------------------------------------------


def expected_heads(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """KL and deficit of each head of logits (batch, head, query, key), from the definitions."""
    y = hccs(logits, np.float32, B=[DATA_FREE.B], S=[DATA_FREE.S], Dmax=[DATA_FREE.Dmax], scale=[DATA_FREE.scale])
    y = y.astype(np.float64)
    p = np.exp((logits - logits.max(-1, keepdims=True)).astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    kl = (p * np.log(p / (y / y.sum(-1, keepdims=True)))).sum(-1)
    return kl.mean(axis=(0, 2)), (1 - y.sum(-1)).mean(axis=(0, 2))


def test_heads_have_the_kl_and_deficit_of_their_rows(tmp_path: Path) -> None:
    feeds = [{**attention_feed(seed, 5), "x": np.ones((1, 2), np.float32)} for seed in range(3)]
    result = verify(*pair(tmp_path), feeds)
    logits = np.concatenate([feed["q"] @ feed["k"].transpose(0, 1, 3, 2) for feed in feeds])
    kl, deficit = expected_heads(logits)
    assert [head.head for head in result.heads] == [0, 1]
    np.testing.assert_allclose([head.kl for head in result.heads], kl, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose([head.deficit for head in result.heads], deficit, atol=1e-7)
    assert result.backend == "function"


def test_head_kl_is_infinite_when_hccs_hides_what_softmax_sees(tmp_path: Path) -> None:
    original, rewritten = pair(tmp_path, attribute("B", [127 * 127]))  # score floor 0
    feeds = [{**attention_feed(spread=3.0), "x": np.ones((1, 2), np.float32)}]
    assert [head.kl for head in verify(original, rewritten, feeds).heads] == [math.inf, math.inf]


def test_head_kl_is_not_a_number_when_its_probabilities_are_not(tmp_path: Path) -> None:
    original, rewritten = pair(tmp_path, attribute("scale", [math.nan]))
    feeds = [{**attention_feed(), "x": np.ones((1, 2), np.float32)}]
    result = verify(original, rewritten, feeds)
    assert math.isnan(result.outputs[0].mean_cosine)
    assert all(math.isnan(head.kl) and math.isnan(head.deficit) for head in result.heads)


def test_fully_masked_rows_do_not_count(tmp_path: Path) -> None:
    models = pair(tmp_path, text=GUARDED)
    mask = np.zeros((1, 1, 1, 6), np.float32)
    feeds = [{**attention_feed(seed), "mask": mask} for seed in range(2)]
    dead = {**attention_feed(2), "mask": mask - np.float32(3.4e38)}
    dead["q"], dead["k"] = np.full_like(dead["q"], 1e18), np.full_like(dead["k"], -1e20)  # all logits -inf
    alone, with_dead = verify(*models, feeds), verify(*models, [*feeds, dead])
    assert with_dead.samples == 3
    assert with_dead.heads == alone.heads


@pytest.mark.parametrize("to", ["float", "uint8"])
def test_sample_that_is_all_padding_does_not_count(to: OutputType, tmp_path: Path) -> None:
    original = tmp_path / "original.onnx"
    onnx.save(onnx.parser.parse_model(GUARDED), original)
    mask = np.zeros((1, 1, 1, 6), np.float32)
    feeds = [{**attention_feed(seed), "mask": mask} for seed in range(3)]
    rewritten = rewrite(original, tmp_path / "r.onnx", calibration=calibrate(original, feeds, to=to)).output
    dead = {**attention_feed(3), "mask": mask - np.float32(1e4)}
    alone, with_dead = verify(original, rewritten, feeds), verify(original, rewritten, [*feeds, dead])
    assert all(0 < head.kl < 0.5 for head in alone.heads)
    assert with_dead.heads == alone.heads


def test_probabilities_may_be_an_output_too(tmp_path: Path) -> None:
    text = TEXT.replace("int64[2] size)", "int64[2] size, float[batch,2,n,n] probabilities)")
    result = verify(*pair(tmp_path, text=text), [{**attention_feed(), "x": np.ones((1, 2), np.float32)}])
    assert [output.name for output in result.outputs] == ["y", "side", "probabilities"]
    assert len(result.heads) == 2
    assert all(0 < head.kl < 0.5 for head in result.heads)


# --- backends and types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "python"])
def test_backend_gives_the_same_numbers_as_the_function_body(
    request: pytest.FixtureRequest, tmp_path: Path, digits_model: Path, backend: Backend
) -> None:
    if backend == "native":
        request.getfixturevalue("native_library")
    rewrite(digits_model, tmp_path / "r.onnx")
    with np.load(bundled_models() / "test.npz") as data:
        feeds = [{"pixels": data["pixels"][:5]}, {"pixels": data["pixels"][5:6]}]
    expected, actual = (verify(digits_model, tmp_path / "r.onnx", feeds, backend=b) for b in ("function", backend))
    assert (expected.backend, actual.backend) == ("function", backend)
    assert (actual.outputs, actual.heads) == (expected.outputs, expected.heads)


def test_verify_is_refused_when_the_backend_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(HccsError, match=r"backend: unknown \(abacus, needs one of function, native, python\)"):
        verify(*pair(tmp_path), [{**attention_feed(), "x": np.ones((1, 2), np.float32)}], backend="abacus")  # type: ignore[arg-type]


def test_half_precision_is_compared_like_single(tmp_path: Path) -> None:
    text = TEXT.replace("float[batch", "float16[batch")
    half, single = tmp_path / "half", tmp_path / "single"
    half.mkdir()
    single.mkdir()
    feeds = [{**attention_feed(), "x": np.ones((1, 2), np.float32)}]
    halves = [{name: v.astype(np.float16) if name != "x" else v for name, v in feed.items()} for feed in feeds]
    result, expected = verify(*pair(half, text=text), halves), verify(*pair(single), feeds)
    assert {output.name for output in result.outputs} == {"y", "side"}
    np.testing.assert_allclose([h.kl for h in result.heads], [h.kl for h in expected.heads], rtol=0.05)
    assert result.outputs[0].mean_cosine == pytest.approx(expected.outputs[0].mean_cosine, abs=1e-3)


# --- what does not fit ---------------------------------------------------------------------------------------------

FEEDS = [{**attention_feed(), "x": np.ones((1, 2), np.float32)}]


def test_verify_is_refused_when_the_rewritten_model_holds_no_hccs_node(tmp_path: Path) -> None:
    original, rewritten = pair(tmp_path)
    with pytest.raises(ModelError, match=r"original.onnx: holds no HCCS node\. Rewrite the original first"):
        verify(original, original, FEEDS)
    with pytest.raises(ModelError, match=r"original.onnx: holds no HCCS node"):
        verify(rewritten, original, FEEDS)


def test_verify_is_refused_when_the_original_is_the_rewritten_model(tmp_path: Path) -> None:
    _, rewritten = pair(tmp_path)
    with pytest.raises(ModelError, match="1 of 1 HCCS nodes replace no Softmax of"):
        verify(rewritten, rewritten, FEEDS)


@pytest.mark.parametrize("field", ["input", "output"])
def test_verify_is_refused_when_inputs_or_outputs_differ(tmp_path: Path, field: str) -> None:
    original, rewritten = pair(tmp_path)
    model = onnx.load(original)
    del getattr(model.graph, field)[-1]
    onnx.save(model, original)
    with pytest.raises(ModelError, match=r"rewritten.onnx: has other inputs or outputs than the original"):
        verify(original, rewritten, FEEDS)


def test_verify_is_refused_when_hccs_nodes_replace_nothing(tmp_path: Path) -> None:
    digits = bundled_models()
    rewrite(digits / "digits_dynamo.onnx", tmp_path / "r.onnx")
    with pytest.raises(ModelError, match=r"2 of 2 HCCS nodes replace no Softmax of .*digits_torchscript.onnx"):
        verify(digits / "digits_torchscript.onnx", tmp_path / "r.onnx", digits / "test.npz")


def test_verify_is_refused_when_the_data_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data: sample 0: lacks input x"):
        verify(*pair(tmp_path), [attention_feed()])
    with pytest.raises(DataError, match="holds no samples"):
        verify(*pair(tmp_path), [])
