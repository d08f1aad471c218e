"""Heads folded into the batch and back around a mask, as BLOOM has them: which Reshape leaves rows as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import build, nodes

from hccs_onnx import inspect, rewrite, verify
from hccs_onnx.graph.sizes import Size, keeps_rows
from hccs_onnx.graph.view import GraphView
from hccs_onnx.params import DATA_FREE
from hccs_onnx.reference import hccs

F32 = np.float32
# [b*h, n, n] from the product, [b, h, n, -1] for the mask, [b*h, n, -1] for the values.
BLOOM = (
    "g (float[b,n,8] given, bool[{hidden}] hidden) => (float[bh,n,4] y) {{ {before}"
    "  shape = Shape (x) b = Gather (shape, zero) n = Gather (shape, one)"
    "  bh = Mul (b, two) b1 = Unsqueeze (b, first) n1 = Unsqueeze (n, first) bh1 = Unsqueeze (bh, first)"
    "  apart = Concat <axis = 0> (b1, n1, heads, size) folded = Concat <axis = 0> (bh1, n1, size)"
    "  x4 = Reshape (x, apart) q4 = Transpose <perm = [0, 2, 1, 3]> (x4) q = Reshape (q4, folded)"
    "  k = Transpose <perm = [0, 2, 1]> (q) raw = MatMul (q, k)"
    "  wide = Concat <axis = 0> ({wide}) back = Concat <axis = 0> (bh1, n1, minus) r4 = Reshape (raw, wide)"
    "  l = Where (hidden, low, r4) p = Softmax <axis = -1> (l) p3 = Reshape (p, back) y = MatMul (p3, q) }}"
)
WEIGHTS = {
    "zero": np.array(0), "one": np.array(1), "two": np.array(2), "first": np.array([0]), "heads": np.array([2]),
    "size": np.array([4]), "minus": np.array([-1]), "four": np.array([4]), "low": F32(-3e38),
}  # fmt: skip


def model(
    wide: str = "b1, heads, n1, minus", hidden: str = "b,1,n,n", before: str = "x = Identity (given)"
) -> onnx.ModelProto:
    return build(BLOOM.format(wide=wide, hidden=hidden, before=before), WEIGHTS)


def feed() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(F32)
    return {"given": x, "hidden": np.broadcast_to(~np.tri(6, dtype=bool), (2, 1, 6, 6)).copy()}


def test_attention_with_heads_folded_around_the_mask_is_rewritten(tmp_path: Path, run: Run) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert (item.reason, item.heads, item.masked) == (None, 2, True)
    result = onnx.load(rewrite(tmp_path / "m.onnx").output)
    assert len(nodes(result, "HCCS")) == 1
    q = feed()["given"].reshape(2, 6, 2, 4).transpose(0, 2, 1, 3)
    logits = np.where(feed()["hidden"], F32(-3e38), q @ q.swapaxes(-1, -2))
    one = DATA_FREE
    p = hccs(logits, F32, B=[one.B], S=[one.S], Dmax=[one.Dmax], scale=[one.scale], masked=True)
    np.testing.assert_allclose(run(result, feed())[0], (p @ q).reshape(4, 6, 4), rtol=0, atol=2e-2)
    assert verify(tmp_path / "m.onnx", tmp_path / "m.hccs.onnx", [feed()]).outputs[0].mean_cosine > 0.9


@pytest.mark.parametrize("wide", ["b1, heads, minus, size", "n1, heads, n1, minus", "b1, four, n1, minus"])
def test_reshape_that_may_cut_rows_is_not_passed(wide: str, tmp_path: Path) -> None:
    proto = model(wide)
    view = GraphView(proto, Path())
    reshape = view.producer("r4")
    assert reshape is not None
    assert not keeps_rows(view, reshape)
    onnx.save(proto, tmp_path / "m.onnx")
    assert "Reshape 'Reshape_" in str(inspect(tmp_path / "m.onnx")[0].reason)


@pytest.mark.parametrize("hidden", ["s,t,u,w", "s,1,n,w", "w"])
def test_mask_of_unknown_shape_cannot_have_widened_rows_that_fit_the_values(hidden: str, tmp_path: Path) -> None:
    onnx.save(model(hidden=hidden), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert (item.reason, item.heads, item.masked) == (None, 2, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y = MatMul (p3, q)", "other = MatMul (p3, q) y = Identity (p3)"),  # another reader
        (
            "y = MatMul (p3, q)",
            "more = Concat <axis = 0> (bh1, minus, heads) w = Reshape (q, more) y = MatMul (p3, w)",
        ),  # 2n values
        ("back = Concat <axis = 0> (bh1, n1, minus)", "back = Concat <axis = 0> (n1, minus, n1)"),  # rows of b*h
        ("l = Where", "r5 = Concat <axis = 3> (r4, r4) l = Where"),
    ],
)
def test_rows_behind_a_mask_of_unknown_shape_are_not_passed_when_nothing_tells_their_length(old: str, new: str) -> None:
    text = BLOOM.format(wide="b1, heads, n1, minus", hidden="s,t,u,w", before="x = Identity (given)")
    assert old in text
    changed = text.replace(old, new)
    if "r5" in new:  # the mask is added to twice the keys
        changed = changed.replace("(hidden, low, r4)", "(hidden, low, r5)")
    view = GraphView(build(changed, WEIGHTS), Path())
    reshape = view.producer("p3")
    assert reshape is not None
    assert not keeps_rows(view, reshape)


def test_batch_that_is_computed_back_from_batch_times_heads_is_known(tmp_path: Path) -> None:
    text = BLOOM.format(wide="c1, heads, n1, minus", hidden="s,t,u,w", before="x = Identity (given)")
    text = text.replace("wide =", "c = Div (bh, two) c1 = Unsqueeze (c, first) wide =")
    onnx.save(build(text, WEIGHTS), tmp_path / "m.onnx")
    assert inspect(tmp_path / "m.onnx")[0].reason is None
    onnx.save(build(text, {**WEIGHTS, "two": np.array(3)}), tmp_path / "m.onnx")  # the Reshape to b*h would fail
    assert inspect(tmp_path / "m.onnx")[0].reason is not None


def test_sizes_are_followed_through_graphs_deeper_than_the_stack(tmp_path: Path) -> None:
    """As in models of many layers: behind the first attention shape inference has given up."""
    chain = "t0 = Reshape (given, given_shape) " + " ".join(f"t{i + 1} = Tanh (t{i})" for i in range(3000))
    text = BLOOM.format(
        wide="b1, heads, n1, minus", hidden="s,t,u,w", before=f"{chain} x = Add (t3000, given_bias)"
    ).replace("bool[s", "int64[3] given_shape, bool[s")
    onnx.save(build(text, {**WEIGHTS, "given_bias": np.ones(8, F32)}), tmp_path / "m.onnx")
    assert inspect(tmp_path / "m.onnx")[0].reason is None


def test_size_is_divided_only_where_the_quotient_is_whole() -> None:
    size = Size(8, ("b", "n"))
    assert size.divided(Size(2, ("n",))) == Size(4, ("b",))
    assert size.divided(Size(3)) is None
    assert size.divided(Size(1, ("m",))) is None
    assert size.divided(Size(0)) is None
