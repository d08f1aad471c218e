"""No node, however malformed, crashes: it is refused with a reason, or computes what Python computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper

from native.models import (
    ELEMENTS,
    OUTPUTS,
    WORDING,
    assert_same_bits,
    attribute_of,
    logits,
    model_of,
    node_of,
    reference_result,
)
from native.worker import Worker

LEGAL: dict[str, tuple[AttributeProto.AttributeType, Any]] = {
    "B": (AttributeProto.INTS, [300, 2000]),
    "S": (AttributeProto.INTS, [2, 100]),
    "Dmax": (AttributeProto.INTS, [100, 20]),
    "scale": (AttributeProto.FLOATS, [0.1, 0.05]),
    "head_axis": (AttributeProto.INT, -3),
    "reciprocal": (AttributeProto.STRING, b"norm"),
    "masked": (AttributeProto.INT, 0),
    "mask_gap": (AttributeProto.FLOAT, 64.0),
}
SHAPE = (2, 2, 3, 5)
HIGHEST_RANK = 40 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32  # of an array; X is refused above 32
TYPES = [TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32]
OTHER_TYPES = [TensorProto.UINT16, TensorProto.INT64, TensorProto.DOUBLE, TensorProto.BOOL, TensorProto.FLOAT16]
EDGES = st.sampled_from([0, 1, -1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)])
int64s = EDGES | st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 400)
floats = st.floats(width=32)
strings = (
    st.sampled_from([b"", b"norm", b"div\0", b"norm\0norm", b"NORM", b" norm", b"\xff\xfe", b"cl\xc3", b"n" * 100_000])
    | st.text().map(str.encode)
    | st.binary()
)
VALUES: dict[AttributeProto.AttributeType, st.SearchStrategy[Any]] = {
    AttributeProto.INT: int64s,
    AttributeProto.INTS: st.lists(int64s, max_size=5) | st.just([300] * 5000),
    AttributeProto.FLOAT: floats,
    AttributeProto.FLOATS: st.lists(floats, max_size=5) | st.just([0.5] * 5000),
    AttributeProto.STRING: strings,
    AttributeProto.STRINGS: st.lists(strings, max_size=3),
}


@st.composite
def attributes(draw: st.DrawFn) -> dict[str, tuple[AttributeProto.AttributeType, Any]]:
    """Attributes of a node, type and value; some have another type than they should, are missing or unknown."""
    chosen = dict(LEGAL)
    for name in draw(st.lists(st.sampled_from(list(LEGAL)), max_size=3, unique=True)):
        kind = draw(st.sampled_from([LEGAL[name][0], LEGAL[name][0], *VALUES]))
        chosen[name] = (kind, draw(VALUES[kind]))
    for name in draw(st.lists(st.sampled_from(list(LEGAL)), max_size=2)):
        chosen.pop(name, None)
    if draw(st.integers(0, 3)) == 0:
        kind = draw(st.sampled_from(list(VALUES)))
        chosen[draw(st.sampled_from(["b", "slope", "B ", "axis"]))] = (kind, draw(VALUES[kind]))
    return chosen


def has_another_type(name: str, kind: AttributeProto.AttributeType) -> bool:
    return name in LEGAL and kind != LEGAL[name][0]


def looks_missing(kind: AttributeProto.AttributeType, value: Any) -> bool:
    """Whether onnxruntime's C API cannot tell an attribute of another type from one that is not there."""
    return kind == AttributeProto.STRINGS or (isinstance(value, list) and not value)


@settings(max_examples=6 * settings().max_examples)
@given(
    chosen=attributes(), output=st.sampled_from(OUTPUTS), declared=st.sampled_from([SHAPE, ["b", 2, "q", "k"], None])
)
def test_malformed_attributes_are_refused_with_a_reason_or_mean_what_python_takes_them_for(
    worker: Worker,
    chosen: dict[str, tuple[AttributeProto.AttributeType, Any]],
    output: str,
    declared: list[int | str | None] | None,
) -> None:
    node = node_of([attribute_of(name, *given) for name, given in chosen.items()])
    x_type, y_type = ELEMENTS[output]
    x = logits(output, SHAPE)
    zero = helper.make_tensor("zero", y_type, [], [0])
    answer = worker.run(model_of(node, x_type, zero, y_type, declared), {"X": x})
    seen = {n: given for n, given in chosen.items() if not (has_another_type(n, given[0]) and looks_missing(*given))}
    wrong = any(has_another_type(name, kind) for name, (kind, _) in seen.items())
    meant = node_of([attribute_of(name, *given) for name, given in seen.items()])
    wanted = None if wrong else reference_result(meant, x, output)
    event(f"{'another type' if wrong else 'right types'}, {'refused' if wanted is None else 'computed'}")
    if answer.y is None:
        assert WORDING.search(answer.error), answer.error
        assert wanted is None or len(seen) < len(chosen), f"Python computes it: {answer.error}"
    else:
        assert wanted is not None, "is not refused"
        assert_same_bits(answer.y, wanted)


