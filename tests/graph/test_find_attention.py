"""Which Softmax nodes are attention, what is known about them, and why the others are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graph.models import LOWEST, Attention, build, copied, name_of, nodes, op_types
from onnx import TensorProto, helper
from onnx_graphsurgeon.logger import G_LOGGER

from hccs_onnx import calibrate, rewrite, verify
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.attention import AttentionSoftmax, find_attention
from hccs_onnx.graph.scopes import describe

F32 = np.float32
W = np.eye(8, dtype=F32)


def judged(text: str, opset: int = 17, domains: str = "", functions: str = "", **weights: Any) -> AttentionSoftmax:
    """What is said about the one Softmax of a graph."""
    model = build(text, {"w": W, **weights}, opset=opset, ir_version=10, domains=domains, functions=functions)
    (found,) = find_attention(model)
    return found


def one_line(reason: str | None) -> str:
    assert reason is not None
    assert reason.strip() == reason
    assert reason.splitlines() == [reason]
    return reason


# attention in all its variants

VARIANTS = [
    Attention(),
    Attention(scale="mul"),
    Attention(scale="query"),
    Attention(scale="query_key"),
    Attention(scale="computed"),
    Attention(scale=None),
    Attention(mask="causal", length=6),
    Attention(mask="computed"),
    Attention(mask="computed", fill=LOWEST),
    Attention(mask="chosen", fill=-np.inf),
    Attention(mask="where"),
    Attention(mask="where_reversed", fill=LOWEST),
    Attention(mask="bias", length=6),
    Attention(mask="input"),
    Attention(dropout=True, identity=True),
    Attention(guard=True, dropout=True, mask="chosen"),
    Attention(layout="folded"),
    Attention(layout="folded", batch=2),
    Attention(layout="single"),
    Attention(layout="flat"),
    Attention(layout="windows", mask="where"),
    Attention(projection="split"),
    Attention(projection="stacked"),
    Attention(cross=True, mask="computed"),
    Attention(known_shapes=False),
    Attention(known_shapes=False, projection="stacked"),
    Attention(dtype="float16"),
    Attention(dtype="float16", cast=True),
    Attention(dtype="bfloat16"),
    Attention(opset=11, dropout=True, projection="split", mask="computed"),
    Attention(opset=12, dropout=True, mask="where"),
    Attention(opset=13, projection="split", mask="chosen"),
    Attention(opset=20, guard=True, mask="computed"),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_attention_is_found_in_every_variant(variant: Attention) -> None:
    model = variant.model()
    (found,) = find_attention(model)
    assert found.reason is None
    assert found.node == "Softmax_probabilities"
    assert model.graph.node[found.index].name == found.node
    assert found.logits == "logits"
    assert found.probabilities == ("guarded" if variant.guard else "probabilities")
    assert found.dtype == ("float32" if variant.cast or variant.dtype == "float" else variant.dtype)
    assert found.heads == (1 if variant.layout in ("single", "flat") else 3)
    assert found.head_axis == -3
    assert found.masked == (variant.mask not in (None, "bias"))
    assert found.self_attention == (not variant.cross)
    assert (found.guard is not None) == variant.guard


@pytest.mark.parametrize("cross", [False, True])
def test_dynamically_quantized_projections_of_one_tensor_are_self_attention(cross: bool, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    onnx.save(Attention(cross=cross).model(), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "m.onnx", op_types_to_quantize=["MatMul"])
    model = onnx.load(tmp_path / "m.onnx")
    assert op_types(model).count("MatMulInteger") == 4
    (found,) = find_attention(model)
    assert (found.reason, found.heads, found.self_attention) == (None, 3, not cross)


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_finding_attention_changes_nothing_in_the_model(variant: Attention) -> None:
    model = variant.model()
    before = model.SerializeToString(deterministic=True)
    first = find_attention(model)
    assert model.SerializeToString(deterministic=True) == before
    assert find_attention(model) == first


@pytest.mark.parametrize(
    ("variant", "length"),
    [
        (Attention(), "n"),
        (Attention(length=9), 9),
        (Attention(cross=True), "m"),
    ],
    ids=name_of,
)
def test_axis_length_is_that_of_the_keys(variant: Attention, length: int | str) -> None:
    (found,) = find_attention(variant.model())
    assert found.axis_length == length


def test_attention_is_found_when_queries_are_learned_constants() -> None:
    found = judged(
        """g (float[b,n,8] x) => (float[b,5,8] y) {
        keys = MatMul (x, w) k = Transpose <perm = [0, 2, 1]> (keys)
        l = MatMul (queries, k) p = Softmax <axis = -1> (l) y = MatMul (p, x) }""",
        queries=np.ones((5, 8), F32),
    )
    assert found.reason is None
    assert not found.self_attention


def test_softmax_is_not_said_to_lead_nowhere_when_values_are_summed_in_a_branch() -> None:
    found = judged(
        """g (float[b,n,8] x, bool flag) => (y) {
        k = Transpose <perm = [0, 2, 1]> (x) l = MatMul (x, k) p = Softmax <axis = -1> (l)
        y = If (flag) <then_branch = a () => (float[b,n,8] t) { t = MatMul (p, x) },
                       else_branch = b () => (float[b,n,8] e) { e = Identity (x) }> }"""
    )
    assert found.reason is None or "nothing" not in found.reason


def test_attention_is_found_when_windows_are_unfolded_for_their_mask() -> None:
    # As Swin does: (batch*windows, head, n, n) seen as (batch, windows, head, n, n) while the mask is added.
    found = judged(
        """g (float[b,3,9,4] q, float[b,3,4,9] k, float[b,3,9,4] v) => (y) {
        r = MatMul (q, k) s = Mul (r, c) biased = Add (s, bias) w5 = Reshape (biased, unfold) m5 = Add (w5, hide)
        l = Reshape (m5, fold) p = Softmax <axis = -1> (l) y = MatMul (p, v) }""",
        c=F32(0.5),
        bias=np.linspace(-1, 1, 243, dtype=F32).reshape(3, 9, 9),
        hide=np.where(np.arange(9) < 5, 0, -100).astype(F32).reshape(1, 1, 1, 1, 9),
        unfold=np.array([-1, 4, 3, 9, 9]),
        fold=np.array([-1, 3, 9, 9]),
    )
    assert (found.reason, found.heads, found.axis_length, found.masked, found.scales) == (None, 3, 9, True, ())


def test_attention_is_found_when_positions_add_a_second_product() -> None:
    # As Transformer-XL does: content logits plus position logits.
    found = judged(
        """g (float[b,n,8] x, float[b,n,8] r) => (y) {
        k = Transpose <perm = [0, 2, 1]> (x) kr = Transpose <perm = [0, 2, 1]> (r)
        content = MatMul (x, k) position = MatMul (x, kr) sum = Add (content, position) l = Mul (sum, c)
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }""",
        c=F32(0.5),
    )
    assert found.reason is None
    assert found.factor == 0.5


def test_attention_is_found_when_its_probabilities_are_an_output_too() -> None:
    model = Attention().model()
    model.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None))
    (found,) = find_attention(model)
    assert found.reason is None


def test_attention_is_found_when_the_guard_cannot_be_removed() -> None:
    # Its probabilities are an output, as with output_attentions=True.
    model = Attention(guard=True).model()
    model.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None))
    (found,) = find_attention(model)
    assert found.reason is None
    assert found.probabilities == "probabilities"
    assert found.guard is None


@pytest.mark.parametrize("imported", ["", "ai.onnx"])
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_attention_is_found_when_the_default_domain_goes_by_its_other_name(imported: str, domain: str) -> None:
    model = Attention().model()
    model.opset_import[0].domain = imported
    nodes(model, "Softmax")[0].domain = domain
    assert [found.reason for found in find_attention(model)] == [None]


def test_nothing_is_found_when_softmax_is_of_another_domain() -> None:
    model = Attention().model()
    nodes(model, "Softmax")[0].domain = "custom"
    model.opset_import.append(helper.make_opsetid("custom", 1))
    assert find_attention(model) == []


def test_found_are_listed_in_node_order_when_there_are_several() -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] y, float[b,n,8] c) {
        xt = Transpose <perm = [0, 2, 1]> (x)
        l = MatMul (x, xt) p = Softmax <axis = -1> (l) a = MatMul (p, x)
        cl = MatMul (a, w) c = Softmax <axis = -1> (cl)
        at = Transpose <perm = [0, 2, 1]> (a)
        l2 = MatMul (a, at) p2 = Softmax <axis = -1> (l2) y = MatMul (p2, x) }"""
    found = find_attention(build(text, {"w": W}))
    assert [(item.logits, item.reason is None) for item in found] == [("l", True), ("cl", False), ("l2", True)]
    assert [item.index for item in found] == [2, 5, 8]


