"""The custom op in ONNX Runtime gives what the NumPy reference gives, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_models import DTYPES, TWO_HEADS, chained_model, expected, logits, one_node_model

OUTPUTS = list(DTYPES)


def assert_equal(y, wanted):
    assert y.dtype == wanted.dtype
    assert y.shape == wanted.shape
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("declared", ["static", "dynamic", "unknown"])
@pytest.mark.parametrize("masked", [0, 1])
@pytest.mark.parametrize("reciprocal", ["norm", "div", "clb"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_form_and_every_way_to_declare_the_shape(session, output, reciprocal, masked, declared):
    attributes = {**TWO_HEADS, "reciprocal": reciprocal, "masked": masked, "mask_gap": 20.0}
    x = logits(output, (3, 4, 5, 13))
    shape = {"static": x.shape, "dynamic": ["b", "h", "q", "k"], "unknown": None}[declared]
    run = session(one_node_model(output, shape, **attributes))
    assert run.get_outputs()[0].type == f"tensor({output})"
    assert_equal(run.run(None, {"X": x})[0], expected(output, x, **attributes))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("declared", "inferred"),
    [
        ((2, 4, 5, 13), [2, 4, 5, 13]),
        (("b", 4, "q", "k"), ["b", 4, "q", "k"]),
        ((None, 4, None, "k"), None),
        (None, None),
    ],
)
def test_type_and_shape_are_inferred_for_the_next_node(session, output, declared, inferred):
    x = logits(output, (2, 4, 5, 13))
    run = session(chained_model(output, declared, **TWO_HEADS))
    if inferred:
        assert run.get_outputs()[0].shape == inferred
    y = run.run(None, {"X": x})[0]
    np.testing.assert_array_equal(y, expected(output, x, **TWO_HEADS).astype(np.float32))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("shape", "head_axis"),
    [
        ((4, 9), 0),
        ((4, 9), -2),
        ((2, 3, 4, 5, 40), 2),
        ((2, 3, 4, 6, 40), 3),
        ((2, 3, 4, 5, 40), -3),
        ((6, 5, 33), -3),  # batch and heads folded
        ((2, 2, 1, 1, 1, 1, 3, 2, 17), 1),
        ((2, 7), 0),
    ],
)
def test_heads_along_any_axis_but_the_last(session, output, shape, head_axis):
    attributes = {**TWO_HEADS, "head_axis": head_axis}
    x = logits(output, shape)
    y = session(one_node_model(output, [None] * len(shape), **attributes)).run(None, {"X": x})[0]
    assert_equal(y, expected(output, x, **attributes))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("shape", [(19,), (3, 19), (1, 1), (1,)])
def test_one_head_takes_any_rank_and_any_head_axis(session, output, shape):
    attributes = {"B": [300], "S": [2], "Dmax": [100], "head_axis": 11}
    x = logits(output, shape)
    y = session(one_node_model(output, None, **attributes)).run(None, {"X": x})[0]
    assert_equal(y, expected(output, x, **attributes))


@pytest.mark.parametrize("output", OUTPUTS)
def test_lists_of_one_entry_serve_all_heads(session, output):
    attributes = {"B": [20000], "S": [1, 2, 3], "Dmax": [100], "scale": [0.1]}
    x = logits(output, (2, 6, 3, 21))
    y = session(one_node_model(output, x.shape, **attributes)).run(None, {"X": x})[0]
    assert_equal(y, expected(output, x, **attributes))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("shape", [(0, 2, 3, 5), (1, 2, 0, 5), (1, 2, 3, 0), (1, 0, 3, 5)])
def test_empty_tensors_give_empty_tensors(session, output, shape):
    x = np.zeros(shape, DTYPES[output][0])
    y = session(one_node_model(output, ["b", "h", "q", "k"], **TWO_HEADS)).run(None, {"X": x})[0]
    assert y.shape == shape
    assert y.dtype == DTYPES[output][1]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("output", OUTPUTS)
def test_any_number_of_threads_gives_the_same(session, output, threads):
    x = logits(output, (2, 4, 301, 301))
    run = session(one_node_model(output, x.shape, **TWO_HEADS), threads)
    wanted = expected(output, x, **TWO_HEADS)
    for _ in range(3):
        assert_equal(run.run(None, {"X": x})[0], wanted)


@pytest.mark.parametrize("output", OUTPUTS)
def test_rows_of_more_than_65536_keys(session, output):
    attributes = {"B": [32767], "S": [127], "Dmax": [127], "scale": [0.1], "masked": 1}
    x = logits(output, (2, 131077))
    y = session(one_node_model(output, ["q", "k"], **attributes)).run(None, {"X": x})[0]
    assert_equal(y, expected(output, x, **attributes))


def test_float_rows_with_nan_and_infinities(session):
    inf, nan = np.inf, np.nan
    x = np.array([[1, 2, nan], [inf, 0, 1], [-inf, -inf, -inf], [-inf, 0, -inf], [-inf, nan, -inf]], np.float32)
    attributes = {"B": [300], "S": [2], "Dmax": [100]}
    y = session(one_node_model("float", x.shape, **attributes)).run(None, {"X": x})[0]
    np.testing.assert_array_equal(y, expected("float", x, **attributes))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    output=st.sampled_from(OUTPUTS),
    reciprocal=st.sampled_from(["norm", "div", "clb"]),
    masked=st.integers(0, 1),
    heads=st.integers(1, 3),
    n=st.integers(1, 700),
)
def test_random_nodes(session, data, output, reciprocal, masked, heads, n):
    most = 32767 // n if output == "int16" and reciprocal != "norm" else 32767
    offsets = data.draw(st.lists(st.integers(min(256, most), most), min_size=heads, max_size=heads))
    clips = [data.draw(st.integers(1, 127)) for _ in offsets]
    slopes = [data.draw(st.integers(0, min(127, offset // clip))) for offset, clip in zip(offsets, clips, strict=True)]
    scale = [float(np.float32(data.draw(st.floats(0.001, 2))))]
    attributes = {"B": offsets, "S": slopes, "Dmax": clips, "scale": scale, "reciprocal": reciprocal, "masked": masked}
    x = logits(output, (2, heads, 2, n), seed=n)
    y = session(one_node_model(output, None, **attributes)).run(None, {"X": x})[0]
    assert_equal(y, expected(output, x, **attributes))
