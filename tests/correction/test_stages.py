"""Running a model in stages gives what running it whole gives, and runs each node once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph.models import build, tapped
from onnx import numpy_helper

from hccs_onnx.correction import stages
from hccs_onnx.correction.stages import StagedModel
from hccs_onnx.errors import HccsError
from hccs_onnx.graph.sessions import load_session

TEXT = """g (float[n, 2] x) => (float[n, 2] y)
{ a = Neg (x) s = Shape (a) b = MatMul (a, w) c = Add (b, a) r = Reshape (c, s) d = MatMul (r, v) y = Add (d, a) }"""
FEEDS = [{"x": np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32)} for n in (1, 3, 2)]
STAGES = [(["b"], "a"), (["c", "b"], "b"), (["y", "a"], "r")]


def model() -> onnx.ModelProto:
    rng = np.random.default_rng(9)
    return build(TEXT, {name: rng.normal(size=(2, 2)).astype(np.float32) for name in "wv"})


class Watched:
    """A staged model that remembers which nodes ran in each stage."""

    def __init__(self, folder: Path) -> None:
        self.proto = model()
        self.nodes: list[list[str]] = []
        self.staged = StagedModel(self.proto, self._open, folder)

    def _open(self, part: onnx.ModelProto) -> object:
        self.nodes.append([node.output[0] for node in part.graph.node])
        return load_session(part, Path("m.onnx"))


def whole(proto: onnx.ModelProto, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    return load_session(tapped(proto, *names), Path("m.onnx")).run(names, feed)


def check_all(watched: Watched) -> None:
    for wanted, border in STAGES:
        for feed, values in zip(FEEDS, watched.staged.run(FEEDS, wanted, border), strict=True):
            for value, expected in zip(values, whole(watched.proto, wanted, feed), strict=True):
                np.testing.assert_array_equal(value, expected)


def test_stages_give_what_the_whole_model_gives(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    check_all(watched)
    assert watched.nodes == [["a", "b"], ["b", "c"], ["s", "c", "r", "d", "y"]]


def test_stages_start_over_when_there_is_too_much_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "MOST_BYTES", 20)
    watched = Watched(tmp_path)
    check_all(watched)
    assert all("a" in nodes for nodes in watched.nodes)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2000


def test_stages_start_over_when_a_sequence_crosses_the_border(tmp_path: Path) -> None:
    text = """g (float[2, 2] x) => (float[1, 2] y)
    { a = Neg (x) parts = SplitToSequence <axis = 0> (a) first = SequenceAt (parts, zero) b = Exp (first)
      second = SequenceAt (parts, one) y = Add (b, second) }"""
    proto = build(text, {"zero": np.int64(0), "one": np.int64(1)})
    staged = StagedModel(proto, lambda part: load_session(part, Path("m.onnx")), tmp_path)
    feed = {"x": np.array([[1, 2], [3, 4]], np.float32)}
    list(staged.run([feed, feed], ["b"], "b"))
    (values,) = staged.run([feed], ["y"], "y")
    np.testing.assert_allclose(values[0], [np.exp([-1, -2]) - [3, 4]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN"])
def test_stages_start_over_when_what_crosses_the_border_has_no_numpy_type(kind: str, tmp_path: Path) -> None:
    text = f"""g (float[2] x) => (float[2] y)
    {{ low = Cast <to = {onnx.TensorProto.DataType.Value(kind)}> (x) a = Cast <to = 1> (low) b = Exp (a)
      again = Cast <to = 1> (low) y = Add (b, again) }}"""
    staged = StagedModel(build(text, opset=19, ir_version=9), lambda part: load_session(part, Path("m.onnx")), tmp_path)
    feed = {"x": np.array([1, 2], np.float32)}
    for name, expected in (("a", [1, 2]), ("y", [np.e + 1, np.e**2 + 2])):
        for (value,) in staged.run([feed, feed], [name], "b"):
            np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_a_stage_sees_weights_changed_behind_the_border(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    before = [values[0] for values in watched.staged.run(FEEDS, ["b"], "a")]
    tensor = next(tensor for tensor in watched.proto.graph.initializer if tensor.name == "w")
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), "w"))
    after = [values[0] for values in watched.staged.run(FEEDS, ["b"], "b")]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, 2 * one, rtol=1e-6)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "missing")
    with pytest.raises(HccsError, match=r"cannot be written .* TMPDIR\.$"):
        list(watched.staged.run(FEEDS, ["b"], "a"))