@pytest.mark.parametrize("dtype", ["float", "bfloat16"])
def test_finding_attention_prints_nothing(
    dtype: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # graphsurgeon logs to stdout, where `--json` promises one document and nothing else.
    monkeypatch.setattr(G_LOGGER, "once_logged", set())
    find_attention(Attention(dtype=dtype).model())
    assert capfd.readouterr().out == ""


# heads


def test_heads_come_from_the_reshape_when_shape_inference_gave_up() -> None:
    for projection in ("separate", "split", "stacked"):
        (found,) = find_attention(Attention(known_shapes=False, heads=5, projection=projection).model())
        assert found.heads == 5


def test_heads_come_from_a_computed_reshape() -> None:
    found = judged(
        """g (float[b,n,8] x) => (y) {
        shape = Shape (x)
        batch_number = Gather (shape, zero) length_number = Gather (shape, one)
        batch = Unsqueeze (batch_number, axis) length = Unsqueeze (length_number, axis)
        whole = Concat <axis = 0> (batch, length, split)
        q0 = MatMul (x, w) q1 = Reshape (q0, whole) q = Transpose <perm = [0, 2, 1, 3]> (q1)
        k = Transpose <perm = [0, 2, 3, 1]> (q1) l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, q) }""",
        zero=np.array(0),
        one=np.array(1),
        axis=np.array([0]),
        split=np.array([4, 2]),
    )
    assert (found.reason, found.heads) == (None, 4)


MULTI_QUERY = """g (float[b,n,12] x, bool[b,n,1,n] keep) => (float[b,n,12] y) {
    s = Shape (x) batch = Gather (s, first) n = Gather (s, second) rows = Mul (n, three)
    q0 = MatMul (x, w_q) k0 = MatMul (x, w_k) v = MatMul (x, w_k) k = Transpose <perm = [0, 2, 1]> (k0)
    q_shape = Concat <axis = 0> (batch, rows, four) q = Reshape (q0, q_shape) r = MatMul (q, k)
    l_shape = Concat <axis = 0> (batch, n, three, rest) m = Reshape (r, l_shape) l = Where (keep, m, low)
    p = Softmax <axis = -1> (l) p_shape = Concat <axis = 0> (batch, rows, rest) p1 = Reshape (p, p_shape)
    c = MatMul (p1, v) y_shape = Concat <axis = 0> (batch, n, twelve) y = Reshape (c, y_shape) }"""


def test_heads_that_are_further_rows_are_calibrated_as_one(tmp_path: Path) -> None:
    """GPTBigCode: (batch, query * head, key) is split into (batch, query, head, key), with no axis of heads at -3."""
    random = np.random.default_rng(0)
    constants = {"first": [0], "second": [1], "three": [3], "four": [4], "rest": [-1], "twelve": [12]}
    weights = {"w_q": random.normal(size=(12, 12)).astype(F32), "w_k": random.normal(size=(12, 4)).astype(F32)}
    integers = {name: np.array(value) for name, value in constants.items()}
    onnx.save(build(MULTI_QUERY, {**weights, **integers, "low": F32(-1e4)}), tmp_path / "m.onnx")
    feeds = [
        {
            "x": random.normal(size=(2, n, 12)).astype(F32),
            "keep": np.broadcast_to(np.tri(n, dtype=bool)[None, :, None], (2, n, 1, n)),
        }
        for n in (5, 7)
    ]
    calibration = calibrate(tmp_path / "m.onnx", feeds)
    assert [len(softmax.heads) for softmax in calibration.softmaxes] == [1]
    report = rewrite(tmp_path / "m.onnx", calibration=calibration)
    assert verify(tmp_path / "m.onnx", report.output, feeds).outputs[0].mean_cosine > 0.9


@pytest.mark.parametrize("batch", [2, "batch"])
def test_heads_of_folded_logits_are_those_of_the_reshape(batch: int | str) -> None:
    (found,) = find_attention(Attention(layout="folded", batch=batch, heads=6, size=2).model())
    assert found.heads == 6


def test_heads_of_folded_logits_are_known_when_shape_inference_gave_up() -> None:
    # The width before the reshape is known from the projection's weights.
    (found,) = find_attention(Attention(layout="folded", known_shapes=False).model())
    assert found.heads == 3


def test_heads_of_logits_without_heads_are_one_when_tokens_were_cut_by_a_reshape() -> None:
    # The reshape that cut an image into patches lies before the projection.
    text = """g (float[b,4,8] x) => (y) {
        tokens = Reshape (x, patches) q = MatMul (tokens, w4) k0 = MatMul (tokens, w4)
        k = Transpose <perm = [0, 2, 1]> (k0) l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, tokens) }"""
    found = judged(text, patches=np.array([0, 8, 4]), w4=np.eye(4, dtype=F32))
    assert (found.reason, found.heads) == (None, 1)


def test_heads_of_folded_logits_are_not_taken_for_batch_major_when_heads_come_first() -> None:
    # einops' '(h b) n d': index mod heads is not the head, so per-head parameters would go to wrong heads.
    text = """g (float[2,n,8] x) => (y) {
        q0 = MatMul (x, w) k0 = Add (q0, one) q1 = Reshape (q0, split) k1 = Reshape (k0, split)
        q2 = Transpose <perm = [2, 0, 1, 3]> (q1) k2 = Transpose <perm = [2, 0, 3, 1]> (k1)
        q = Reshape (q2, fold_q) k = Reshape (k2, fold_k)
        l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, q) }"""
    weights = {"split": np.array([0, 0, 4, 2]), "fold_q": np.array([8, -1, 2]), "fold_k": np.array([8, 2, -1])}
    found = judged(text, one=F32(1), **weights)
    assert found.reason is None
    assert found.heads in (1, None)


@pytest.mark.parametrize("batch", ["3", "b"])
def test_heads_of_folded_logits_are_known_when_batch_and_heads_are_merged_last(batch: str) -> None:
    # As BART does: view(b, n, h, d).transpose(1, 2).reshape(b * h, n, d)
    text = f"""g (float[{batch},5,8] x) => (y) {{
        q0 = MatMul (x, w) q1 = Reshape (q0, split) q2 = Transpose <perm = [0, 2, 1, 3]> (q1) q = Reshape (q2, fold)
        k = Transpose <perm = [0, 2, 1]> (q) l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, q) }}"""
    found = judged(text, split=np.array([0, 0, 4, 2]), fold=np.array([-1, 5, 2]))
    assert (found.reason, found.heads) == (None, 4)


@pytest.mark.parametrize(
    ("shape", "lines", "weights"),
    [
        (
            "9,b,8",
            "t = Reshape (x, pieces) q0 = MatMul (t, w4) q = Transpose <perm = [1, 0, 2]> (q0)",
            {"pieces": np.array([0, -1, 4]), "w4": np.eye(4, dtype=F32)},
        ),
        (
            "9,4,6",
            "q0 = Reshape (x, pieces) q = Transpose <perm = [1, 0, 2]> (q0)",
            {"pieces": np.array([9, 6, 4])},
        ),
        (
            "4,5,8",
            "q0 = Reshape (x, split) q1 = Transpose <perm = [0, 2, 1, 3]> (q0) q = Reshape (q1, long)",
            {"split": np.array([0, 0, 4, 2]), "long": np.array([4, 20, 2])},
        ),
    ],
    ids=["cut before the projection", "cut unevenly", "heads in the sequence"],
)
def test_heads_are_not_guessed_when_no_reshape_explains_them(
    request: pytest.FixtureRequest, shape: str, lines: str, weights: dict[str, np.ndarray]
) -> None:
    text = f"""g (float[{shape}] x) => (y) {{
        {lines} k = Transpose <perm = [0, 2, 1]> (q)
        l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, q) }}"""
    found = judged(text, **weights)
    before_projection = "cut before the projection" in request.node.name
    assert (found.reason, found.heads) == (None, 1 if before_projection else None)


def test_heads_are_not_known_when_the_batch_cannot_hold_them() -> None:
    text = """g (float[3,n,8] x) => (y) {
        q1 = Reshape (x, split) q = Reshape (q1, back) k = Transpose <perm = [0, 2, 1]> (q)
        l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, q) }"""
    found = judged(text, split=np.array([3, -1, 2, 4]), back=np.array([3, -1, 4]))
    assert (found.reason, found.heads) == (None, None)


def test_heads_are_none_when_the_graph_does_not_tell() -> None:
    text = """g (float[b,h,n,8] q, float[b,h,8,n] k) => (y) {
        l = MatMul (q, k) p = Softmax <axis = -1> (l) kt = Transpose <perm = [0, 1, 3, 2]> (k) y = MatMul (p, kt) }"""
    found = judged(text)
    assert (found.reason, found.heads) == (None, None)


# queries and keys of one tensor


@pytest.mark.parametrize(
    ("query", "key", "expected"),
    [
        ("MatMul (x, w)", "MatMul (x, w)", True),
        ("MatMul (x, w)", "MatMul (z, w)", False),
        ("Identity (x)", "MatMul (x, w)", False),
        ("Softplus (x)", "Softplus (x)", False),
    ],
)
def test_self_attention_is_true_only_for_projections_of_one_tensor(query: str, key: str, expected: bool) -> None:
    found = judged(
        f"""g (float[b,n,8] x, float[b,n,8] z) => (y) {{
        q0 = {query} k0 = {key} q = Add (q0, bias) kb = Add (bias, k0) k = Transpose <perm = [0, 2, 1]> (kb)
        l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, z) }}""",
        bias=np.ones(8, F32),
    )
    assert (found.reason, found.self_attention) == (None, expected)


# what is not attention

TAIL = "p = Softmax <axis = -1> (l) y = MatMul (p, x)"
NOT_ATTENTION = {
    "classifier": ("float[b,8] x", "l = MatMul (x, w) y = Softmax <axis = -1> (l)", "MatMul 'MatMul_l'"),
    "classifier with bias": (
        "float[b,8] x", "m = MatMul (x, w) l = Add (m, bias) y = Softmax <axis = -1> (l)", "MatMul 'MatMul_m'",
    ),
    "classifier by Gemm": ("float[b,8] x", "l = Gemm (x, w, bias) y = Softmax <axis = -1> (l)", "Gemm 'Gemm_l'"),
    "weights through a transpose": (
        "float[b,8] x", "t = Transpose (w) l = MatMul (x, t) y = Softmax <axis = -1> (l)", "MatMul 'MatMul_l'",
    ),
    "gate that selects": (
        "float[b,8] x", "l = MatMul (x, w) p = Softmax <axis = -1> (l) y, i = TopK (p, two)", "MatMul 'MatMul_l'",
    ),
    "gate that weighs": (
        "float[b,8] x", "l = MatMul (x, w) p = Softmax <axis = -1> (l) y = Mul (p, x)", "MatMul 'MatMul_l'",
    ),
    "gate that sums experts": ("float[b,8,8] x", "l = MatMul (x, w) " + TAIL, "MatMul 'MatMul_l'"),
    "mixture of constants": (
        "float[b,8] x", "l = MatMul (x, w) p = Softmax <axis = -1> (l) y = MatMul (p, w)", "MatMul 'MatMul_l'",
    ),
    "pooling by a constant query": (
        "float[b,n,8] x", "s = MatMul (x, u) l = Transpose <perm = [0, 2, 1]> (s) " + TAIL, "MatMul 'MatMul_s'",
    ),
    "model input": ("float[b,n,n] l, float[b,n,8] x", TAIL, "model input or constant"),
    "masked model input": ("float[b,n,n] r, float[b,n,8] x", "l = Add (r, bias) " + TAIL, "model input or constant"),
    "negative distances": (
        "float[b,n,8] x", "s = MatMul (x, w) d = Pow (s, square) l = Neg (d) " + TAIL, "Neg 'Neg_l'",
    ),
    "logits by Einsum": (
        "float[b,n,8] x", 'l = Einsum <equation = "bid,bje->bij"> (x, x) ' + TAIL, "Einsum 'Einsum_l'",
    ),
    "double": (
        "double[b,n,8] x", "xt = Transpose <perm = [0, 2, 1]> (x) l = MatMul (x, xt) " + TAIL, "of type float64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_ATTENTION, ids=str)
def test_softmax_is_left_alone_with_a_reason_that_names_the_node(case: str) -> None:
    inputs, lines, part = NOT_ATTENTION[case]
    weights = {"bias": np.ones(8, F32), "u": np.ones((8, 1), F32), "two": np.array([2]), "square": F32(2)}
    found = judged(f"g ({inputs}) => (y) {{ {lines} }}", **weights)
    assert part in one_line(found.reason)
    assert found.scales == ()


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("y = Neg (p)", "Neg 'Neg_y'"),
        ("y = MatMul (p, w)", "MatMul 'MatMul_y' with constant values"),
        ("y = MatMul (x, p)", "MatMul 'MatMul_y'"),
        ("y = Identity (p)", "a model output"),
        ("a = Neg (p) b = Exp (p) y = Add (a, b)", "Neg 'Neg_a', Exp 'Exp_b'"),
    ],
)
def test_product_of_queries_and_keys_is_left_alone_when_no_values_are_summed(lines: str, part: str) -> None:
    found = judged(
        f"g (float[b,8,8] x) => (y) {{ xt = Transpose <perm = [0, 2, 1]> (x) l = MatMul (x, xt)"
        f" p = Softmax <axis = -1> (l) {lines} }}"
    )
    assert f"probabilities go to {part}" in one_line(found.reason)
    assert found.attention_like


@pytest.mark.parametrize("case", ["classifier", "classifier by Gemm", "gate that selects", "mixture of constants"])
def test_classifier_is_not_attention_like(case: str) -> None:
    inputs, lines, _ = NOT_ATTENTION[case]
    weights = {"bias": np.ones(8, F32), "two": np.array([2])}
    assert not judged(f"g ({inputs}) => (y) {{ {lines} }}", **weights).attention_like


@pytest.mark.parametrize("case", ["model input", "logits by Einsum", "double"])
def test_softmax_that_sums_values_is_attention_like(case: str) -> None:
    inputs, lines, _ = NOT_ATTENTION[case]
    assert judged(f"g ({inputs}) => (y) {{ {lines} }}").attention_like


def test_weights_are_constant_when_they_are_sparse() -> None:
    text = "g (float[b,8,8] x) => (y) { l = MatMul (x, sparse) p = Softmax <axis = -1> (l) y = MatMul (p, x) }"
    model = build(text)
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [2], [3, 17])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, 8]))
    (found,) = find_attention(model)
    assert "with constant weights" in one_line(found.reason)


