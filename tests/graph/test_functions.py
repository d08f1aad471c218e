"""Attention in model-local functions: put in place of the calls, rewritten, calibrated, verified - or left whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import build, nodes, op_types
from onnx import helper, numpy_helper, parser

from hccs_onnx import calibrate, inspect, rewrite, verify
from hccs_onnx.errors import MatchError, ModelError
from hccs_onnx.graph.functions import inline_functions

F32 = np.float32
HEAD = '<domain: "local", opset_import: ["": {opset}, "local": 1]>'
ATTEND = (
    HEAD + " attend <scale> (q, k, v) => (z) {{ kt = Transpose <perm = [0, 1, 3, 2]> (k) raw = MatMul (q, kt) "
    "c = Constant <value_float: float = @scale> () l = Mul (raw, c) {softmax} z = MatMul (p, v) }}"
)
LAYER = HEAD + " layer (x) => (y) {{ h = local.attend <scale = 0.5> (x, x, x) y = Add (h, x) }}"
CLASSIFY = HEAD + " classify (x) => (y) {{ e = Neg (x) y = Softmax <axis = -1> (e) }}"
SOFTMAX = "p = Softmax <axis = -1> (l)"
HANDMADE = (
    "a = Constant <value_ints = [-1]> () m = ReduceMax <axes = [-1]> (l) d = Sub (l, m) e = Exp (d) "
    "s = ReduceSum (e, a) p = Div (e, s)"
)
TWO_LAYERS = "g (float[b,2,n,4] x) => (float[b,2,n,4] y) { h = local.layer (x) y = local.layer (h) }"


def model(
    text: str = TWO_LAYERS, functions: tuple[str, ...] = (ATTEND, LAYER), softmax: str = SOFTMAX, opset: int = 17
) -> onnx.ModelProto:
    texts = " ".join(function.format(softmax=softmax, opset=opset) for function in functions)
    return build(text, domains=', "local": 1', functions=texts)


def feed(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(2, 2, 6, 4)).astype(F32)}


@pytest.mark.parametrize("softmax", [SOFTMAX, HANDMADE], ids=["Softmax", "written out"])
def test_calls_are_replaced_by_what_they_compute(softmax: str, run: Run) -> None:
    original, inlined = model(softmax=softmax), model(softmax=softmax)
    made = inline_functions(inlined)
    assert set(made.values()) == {"h", "y"}
    assert not inlined.functions
    onnx.checker.check_model(inlined)
    np.testing.assert_allclose(run(inlined, feed())[0], run(original, feed())[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("softmax", [SOFTMAX, HANDMADE], ids=["Softmax", "written out"])
def test_attention_in_nested_functions_is_calibrated_rewritten_and_verified(softmax: str, tmp_path: Path) -> None:
    onnx.save(model(softmax=softmax), tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx")
    assert [(item.reason, item.heads, item.factor) for item in found] == [(None, 2, 0.5)] * 2
    feeds = [feed(seed) for seed in range(4)]
    report = rewrite(tmp_path / "m.onnx", calibration=calibrate(tmp_path / "m.onnx", feeds))
    result = onnx.load(report.output)
    assert [function.name for function in result.functions] == ["HCCS"]
    assert op_types(result).count("HCCS") == 2
    compared = verify(tmp_path / "m.onnx", report.output, feeds)
    assert compared.outputs[0].mean_cosine > 0.99
    assert len(compared.heads) == 4


def test_function_whose_softmax_is_not_attention_stays_whole(tmp_path: Path) -> None:
    text = TWO_LAYERS.replace("y = local.layer (h)", "i = local.classify (h) j = Neg (i) y = local.layer (j)")
    onnx.save(model(text, (ATTEND, LAYER, CLASSIFY)), tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx", strict=True)
    result = onnx.load(report.output)
    assert [node.output[0] for node in nodes(result, "classify")] == ["i"]
    assert sorted(function.name for function in result.functions) == ["HCCS", "classify"]
    assert [item.reason for item in report.found if item.reason] == [
        "logits come from Neg 'classify_i/Neg_e', not from a product of queries and keys"
    ]
    assert len(report.rewritten) == 2


def test_call_that_is_excluded_stays_whole(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx", exclude="layer_y")
    result = onnx.load(report.output)
    assert [node.output[0] for node in nodes(result, "layer")] == ["y"]
    assert sorted(function.name for function in result.functions) == ["HCCS", "attend", "layer"]
    assert len(nodes(result, "HCCS")) == 1
    onnx.checker.check_model(result)


def test_rewritten_model_keeps_its_own_function_and_is_left_as_it_is(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    report = rewrite(tmp_path / "m.onnx")
    again = rewrite(report.output, tmp_path / "again.onnx")
    assert again.output.read_bytes() == report.output.read_bytes()


def test_function_in_a_body_is_rewritten(tmp_path: Path, run: Run) -> None:
    text = (
        "g (float[b,2,n,4] x, bool flag) => (float[b,2,n,4] y) { y = If (flag) <"
        "then_branch = t () => (float[b,2,n,4] z) { z = local.layer (x) }, "
        "else_branch = e () => (float[b,2,n,4] z) { z = Identity (x) }> }"
    )
    onnx.save(model(text), tmp_path / "m.onnx")
    feeds = [{**feed(seed), "flag": np.array(True)} for seed in range(3)]
    report = rewrite(tmp_path / "m.onnx", calibration=calibrate(tmp_path / "m.onnx", feeds))
    assert len(report.rewritten) == 1
    assert verify(tmp_path / "m.onnx", report.output, feeds).outputs[0].mean_cosine > 0.99


def test_operators_that_changed_between_the_versions_keep_a_function_whole(tmp_path: Path) -> None:
    onnx.save(model(opset=12), tmp_path / "m.onnx")  # Softmax means something else in opset 13
    found = inspect(tmp_path / "m.onnx")
    assert [item.reason for item in found] == [
        "lies in function local::attend, which is written for other operator versions than the model"
    ]
    with pytest.raises((MatchError, ModelError)):
        rewrite(tmp_path / "m.onnx", strict=True)


def test_operators_that_did_not_change_between_the_versions_do_no_harm(tmp_path: Path) -> None:
    onnx.save(model(opset=16), tmp_path / "m.onnx")
    assert [item.reason for item in inspect(tmp_path / "m.onnx")] == [None, None]


@pytest.mark.parametrize(
    "functions",
    [
        (HEAD + " layer (x) => (y) {{ h = local.layer (x) y = Softmax (h) }}",),
        (
            HEAD + " layer (x) => (y) {{ h = local.other (x) y = Softmax (h) }}",
            HEAD + " other (x) => (y) {{ y = local.layer (x) }}",
        ),
    ],
    ids=["itself", "each other"],
)
def test_recursion_is_refused(functions: tuple[str, ...], tmp_path: Path) -> None:
    onnx.save(model(functions=functions), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"function local::\w+: calls itself\. Export the model again"):
        inspect(tmp_path / "m.onnx")


def test_functions_that_unfold_to_an_absurd_size_are_refused(tmp_path: Path) -> None:
    levels = [
        HEAD + f" layer{n} (x) => (y) {{{{ h = local.layer{n + 1} (x) y = local.layer{n + 1} (h) }}}}"
        for n in range(40)
    ]
    functions = (*levels, HEAD + " layer40 (x) => (y) {{ y = Softmax (x) }}")
    text = TWO_LAYERS.replace("local.layer ", "local.layer0 ")
    onnx.save(model(text, functions), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"functions unfold to too many nodes \(\d+, needs <= 1000000\)"):
        inspect(tmp_path / "m.onnx")


def test_outputs_inputs_and_attributes_of_a_call_may_be_left_out(run: Run) -> None:
    function = parser.parse_function(
        '<domain: "local", opset_import: ["": 17]> odd <axis: int = -1> (x, low, high) => (same, p, twice) '
        "{ c = Clip (x, low, high) p = Softmax <axis: int = @axis> (c) same = Identity (x) twice = Identity (p) }"
    )
    del function.node[2]  # an output that is an input
    function.output[0] = "x"
    function.output[2] = "p"
    original = build("g (float[2,3] x) => (float[2,3] a, float[2,3] b, float[2,3] c) { a, b, c = local.odd (x, low) }",
                     {"low": F32(0)}, domains=', "local": 1')  # fmt: skip
    original.functions.append(function)
    inlined = onnx.ModelProto.FromString(original.SerializeToString())
    inline_functions(inlined)
    assert helper.get_attribute_value(nodes(inlined, "Softmax")[0].attribute[0]) == -1
    x = np.array([[-1, 0, 2], [3, -2, 1]], F32)
    a, b, c = run(inlined, {"x": x})
    np.testing.assert_array_equal(a, x)
    np.testing.assert_array_equal(b, c)
    kept = np.exp(np.maximum(x, 0))
    np.testing.assert_allclose(b, kept / kept.sum(axis=-1, keepdims=True), rtol=1e-6)
    assert numpy_helper.to_array(inlined.graph.initializer[0]) == 0