@given(
    output=st.sampled_from(OUTPUTS),
    types=st.none() | st.tuples(st.sampled_from(TYPES + OTHER_TYPES), st.sampled_from(TYPES + OTHER_TYPES)),
    shape=st.sampled_from([[], [1], [0], [2, 3], [1] * 9]),
    value=st.integers(0, 127),
    x_shape=st.lists(st.integers(0, 4), max_size=9) | st.integers(30, HIGHEST_RANK).map(lambda rank: [1] * rank),
    head_axis=st.integers(-9, 9),
)
def test_odd_inputs_are_refused_or_computed(
    worker: Worker,
    output: str,
    types: tuple[int, int] | None,
    shape: list[int],
    value: int,
    x_shape: list[int],
    head_axis: int,
) -> None:
    x_type, y_type = types or ELEMENTS[output]
    legal = {**LEGAL, "head_axis": (AttributeProto.INT, head_axis)}
    node = node_of([attribute_of(name, *given) for name, given in legal.items()])
    dtype = helper.tensor_dtype_to_np_dtype(x_type)
    x = logits("uint8", x_shape).astype(dtype)
    zero = helper.make_tensor("zero", y_type, shape, [value] * int(np.prod(shape)))
    answer = worker.run(model_of(node, x_type, zero, y_type, None), {"X": x})
    known = [name for name, pair in ELEMENTS.items() if pair == (x_type, y_type)]
    wanted = reference_result(node, x, known[0]) if known and len(x_shape) <= 32 else None
    event(f"{'known' if known else 'unknown'} types, {'refused' if wanted is None else 'computed'}")
    if wanted is None:
        assert answer.y is None, "is not refused"
        assert WORDING.search(answer.error) if known else "HCCS" in answer.error, answer.error
    else:
        assert answer.y is not None, answer.error
        assert_same_bits(answer.y, wanted)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["X"], ["Y"]),
        (["X", ""], ["Y"]),
        (["", "zero"], ["Y"]),
        ([], ["Y"]),
        (["X", "zero", "zero"], ["Y"]),
        (["X", "zero"], ["Y", "Z"]),
        (["zero", "X"], ["Y"]),
        (["X", "X"], ["Y"]),
    ],
    ids=str,
)
def test_wrong_number_or_order_of_inputs_is_refused(worker: Worker, inputs: list[str], outputs: list[str]) -> None:
    node = node_of([attribute_of(name, *given) for name, given in LEGAL.items()])
    del node.input[:], node.output[:]
    node.input.extend(inputs)
    node.output.extend(outputs)
    zero = helper.make_tensor("zero", TensorProto.UINT8, [], [0])
    answer = worker.run(model_of(node, TensorProto.INT8, zero, TensorProto.UINT8, SHAPE), {"X": logits("uint8", SHAPE)})
    assert answer.y is None
    assert "HCCS" in answer.error or "sm" in answer.error


def test_zero_point_is_taken_from_an_input_that_is_fed(worker: Worker) -> None:
    node = node_of([attribute_of(name, *given) for name, given in LEGAL.items()])
    values = [("X", TensorProto.INT8, SHAPE), ("zero", TensorProto.INT16, []), ("Y", TensorProto.INT16, None)]
    x, zero, y = (helper.make_tensor_value_info(*value) for value in values)
    graph = helper.make_graph([node], "g", [x, zero], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hccs", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    feed = logits("int16", SHAPE)
    answer = worker.run(model, {"X": feed, "zero": np.zeros((), np.int16)})
    assert answer.y is not None, answer.error
    wanted = reference_result(node, feed, "int16")
    assert wanted is not None
    assert_same_bits(answer.y, wanted)


def test_attribute_without_a_name_is_refused(worker: Worker) -> None:
    protos = [attribute_of(name, *given) for name, given in (*LEGAL.items(), ("", LEGAL["masked"]))]
    zero = helper.make_tensor("zero", TensorProto.UINT8, [], [0])
    model = model_of(node_of(protos), TensorProto.INT8, zero, TensorProto.UINT8, SHAPE)
    assert worker.run(model, {"X": logits("uint8", SHAPE)}).y is None


def test_node_with_a_name_that_is_no_text_is_refused(worker: Worker) -> None:
    protos = [attribute_of(key, *given) for key, given in {**LEGAL, "B": (AttributeProto.INTS, [0])}.items()]
    zero = helper.make_tensor("zero", TensorProto.UINT8, [], [0])
    model = model_of(node_of(protos, "QQQQ"), TensorProto.INT8, zero, TensorProto.UINT8, SHAPE)
    assert model.count(b"QQQQ") == 1
    answer = worker.run(model.replace(b"QQQQ", b"\xff\xc3\x28\x80"), {"X": logits("uint8", SHAPE)})
    assert answer.y is None and answer.error


@pytest.mark.parametrize("name", ["", "a'b", "%s%n%d", "x" * 1000, "Größe", "a\nb", "a\0b"])
def test_node_with_an_odd_name_is_refused_with_a_reason(worker: Worker, name: str) -> None:
    node = node_of([attribute_of(key, *given) for key, given in {**LEGAL, "B": (AttributeProto.INTS, [0])}.items()])
    node.name = name
    zero = helper.make_tensor("zero", TensorProto.UINT8, [], [0])
    answer = worker.run(model_of(node, TensorProto.INT8, zero, TensorProto.UINT8, SHAPE), {"X": logits("uint8", SHAPE)})
    assert answer.y is None
    assert WORDING.search(answer.error), answer.error[:200]
    name = name.split("\0", maxsplit=1)[0]  # onnxruntime hands it on as C does
    assert f"node '{name}': head 0: offset B out of range" in answer.error


def test_attribute_given_twice_is_refused_or_one_of_both(worker: Worker) -> None:
    protos = [attribute_of(name, *given) for name, given in LEGAL.items()]
    both = [*protos, attribute_of("B", AttributeProto.INTS, [500, 3000])]
    x = logits("uint8", SHAPE)
    zero = helper.make_tensor("zero", TensorProto.UINT8, [], [0])
    answer = worker.run(model_of(node_of(both), TensorProto.INT8, zero, TensorProto.UINT8, SHAPE), {"X": x})
    if answer.y is not None:
        candidates = [reference_result(node_of(chosen), x, "uint8") for chosen in (protos, both[1:])]
        assert any(np.array_equal(answer.y, candidate) for candidate in candidates)