# axis


def with_axis(model: onnx.ModelProto, axis: int | None) -> onnx.ModelProto:
    softmax = nodes(model, "Softmax")[0]
    del softmax.attribute[:]
    if axis is not None:
        softmax.attribute.append(helper.make_attribute("axis", axis))
    return model


@pytest.mark.parametrize(
    ("opset", "axis", "layout", "reason"),
    [
        (17, -1, "heads", None),
        (17, 3, "heads", None),
        (17, None, "heads", None),
        (13, None, "heads", None),
        (17, 2, "heads", "axis 2 is not the last of rank 4"),
        (17, -2, "heads", "axis -2 is not the last of rank 4"),
        (17, 2, "single", None),
        (12, None, "heads", "axis 1 is not the last of rank 4"),
        (12, None, "single", "axis 1 is not the last of rank 3"),
        (12, None, "flat", None),
        (11, 3, "heads", None),
        (11, -1, "heads", None),
        (11, 1, "flat", None),
    ],
)
def test_axis_has_to_be_the_last(opset: int, axis: int | None, layout: str, reason: str | None) -> None:
    model = with_axis(Attention(opset=opset, layout=layout).model(), axis)
    (found,) = find_attention(model)
    assert found.reason == reason
    assert found.attention_like == (reason is not None)


