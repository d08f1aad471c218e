"""Attention in the bodies of If, Loop and Scan: found, rewritten in place, calibrated and verified."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import build, op_types

from hccs_onnx import calibrate, inspect, rewrite, verify
from hccs_onnx.backends import BACKENDS, Backend
from hccs_onnx.errors import CalibrationError, ModelError
from hccs_onnx.graph.names import nested_graphs
from hccs_onnx.graph.scopes import describe, make_names_unique, scopes
from hccs_onnx.operator.schema import is_hccs, read_attributes
from hccs_onnx.params import DATA_FREE, OutputType
from hccs_onnx.reference import hccs

F32 = np.float32
WEIGHTS = {"half": F32(0.5), "fill": F32(-1e4)}
INPUTS = "float[b,2,n,4] q, float[b,2,n,4] k, float[b,2,n,4] v, int64[b,1,1,n] hidden"
CORE = (
    "kt = Transpose <perm = [0, 1, 3, 2]> ({k}) raw = MatMul ({q}, kt) scaled = Mul (raw, half) "
    "number = Cast <to = 1> (hidden) mask = Mul (number, fill) "
    "l = Add (scaled, mask) p = Softmax <axis = -1> (l) {y} = MatMul (p, {v})"
)


def core(y: str, q: str = "q", k: str = "k", v: str = "v") -> str:
    return CORE.format(y=y, q=q, k=k, v=v)


# The same names in both branches, on purpose: ONNX allows it.
IF = (
    f"g ({INPUTS}, bool flag) => (float[b,2,n,4] y) {{ y = If (flag) <"
    f"then_branch = t () => (float[b,2,n,4] z) {{ {core('z')} }}, "
    f"else_branch = e () => (float[b,2,n,4] z) {{ {core('z', q='k')} }}> }}"
)
LOOP = (
    f"g ({INPUTS}, int64 trips) => (float[b,2,n,4] y) {{ y = Loop (trips, yes, q) <body = body "
    f"(int64 i, bool go, float[b,2,n,4] state) => (bool on, float[b,2,n,4] z) {{ on = Identity (go) "
    f"{core('z', q='state')} }}> }}"
)
SCAN = (
    f"g ({INPUTS}, float[s,b,2,n,4] steps) => (float[s,b,2,n,4] y) {{ y = Scan <num_scan_inputs = 1, body = body "
    f"(float[b,2,n,4] step) => (float[b,2,n,4] z) {{ {core('z', q='step')} }}> (steps) }}"
)
DEEP = (
    f"g ({INPUTS}, int64 trips, bool flag) => (float[b,2,n,4] y) {{ y = Loop (trips, yes, q) <body = body "
    "(int64 i, bool go, float[b,2,n,4] state) => (bool on, float[b,2,n,4] w) { on = Identity (go) "
    f"w = If (flag) <then_branch = t () => (float[b,2,n,4] z) {{ {core('z', q='state')} }}, "
    "else_branch = e () => (float[b,2,n,4] z) { z = Identity (state) }> }> }"
)
CASES = {"If": IF, "Loop": LOOP, "Scan": SCAN, "If in Loop": DEEP}
COUNT = {"If": 2, "Loop": 1, "Scan": 1, "If in Loop": 1}


def model(case: str) -> onnx.ModelProto:
    return build(CASES[case], {**WEIGHTS, "yes": np.array(True)})


def feed(case: str, seed: int = 0, flag: bool = True) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    result = {name: random.normal(0, 1.5, (2, 2, 7, 4)).astype(F32) for name in "qkv"}
    result["hidden"] = np.zeros((2, 1, 1, 7), np.int64)
    result["hidden"][0, ..., -2:] = 1
    if "Loop" in case:
        result["trips"] = np.array(3)
    if "If" in case:
        result["flag"] = np.array(flag)
    if case == "Scan":
        result["steps"] = random.normal(0, 1.5, (3, 2, 2, 7, 4)).astype(F32)
    return result


def attention(q: np.ndarray, feed: dict[str, np.ndarray]) -> np.ndarray:
    """Data-free HCCS attention, in NumPy."""
    logits = (q @ feed["k"].swapaxes(-1, -2)) * F32(0.5) + feed["hidden"].astype(F32) * F32(-1e4)
    one = DATA_FREE
    p = hccs(logits, F32, B=[one.B], S=[one.S], Dmax=[one.Dmax], scale=[one.scale], masked=True)
    assert not p[0, ..., -2:].any()
    result: np.ndarray = p @ feed["v"]
    return result


def expected(case: str, feed: dict[str, np.ndarray]) -> np.ndarray:
    if case == "Scan":
        return np.stack([attention(step, feed) for step in feed["steps"]])
    if case == "If":
        return attention(feed["q"] if feed["flag"] else feed["k"], feed)
    state = feed["q"]
    for _ in range(int(feed["trips"])):
        state = attention(state, feed) if feed.get("flag", True) else state
    return state


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("flag", [True, False])
def test_attention_in_a_body_is_rewritten_in_place_and_equals_the_reference(
    case: str, flag: bool, tmp_path: Path, run: Run
) -> None:
    onnx.save(model(case), tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert [(item.reason, item.heads, item.masked) for item in found] == [(None, 2, True)] * COUNT[case]
    report = rewrite(tmp_path / "m.onnx")
    result = onnx.load(report.output)
    onnx.checker.check_model(result)
    inside = [node for graph in list(nested_graphs(result.graph))[1:] for node in graph.node]
    assert sum(map(is_hccs, inside)) == COUNT[case]
    assert "Softmax" not in [node.op_type for node in inside]
    assert not [name for node in inside for name in node.output if name.startswith("scaled")]  # absorbed
    assert [node.op_type for node in result.graph.node] == op_types(model(case))
    assert "half" not in [tensor.name for tensor in result.graph.initializer]
    given = feed(case, flag=flag)
    for backend in ("function", "python"):
        actual = run(result, given, backend)[0]
        np.testing.assert_allclose(actual, expected(case, given), rtol=0, atol=2e-2 if "Loop" in case else 1e-5)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("to", ["float", "uint8"])
def test_attention_in_a_body_is_calibrated_and_verified(
    case: str, to: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    onnx.save(model(case), tmp_path / "m.onnx")
    feeds = [feed(case, seed, flag=seed % 2 == 0) for seed in range(6)]
    calibration = calibrate(tmp_path / "m.onnx", feeds, to=to)  # type: ignore[arg-type]
    assert [len(softmax.heads) for softmax in calibration.softmaxes] == [2] * COUNT[case]
    assert len({fit.params for softmax in calibration.softmaxes for fit in softmax.heads}) > 1
    report = rewrite(tmp_path / "m.onnx", calibration=calibration)
    assert len(report.rewritten) == COUNT[case]
    with caplog.at_level(logging.WARNING):
        result = verify(tmp_path / "m.onnx", report.output, feeds)
    assert result.outputs[0].mean_cosine > 0.9
    assert [head.head for head in result.heads] == [0, 1] * COUNT[case]
    assert all(0 < head.kl < 0.3 for head in result.heads)
    assert caplog.text == ""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("to", ["float", "uint8"])
def test_heads_in_a_body_are_compared_as_those_of_the_main_graph(
    tmp_path: Path, to: OutputType, backend: Backend, request: pytest.FixtureRequest
) -> None:
    if backend == "native":
        request.getfixturevalue("native_library")
    then = IF.split("then_branch = t () => (float[b,2,n,4] z) { ")[1].split(" }, else", maxsplit=1)[0]
    onnx.save(model("If"), tmp_path / "if.onnx")
    onnx.save(build(f"g ({INPUTS}) => (float[b,2,n,4] z) {{ {then} }}", WEIGHTS), tmp_path / "flat.onnx")
    feeds = [feed("If", seed) for seed in range(3)]
    without = [{name: value for name, value in each.items() if name != "flag"} for each in feeds]
    heads = []
    for name, data in (("if", feeds), ("flat", without)):
        path = tmp_path / f"{name}.onnx"
        report = rewrite(path, calibration=calibrate(path, data, to=to))
        heads.append(verify(path, report.output, data, backend=backend).heads)
    assert [(head.kl, head.deficit) for head in heads[0]] == [(head.kl, head.deficit) for head in heads[1]]


@pytest.mark.parametrize("case", CASES)
def test_quantised_logits_in_a_body_keep_their_codes_without_data(case: str, tmp_path: Path) -> None:
    pair = "codes = QuantizeLinear (scaled, s, zero) near = DequantizeLinear (codes, s, zero) l = Add (near, mask)"
    text = CASES[case].replace("l = Add (scaled, mask)", pair)
    constants = {**WEIGHTS, "yes": np.array(True), "s": F32(0.1), "zero": np.uint8(120)}
    onnx.save(build(text, constants), tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx", to="uint8")
    assert len(report.rewritten) == COUNT[case]
    feeds = [feed(case, seed, flag=seed % 2 == 0) for seed in range(4)]
    result = verify(tmp_path / "m.onnx", report.output, feeds)
    assert result.outputs[0].mean_cosine > (0.8 if "Loop" in case else 0.9)  # three times the same attention
    assert all(0 < head.kl < 0.3 for head in result.heads)


def test_heads_in_a_body_that_never_ran_are_not_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    onnx.save(model("If"), tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx")
    with caplog.at_level(logging.WARNING):
        result = verify(tmp_path / "m.onnx", report.output, [feed("If", flag=False)])
    assert {head.node for head in result.heads} == {report.rewritten[1].node}
    (record,) = caplog.records
    assert record.getMessage().endswith("in then_branch of If 'If_y' never ran on the data: not compared")


def test_attention_before_and_in_a_body_of_a_body_is_calibrated_and_verified(tmp_path: Path) -> None:
    before = core("r", q="state").replace("kt", "kt0")
    for name in ("raw", "scaled", "number", "mask", "l", "p"):
        before = re.sub(rf"\b{name}\b", f"{name}0", before)
    text = DEEP.replace("w = If", f"{before} w = If").replace(core("z", q="state"), core("z", q="r"))
    onnx.save(build(text, {**WEIGHTS, "yes": np.array(True)}), tmp_path / "m.onnx")
    feeds = [feed("If in Loop", seed) for seed in range(3)]
    calibration = calibrate(tmp_path / "m.onnx", feeds)
    assert len(calibration.softmaxes) == 2
    report = rewrite(tmp_path / "m.onnx", calibration=calibration)
    result = verify(tmp_path / "m.onnx", report.output, feeds)
    assert len(result.heads) == 4
    assert all(0 < head.kl < 0.3 for head in result.heads)


def test_rewritten_body_is_left_as_it_is(tmp_path: Path) -> None:
    onnx.save(model("If in Loop"), tmp_path / "m.onnx")
    once = rewrite(tmp_path / "m.onnx").output
    assert rewrite(once, tmp_path / "again.onnx").output.read_bytes() == once.read_bytes()


def test_body_that_reads_from_around_is_rewritten_and_what_lies_around_is_kept(tmp_path: Path, run: Run) -> None:
    around = (
        f"g ({INPUTS}, bool flag) => (float[b,2,n,4] y) {{ kt = Transpose <perm = [0, 1, 3, 2]> (k) "
        "raw = MatMul (q, kt) scaled = Mul (raw, half) number = Cast <to = 1> (hidden) mask = Mul (number, fill) "
        "y = If (flag) <then_branch = t () => (float[b,2,n,4] z) { l = Add (scaled, mask) "
        "p = Softmax <axis = -1> (l) z = MatMul (p, v) }, else_branch = e () => (float[b,2,n,4] w) "
        "{ w = Identity (v) }> }"
    )
    original = build(around, WEIGHTS)
    onnx.save(original, tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx")
    assert [item.factor for item in report.rewritten] == [1.0]
    result = onnx.load(report.output)
    assert op_types(result) == op_types(original)
    given = feed("If")
    np.testing.assert_allclose(run(result, given)[0], expected("If", given), rtol=0, atol=1e-5)


def test_recorded_logits_are_those_that_softmax_reads(tmp_path: Path) -> None:
    onnx.save(model("If"), tmp_path / "if.onnx")
    then = (
        IF.split("then_branch = t () => (float[b,2,n,4] z) { ")[1]
        .split(" }, else", maxsplit=1)[0]
        .replace("z =", "y =")
    )
    flat = build(f"g ({INPUTS}) => (float[b,2,n,4] y) {{ {then} }}", WEIGHTS)
    onnx.save(flat, tmp_path / "flat.onnx")
    feeds = [feed("If", seed) for seed in range(3)]
    inside = calibrate(tmp_path / "if.onnx", feeds)
    outside = calibrate(tmp_path / "flat.onnx", [{n: v for n, v in one.items() if n != "flag"} for one in feeds])
    assert [softmax.heads for softmax in inside.softmaxes] == [softmax.heads for softmax in outside.softmaxes]


def test_branch_that_never_ran_is_data_free_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    onnx.save(model("If"), tmp_path / "m.onnx")
    with caplog.at_level(logging.WARNING):
        calibration = calibrate(tmp_path / "m.onnx", [feed("If")])
        assert len(calibration.softmaxes) == 1
        assert "in else_branch of If 'If_y' never ran on the data: not calibrated" in caplog.text
        report = rewrite(tmp_path / "m.onnx", calibration=calibration)
        assert "in else_branch of If 'If_y' is not in the calibration: data-free" in caplog.text
    result = onnx.load(report.output)
    made = [node for graph in nested_graphs(result.graph) for node in graph.node if is_hccs(node)]
    assert [read_attributes(node).heads[0].B == DATA_FREE.B for node in made] == [False, True]


def test_branch_that_never_ran_is_left_alone_by_integer_output(tmp_path: Path) -> None:
    onnx.save(model("If"), tmp_path / "m.onnx")
    calibration = calibrate(tmp_path / "m.onnx", [feed("If")], to="uint8")
    report = rewrite(tmp_path / "m.onnx", calibration=calibration)
    assert len(report.rewritten) == 1
    (reason,) = [item.reason for item in report.found if item.reason is not None]
    assert "which never ran on the calibration data; integer output needs it" in reason


def test_data_that_reaches_no_attention_is_refused(tmp_path: Path) -> None:
    onnx.save(model("If in Loop"), tmp_path / "m.onnx")
    with pytest.raises(CalibrationError, match="no attention ran"):
        calibrate(tmp_path / "m.onnx", [feed("If in Loop", flag=False)])


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("p = Softmax <axis = -1> (state) z = MatMul (p, v)", "an input of the body"),
        ("l = MatMul (state, weight) p = Softmax <axis = -1> (l) z = MatMul (p, v)", "constant weights"),
        ("kt = Transpose <perm = [0, 1, 3, 2]> (k) l = MatMul (state, kt) z = Softmax <axis = -1> (l)", "an output of"),
    ],
    ids=["input of the body", "classifier", "handed out of the body"],
)
def test_softmax_in_a_body_that_is_not_attention_is_left_alone(lines: str, part: str, tmp_path: Path) -> None:
    text = (
        "g (float[b,2,n,n] q, float[b,2,n,n] k, float[b,2,n,n] v, int64 trips) => (float[b,2,n,n] y) { "
        "y = Loop (trips, yes, q) <body = body (int64 i, bool go, float[b,2,n,n] state) => "
        f"(bool on, float[b,2,n,n] z) {{ on = Identity (go) {lines} }}> }}"
    )
    onnx.save(build(text, {"yes": np.array(True), "weight": np.ones((4, 4), F32)}), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert part in str(item.reason)
    assert describe(item.place) == "body of Loop 'Loop_y'"
    with pytest.raises(ModelError, match="holds no attention"):
        rewrite(tmp_path / "m.onnx")


def test_names_become_unique_and_the_model_computes_the_same(run: Run) -> None:
    original, renamed = model("If"), model("If")
    make_names_unique(renamed)
    names = [name for _, graph in scopes(renamed) for node in graph.node for name in node.output]
    assert len(names) == len(set(names))
    for flag in (True, False):
        given = feed("If", flag=flag)
        np.testing.assert_array_equal(run(renamed, given)[0], run(original, given)[0])
    before = renamed.SerializeToString(deterministic=True)
    make_names_unique(renamed)
    assert renamed.SerializeToString(deterministic=True) == before
