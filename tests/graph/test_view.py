"""The read-only view of a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graph.models import build, copied
from onnx import TensorProto, helper

from hccs_onnx.graph.shapes import SMALL
from hccs_onnx.graph.view import LOADABLE, GraphView

F32 = np.float32


def view_of(text: str, opset: int = 17, **initializers: Any) -> GraphView:
    return GraphView(build(text, initializers, opset=opset), Path())


LINES = """g (float[b,n,4] x, bool flag) => (float[b,n,4] y, s) {
    c = Constant <value = float[2] {1.0, 2.0}> () ci = Identity (c) cc = Cast <to = 7> (ci)
    s = Shape (x) a = Mul (x, w) t = Mul (a, a) d = Softplus (w)
    y = If (flag) <then_branch = p () => (float[b,n,4] u) { u = Add (t, a) },
                   else_branch = q () => (float[b,n,4] v) { v = Identity (x) }> }"""


def test_view_knows_makers_and_users() -> None:
    view = view_of(LINES, w=F32(2))
    maker = view.producer("a")
    assert maker is not None
    assert maker.op == "Mul"
    assert view.producer("x") is None
    assert view.producer("w") is None
    assert view.producer("nothing") is None
    assert [node.op for node in view.consumers("ci")] == ["Cast"]
    assert view.consumers("nothing") == []
    assert [view.index(node) for node in view.nodes] == list(range(8))


def test_only_used_by_is_false_when_the_tensor_is_used_twice_or_in_a_subgraph_or_an_output() -> None:
    view = view_of(LINES, w=F32(2))
    mul, shape = view.nodes[5], view.nodes[3]
    assert view.only_used_by("ci", view.nodes[2])
    assert not view.only_used_by("ci", mul)
    assert not view.only_used_by("a", mul)  # twice, and in the branch
    assert not view.only_used_by("s", shape)
    assert not view.only_used_by("nothing", mul)


def test_consumers_in_subgraphs_are_told_apart() -> None:
    view = view_of(LINES, w=F32(2))
    assert [(node.op, view.holds(node)) for node in view.consumers("a")] == [("Mul", True), ("Add", False)]


def test_uses_are_counted_in_branches_and_outputs_too() -> None:
    view = view_of(LINES, w=F32(2))
    assert {name: view.uses(name) for name in ("a", "s", "y", "x", "nothing")} == {
        "a": 3, "s": 1, "y": 1, "x": 3, "nothing": 0,
    }  # fmt: skip


def test_dims_keep_names_and_leave_unknown_ones_out() -> None:
    view = view_of("g (float[b,?,4] x, float[] z) => (float y) { s = Neg (x) t = Neg (z) r = custom (s) y = Neg (x) }")
    assert view.dims("s") in (("b", None, 4), ("b", "unk__0", 4))
    assert view.dims("t") is None
    assert view.dims("nothing") is None
    assert view.dims("y") == ()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("float", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16"), ("int64", "int64"), ("bool", "bool")],
)
def test_dtype_is_spelled_as_numpy_does(kind: str, expected: str) -> None:
    view = view_of(f"g ({kind}[n] x) => ({kind}[n] y) {{ z = custom (x) y = Identity (x) }}")
    assert view.dtype("x") == expected
    assert view.dtype("z") is None
    assert view.dtype("nothing") is None


def test_is_constant_follows_nodes_back_to_inputs() -> None:
    view = view_of(LINES, w=F32(2), unused=F32(1))
    assert [name for name in ("w", "c", "ci", "cc", "d", "unused") if view.is_constant(name)] == [
        "w", "c", "ci", "cc", "d", "unused",
    ]  # fmt: skip
    assert not any(view.is_constant(name) for name in ("x", "s", "a", "t", "y", "nothing"))


def test_is_constant_does_not_depend_on_what_was_asked_before() -> None:
    names = ("w", "c", "ci", "cc", "d", "unused", "x", "s", "a", "t", "y", "nothing")
    fresh = {name: view_of(LINES, w=F32(2), unused=F32(1)).is_constant(name) for name in names}
    view = view_of(LINES, w=F32(2), unused=F32(1))
    for asked in (names, names[::-1]):
        assert {name: view.is_constant(name) for name in asked} == fresh


def test_what_a_body_makes_is_not_constant_though_the_node_reads_constants() -> None:
    """The body may read anything around it."""
    view = view_of(
        """g (float[n] x) => (float[m,n] y) {
        y = Loop (trip, on) <body = b (int64 i, bool c) => (bool d, float[n] z) { d = Identity (c) z = Neg (x) }> }""",
        trip=np.int64(3),
        on=np.array(True),
    )
    assert view.is_constant("trip")
    assert not view.is_constant("y")


def test_sparse_initializer_is_constant() -> None:
    model = build("g (float[b,4] x) => (float[b,4] y) { y = MatMul (x, sparse) }")
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 4]))
    assert GraphView(model, Path()).is_constant("sparse")
    assert GraphView(model, Path()).constant("sparse") is None


def test_node_without_name_and_outputs_has_an_empty_label() -> None:
    model = build("g (float x) => (float y) { y = Neg (x) }", domains=', "custom": 1')
    model.graph.node.append(helper.make_node("Print", ["y"], [], domain="custom"))
    view = GraphView(model, Path())
    assert [view.label(node) for node in view.nodes] == ["Neg_y", ""]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("c = Constant <value = float[2] {1.0, 2.0}> ()", [1.0, 2.0]),
        ("c = Constant <value_float = 0.5> ()", 0.5),
        ("c = Constant <value_floats = [0.5, 1.5]> ()", [0.5, 1.5]),
        ("c = Constant <value_int = -3> ()", -3),
        ("c = Constant <value_ints = [4, 5]> ()", [4, 5]),
        ("i = Identity (w) c = Cast <to = 11> (i)", [7.0, 8.0]),
        ("i = Constant <value_ints = [4, 5]> () c = Cast <to = 1> (i)", [4.0, 5.0]),
    ],
)
def test_constant_gives_the_value_of_every_form(line: str, expected: Any) -> None:
    value = view_of(f"g (float x) => (float y) {{ {line} y = Neg (x) }}", w=np.array([7, 8], F32)).constant("c")
    np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("to", [TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL])
def test_constant_is_none_behind_a_cast_that_truncates(to: int) -> None:
    view = view_of(
        f"g (float x) => (float y) {{ i = Cast <to = {to}> (w) c = Cast <to = 1> (i) y = Div (x, c) }}", w=F32(2.9)
    )
    assert view.constant("c") is None
    assert view.is_constant("c")


def test_constant_without_a_numpy_type_is_read_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    model = build("g (float[2] x) => (y) { y = Cast <to = 1> (c) }")
    tensor = helper.make_tensor("c", TensorProto.BFLOAT16, [2], [1.0, 2.0])
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))
    value = GraphView(model, Path()).constant("c")
    np.testing.assert_array_equal(np.asarray(value, F32), [1, 2])
    assert capsys.readouterr().out == ""


def test_constant_is_none_when_it_is_computed() -> None:
    view = view_of(LINES, w=F32(2))
    assert [view.constant(name) for name in ("x", "a", "d", "s", "nothing")] == [None] * 5


@pytest.mark.parametrize("size", [SMALL, SMALL + 1])
def test_constant_is_read_from_the_model_when_the_skeleton_leaves_it_out(size: int) -> None:
    values = np.arange(size, dtype=F32)
    view = view_of("g (float[n] x) => (float[n] y) { y = Add (x, w) }", w=values)
    np.testing.assert_array_equal(view.constant("w"), values)


def test_constant_is_none_when_it_is_too_large_to_look_into() -> None:
    model = build("g (float[n] x) => (float[n] y) { y = Add (x, w) }")
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[LOADABLE + 1]))
    view = GraphView(model, Path())
    assert view.constant("w") is None
    assert view.is_constant("w")


def test_constant_is_read_from_external_data(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 9, dtype=F32)
    model = build("g (float[n] x) => (float[n] y) { y = Add (x, w) }", {"w": values})
    onnx.save_model(copied(model), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    view = GraphView(onnx.load(tmp_path / "m.onnx", load_external_data=False), tmp_path)
    np.testing.assert_array_equal(view.constant("w"), values)


def test_reading_external_data_leaves_the_model_as_it_is(tmp_path: Path) -> None:
    # to_array of onnx 1.16 loads the data into the tensor it is given, which would go into the rewritten file.
    model = build("g (float[n] x) => (float[n] y) { y = Add (x, w) }", {"w": np.ones(9, F32)})
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    before = model.SerializeToString(deterministic=True)
    assert GraphView(model, tmp_path).constant("w") is not None
    assert model.SerializeToString(deterministic=True) == before


def external(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=location))
    return model


@pytest.mark.parametrize("location", ["missing.data", "../outside.data", "/etc/hostname"])
def test_constant_is_none_when_external_data_cannot_be_read(tmp_path: Path, location: str) -> None:
    # onnx raises ValidationError, which is neither an OSError nor a ValueError.
    (tmp_path / "outside.data").write_bytes(bytes(16))
    (tmp_path / "inside").mkdir()
    model = build("g (float[n] x) => (float[n] y) { y = Add (x, w) }", {"w": np.ones(4, F32)})
    assert GraphView(external(model, location), tmp_path / "inside").constant("w") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [(F32(0.5), 0.5), (np.full((1, 1), 2, F32), 2.0), (np.ones(2, F32), None), (np.ones(0, F32), None)],
)
def test_scalar_is_the_one_element(value: np.ndarray, expected: float | None) -> None:
    assert view_of("g (float[n] x) => (float[n] y) { y = Add (x, w) }", w=value).scalar("w") == expected


def test_opset_is_that_of_the_default_domain() -> None:
    model = build("g (float[n] x) => (float[n] y) { y = Neg (x) }", opset=14)
    model.opset_import.insert(0, helper.make_opsetid("ai.onnx.ml", 3))
    assert GraphView(model, Path()).opset == 14


def test_view_does_without_shapes_when_inference_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(model: onnx.ModelProto, **options: bool) -> onnx.ModelProto:
        raise RuntimeError("no shapes today")

    caplog.set_level("INFO")
    monkeypatch.setattr("hccs_onnx.graph.shapes.shape_inference.infer_shapes", fail)
    view = view_of("g (float[b,4] x) => (float[b,4] y) { t = Neg (x) y = Neg (t) }")
    assert (view.dims("x"), view.dims("t"), view.dims("y")) == (("b", 4), None, ("b", 4))
    assert "no shapes today" in caplog.text


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([np.float32, np.int64], "float32"),
        ([np.float16], "float16"),
        ([np.float16, np.float32], None),
        ([np.float64], None),
        ([], None),
    ],
)
def test_float_dtype_is_that_of_all_weights_when_it_is_not_known(types: list[type], expected: str | None) -> None:
    weights = {f"w{index}": np.ones(2, kind) for index, kind in enumerate(types)}
    view = view_of("g (double[n] x) => (y) { y = custom (x) }", **weights)
    assert view.float_dtype("y") == expected
    assert view.float_dtype("x") == "float64"