@pytest.mark.parametrize(
    ("axis", "reason"),
    [
        (-1, None),
        (3, "axis is 3 of logits of unknown rank, which may not be the last"),
    ],
)
def test_axis_of_unknown_rank_has_to_be_minus_one(axis: int, reason: str | None) -> None:
    text = """g (float[] q, float[] k, float[] v) => (float[] y) {
        l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, v) }"""
    (found,) = find_attention(with_axis(build(text), axis))
    assert found.reason == reason
    assert found.heads is None
    assert found.axis_length is None


# element type


@pytest.mark.parametrize(
    ("weights", "dtype"),
    [
        ({"w": W}, "float32"),
        ({"w": W.astype(np.float16)}, "float16"),
        ({"w": W, "w2": W.astype(np.float16)}, None),
        ({}, None),
    ],
    ids=["float weights", "float16 weights", "mixed weights", "no weights"],
)
def test_unknown_type_is_that_of_all_weights_or_left_alone(weights: dict[str, np.ndarray], dtype: str | None) -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] y) {
        q = custom.Project (x) k = custom.Turn (x) l = MatMul (q, k) p = Softmax <axis = -1> (l)
        v = custom.Project (x) y = MatMul (p, v) }"""
    (found,) = find_attention(build(text, weights, domains=', "custom": 1'))
    if dtype is None:
        assert one_line(found.reason) == "logits are of type unknown, not float32, float16 or bfloat16"
        assert found.attention_like
    else:
        assert (found.reason, found.dtype) == (None, dtype)


# elsewhere

INNER = "t = Transpose <perm = [0, 2, 1]> (x) l = MatMul (x, t) p = Softmax <axis = -1> (l) z = MatMul (p, x)"


def test_attention_in_a_branch_is_found_with_its_place() -> None:
    found = judged(
        f"""g (float[b,n,8] x, bool flag) => (float[b,n,8] y) {{
        y = If (flag) <then_branch = a () => (float[b,n,8] z) {{ {INNER} }},
                       else_branch = b () => (float[b,n,8] e) {{ e = Identity (x) }}> }}"""
    )
    assert (found.reason, found.index, found.logits) == (None, 2, "l")
    assert describe(found.place) == "then_branch of If 'If_y'"


def test_attention_in_a_loop_in_a_branch_is_found_with_its_place() -> None:
    body = f"body (int64 i, bool c) => (bool co, float[b,n,8] z) {{ co = Identity (c) {INNER} }}"
    found = judged(
        f"""g (float[b,n,8] x, bool flag, int64 trips) => (y) {{
        y = If (flag) <then_branch = a () => (s) {{ s = Loop <body = {body}> (trips, flag) }},
                       else_branch = b () => (e) {{ e = Unsqueeze (x, zero) }}> }}""",
        zero=np.array([0]),
    )
    assert found.reason is None
    assert describe(found.place) == "body of Loop 's' in then_branch of If 'If_y'"


def test_softmax_in_a_function_is_listed_with_its_place() -> None:
    found = judged(
        "g (float[b,n,8] x) => (float[b,n,8] y) { y = local.block (x) }",
        domains=', "local": 1',
        functions=f'<domain: "local", opset_import: ["": 17]> block (x) => (z) {{ {INNER} }}',
    )
    assert one_line(found.reason) == "lies in function local::block"
    assert (found.index, found.attention_like) == (-1, True)


def test_main_graph_comes_before_places_elsewhere() -> None:
    model = Attention().model()
    function = build(
        "g (float[b,n,8] x) => (float[b,n,8] y) { y = local.block (x) }",
        domains=', "local": 1',
        functions=f'<domain: "local", opset_import: ["": 17]> block (x) => (z) {{ {INNER} }}',
    ).functions[0]
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert [found.index for found in find_attention(model)] == [op_types(model).index("Softmax"), -1]


# names


def test_reason_names_the_tensor_when_the_node_has_no_name() -> None:
    model = build("g (float[b,8] x) => (y) { scores = Gemm (x, w) y = Softmax <axis = -1> (scores) }", {"w": W})
    for node in model.graph.node:
        node.name = ""
    (found,) = find_attention(model)
    assert "scores" in one_line(found.reason)


def test_found_softmax_is_named_by_its_output_when_the_node_has_no_name() -> None:
    # `node` is what inspect, the calibration file and errors show.
    model = Attention().model()
    for node in model.graph.node:
        node.name = ""
    (found,) = find_attention(model)
    assert "probabilities" in found.node


def test_reason_stays_one_line_when_a_name_has_line_breaks() -> None:
    model = build("g (float[b,8] x) => (y) { s = Gemm (x, w) y = Softmax <axis = -1> (s) }", {"w": W})
    nodes(model, "Gemm")[0].name = "head\nof model"
    (found,) = find_attention(model)
    one_line(found.reason)


# what may be absorbed


def scales_of(model: onnx.ModelProto) -> list[str]:
    (found,) = find_attention(model)
    assert found.reason is None
    return [model.graph.node[step.node].output[0] for step in found.scales]


@pytest.mark.parametrize(
    ("variant", "absorbed"),
    [
        (Attention(scale="mul"), ["logits"]),
        (Attention(scale="div", mask="computed"), ["scaled"]),
        (Attention(scale="query", mask="where"), ["q"]),
        (Attention(scale="query_key", mask="chosen", fill=LOWEST), ["q", "k"]),
        (Attention(scale="mul", layout="folded"), ["logits"]),
        (Attention(scale="mul", mask="causal", length=5, fill=-8000, factor=0.125), ["scaled"]),
        (Attention(scale="mul", mask="causal", length=5, fill=-4000, factor=0.125), []),
        (Attention(scale="mul", mask="where", fill=-1000, factor=0.5), []),
        (Attention(scale="mul", mask="bias", length=5), []),
        (Attention(scale="mul", mask="input"), []),
        (Attention(scale="computed"), []),
        (Attention(scale=None), []),
        (Attention(scale="mul", dtype="float16"), []),
        (Attention(scale="query", dtype="bfloat16"), []),
    ],
    ids=name_of,
)
def test_scale_is_absorbable_only_where_nothing_behind_it_depends_on_it(
    variant: Attention, absorbed: list[str]
) -> None:
    assert scales_of(variant.model()) == absorbed


@pytest.mark.parametrize("scale", ["mul", "query"])
def test_scale_is_not_absorbable_when_the_product_is_float16(scale: str) -> None:
    # Softmax alone runs in float32, as in torch's softmax(..., dtype=float32)
    assert scales_of(Attention(scale=scale, dtype="float16", cast=True).model()) == []


def test_scale_is_not_absorbable_when_the_type_is_unknown_and_all_weights_are_float16() -> None:
    text = """g (float16[b,n,8] x) => (float16[b,n,8] y) {
        q = custom.Project (x) k = custom.Turn (x) r = MatMul (q, k) l = Mul (r, c) p = Softmax <axis = -1> (l)
        v = custom.Project (x) y = MatMul (p, v) }"""
    model = build(text, {"c": np.float16(0.5)}, domains=', "custom": 1')
    assert find_attention(model)[0].dtype == "float16"
    assert scales_of(model) == []


def test_scale_is_absorbable_through_a_cast_when_it_is_behind_it() -> None:
    text = """g (float16[b,n,8] x) => (float[b,n,8] y) {
        xt = Transpose <perm = [0, 2, 1]> (x) r = MatMul (x, xt) wide = Cast <to = 1> (r) l = Mul (wide, c)
        p = Softmax <axis = -1> (l) v = Cast <to = 1> (x) y = MatMul (p, v) }"""
    assert scales_of(build(text, {"c": F32(0.5)})) == ["l"]


@pytest.mark.parametrize(
    "scale", ["s = Mul (r, c)", "s = Identity (r)"], ids=["behind the product", "before the product"]
)
def test_scale_is_not_absorbable_when_the_logits_are_narrowed_behind_it(scale: str) -> None:
    text = f"""g (float[b,n,8] x) => (float16[b,n,8] y) {{
        q = Mul (x, c) k = Transpose <perm = [0, 2, 1]> (x) r = MatMul (q, k) {scale}
        l = Cast <to = 10> (s) p = Softmax <axis = -1> (l) v = Cast <to = 10> (x) y = MatMul (p, v) }}"""
    assert scales_of(build(text, {"c": F32(1e-3)})) == []


@pytest.mark.parametrize("tensor", ["logits", "masked_user", "raw"])
def test_scale_is_not_absorbable_when_the_tensor_is_seen_elsewhere(tensor: str) -> None:
    model = Attention(scale="query", mask="where").model()
    if tensor == "masked_user":
        model.graph.node.append(helper.make_node("Neg", ["logits"], ["other"], name="spy"))
        tensor = "other"
    model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    assert scales_of(model) == []


def test_scales_are_absorbable_wherever_they_stand() -> None:
    text = """g (float[b,4,8] x) => (float[b,4,8] y) {
        q1 = Mul (c, x) q2 = Div (q1, d) xt = Transpose <perm = [0, 2, 1]> (x) k = Mul (xt, c) r = MatMul (q2, k)
        s = Mul (r, d) t = Add (s, hide) l = Div (t, c) p = Softmax <axis = -1> (l) y = MatMul (p, x) }"""
    hide = np.array([0, 0, 0, -1e9], F32)
    model = build(text, {"c": F32(0.5), "d": F32(4), "hide": hide})
    assert sorted(scales_of(model)) == ["k", "l", "q1", "q2", "s"]
    assert find_attention(model)[0].factor == pytest.approx(0.5 / 4 * 0.5 * 4 / 0.5)


def test_scale_before_a_mask_is_absorbable_only_when_the_mask_survives_all_scales() -> None:
    text = """g (float[b,4,8] x) => (float[b,4,8] y) {
        xt = Transpose <perm = [0, 2, 1]> (x) r = MatMul (x, xt) s = Mul (r, c) t = Add (s, hide) l = Mul (t, d)
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }"""
    constants = {"c": F32(0.1), "d": F32(0.05)}
    for mask, absorbed in ((-1e6, ["l", "s"]), (-1e5, ["l"])):  # -1e5 is -5000 nats, or -500 once c is absorbed too
        assert sorted(scales_of(build(text, {**constants, "hide": np.array([0, 0, 0, mask], F32)}))) == absorbed


def test_scale_is_absorbable_up_to_a_bias_only() -> None:
    text = """g (float[b,4,8] x) => (float[b,4,8] y) {
        xt = Transpose <perm = [0, 2, 1]> (x) r = MatMul (x, xt) s = Mul (r, c) t = Add (s, bias) l = Mul (t, c)
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }"""
    assert scales_of(build(text, {"c": F32(0.5), "bias": np.linspace(-1, 1, 4, dtype=F32)})) == ["l"]


def test_scale_is_not_absorbable_when_it_adds_an_axis() -> None:
    text = """g (float[b,n,8] x) => (y) {
        xt = Transpose <perm = [0, 2, 1]> (x) r = MatMul (x, xt) l = Mul (r, c)
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }"""
    assert scales_of(build(text, {"c": np.full((1, 1, 1, 1), 0.5, F32)})) == []


# models that cannot be read


def test_model_error_is_raised_when_the_graph_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: onnx.ModelProto) -> None:
        raise RuntimeError(f"cannot import {model.graph.name}")

    monkeypatch.setattr("hccs_onnx.graph.view.gs.import_onnx", fail)
    with pytest.raises(ModelError, match=r"graph 'attention': graph cannot be imported: cannot import attention\. Run"):
        find_attention(Attention().model())


def test_attention_is_found_when_a_custom_node_carries_bytes() -> None:
    # As tokenizers and accelerators do in string attributes, which graphsurgeon decodes as UTF-8.
    model = Attention().model()
    model.opset_import.append(helper.make_opsetid("custom", 1))
    model.graph.node.append(helper.make_node("Engine", ["y"], ["z"], domain="custom", binary=b"\xff\xfe\x00"))
    (found,) = find_attention(model)
    assert found.reason is None


def test_external_mask_that_is_missing_is_treated_as_unknown(tmp_path: Path) -> None:
    model = Attention(mask="causal", length=6).model()
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "m.data").unlink()
    (found,) = find_attention(onnx.load(tmp_path / "m.onnx", load_external_data=False), tmp_path)
    assert (found.reason, found.masked, found.scales) == (None, True, ())


def test_external_data_is_read_where_it_tells_about_attention(tmp_path: Path) -> None:
    for index, variant in enumerate((Attention(mask="causal", length=6), Attention(layout="folded"))):
        model = variant.model()
        path = tmp_path / f"m{index}.onnx"
        options = {"location": f"m{index}.data", "size_threshold": 0}
        onnx.save_model(copied(model), path, save_as_external_data=True, **options)
        external = onnx.load(path, load_external_data=False)
        assert all(tensor.data_location == TensorProto.EXTERNAL for tensor in external.graph.initializer)
        assert find_attention(external, tmp_path) == find_attention(model)


@pytest.mark.parametrize("attention", [True, False])
def test_log_softmax_is_listed_and_left_alone(tmp_path: Path, attention: bool) -> None:
    softmax = "p = Softmax <axis = -1> (l)" if attention else "p = Identity (l)"
    text = "float[b,n,4] q, float[b,4,n] k, float[b,n,4] v) => (float[b,n,4] y, float[b,n,4] z)"
    model = build(f"g ({text} {{ l = MatMul (q, k) {softmax} y = MatMul (p, v) z = LogSoftmax <axis = -1> (y) }}")
    *others, found = find_attention(model)
    assert [item.reason for item in others] == [None] * attention
    assert (found.node, found.attention_like) == ("LogSoftmax_z", False)
    assert found.reason == "is LogSoftmax, which makes logarithms of probabilities; HCCS makes probabilities"
    onnx.save(model, tmp_path / "m.onnx")
    if attention:
        assert len(rewrite(tmp_path / "m.onnx", strict=True).rewritten) == 1
    else:
        with pytest.raises(ModelError, match=r"holds no attention \(1 Softmax left alone, the first: is LogSof"):
            rewrite(tmp_path / "m.onnx")


def test_log_softmax_of_another_domain_is_nothing_known() -> None:
    model = build("g (float[n] x) => (float[n] y) { y = other.LogSoftmax (x) }", domains=', "other": 1')
    assert find_attention(model) == []
