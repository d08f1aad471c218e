"""Illegal nodes fail with a message that names the node, what is wrong, the bound and the remedy."""

from __future__ import annotations

import re

import numpy as np
import pytest
from native_models import TWO_HEADS, one_node_model

LEGAL = {"B": [300], "S": [2], "Dmax": [100]}
WORDING = re.compile(r"node '[^']*': .+ \(.+, needs .+\)\. .+\.")


def message_of(excinfo):
    text = str(excinfo.value)
    assert WORDING.search(text), text
    return text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"B": [0]}, "head 0: offset B out of range (0, needs >= 1)"),
        ({"B": [32768]}, "head 0: offset B out of range (32768, needs <= 32767)"),
        ({"B": [2**40]}, "offset B out of range"),
        ({"S": [-1]}, "head 0: slope S out of range (-1, needs >= 0)"),
        ({"S": [128]}, "head 0: slope S out of range (128, needs <= 127)"),
        ({"Dmax": [0]}, "head 0: clip distance Dmax out of range (0, needs >= 1)"),
        ({"Dmax": [128]}, "head 0: clip distance Dmax out of range (128, needs <= 127)"),
        ({"S": [4]}, "head 0: floor B - S*Dmax is negative (-100, needs >= 0)"),
        ({"B": [300, 300], "S": [2, 4]}, "head 1: floor B - S*Dmax is negative"),
        ({"B": []}, "attribute B is missing or empty"),
        ({"B": None}, "attribute B is missing or empty"),
        ({"S": None}, "attribute S is missing or empty"),
        ({"Dmax": None}, "attribute Dmax is missing or empty"),
        ({"B": 300}, "attribute B has another type (an integer, needs a list of integers)"),
        ({"B": [300.0]}, "attribute B has another type"),
        ({"B": "300"}, "attribute B has another type"),
        ({"masked": "yes"}, "attribute masked has another type"),
        ({"reciprocal": 1}, "attribute reciprocal has another type"),
        ({"head_axis": 1.0}, "attribute head_axis has another type"),
        ({"masked": 2}, "masked out of range (2, needs 0 or 1)"),
        ({"reciprocal": "exp"}, "unknown reciprocal ('exp', needs one of div, clb, norm)"),
        (
            {"B": [300] * 2, "S": [2] * 3},
            "attribute lists differ in length (B 2, S 3, Dmax 1, scale 1, needs 1 or 3 each)",
        ),
        ({"B": [300] * 2, "head_axis": -1}, "head_axis is the last axis (-1, needs any other)"),
        ({"B": [300] * 2, "head_axis": 3}, "head_axis is not an axis before the last of X (3, needs -4..2 but not -1)"),
        ({"B": [300] * 2, "head_axis": -5}, "head_axis is not an axis before the last of X (-5"),
        ({"B": [300] * 3}, "head axis does not divide into the heads (size 4, needs a multiple of 3)"),
    ],
)
def test_attributes_are_checked_when_the_session_is_created(session, changes, message):
    attributes = {name: value for name, value in {**LEGAL, **changes}.items() if value is not None}
    with pytest.raises(Exception) as excinfo:
        session(one_node_model("uint8", (1, 4, 5, 7), **_typed(attributes)))
    assert message in message_of(excinfo)
    assert "node 'sm': " in str(excinfo.value)


def _typed(attributes):
    """make_node cannot tell the type of an empty list; leave it out, which the op must treat alike."""
    return {name: value for name, value in attributes.items() if value != []}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": [0.0]}, "head 0: scale is not positive and finite (0, needs > 0)"),
        ({"scale": [-1.0]}, "scale is not positive and finite (-1, needs > 0)"),
        ({"scale": [float("nan")]}, "scale is not positive and finite (nan, needs > 0)"),
        ({"scale": [float("inf")]}, "scale is not positive and finite (inf, needs > 0)"),
        ({"mask_gap": 0.0}, "mask_gap is not positive (0, needs > 0)"),
        ({"mask_gap": float("nan")}, "mask_gap is not positive (nan, needs > 0)"),
        ({"scale": [1]}, "attribute scale has another type (a list of integers, needs a list of floats)"),
    ],
)
def test_float_attributes_are_checked_where_they_are_read(session, changes, message):
    with pytest.raises(Exception) as excinfo:
        session(one_node_model("float", (1, 4, 5, 7), **{**LEGAL, **changes}))
    assert message in message_of(excinfo)
    session(one_node_model("uint8", (1, 4, 5, 7), **{**LEGAL, **changes}))  # not read


@pytest.mark.parametrize(
    ("output", "attributes", "n", "message"),
    [
        (
            "int16",
            {**LEGAL, "reciprocal": "div"},
            110,
            "head 0: row sum overflows int16: n*B for n = 110 (33000, needs <= 32767)",
        ),
        ("int16", {**LEGAL, "reciprocal": "clb"}, 110, "row sum overflows int16"),
        (
            "uint8",
            {"B": [200], "S": [3], "Dmax": [66], "reciprocal": "div"},
            28,
            "row sum can be too small for uint8: B + (n-1)*F for n = 28 (254, needs >= 256)",
        ),
        (
            "uint8",
            {"B": [200], "S": [2], "Dmax": [100], "reciprocal": "clb"},
            5000,
            "row sum can be too small for uint8",
        ),
    ],
)
@pytest.mark.parametrize("declared", ["static", "dynamic"])
def test_row_length_is_checked_as_soon_as_it_is_known(session, output, attributes, n, message, declared):
    x = np.zeros((2, n), np.int8)
    with pytest.raises(Exception) as excinfo:
        run = session(one_node_model(output, x.shape if declared == "static" else ["q", "k"], **attributes))
        assert declared == "dynamic"
        run.run(None, {"X": x})
    assert message in message_of(excinfo)


def test_row_lengths_at_the_bounds_are_legal(session):
    int16 = session(one_node_model("int16", ["q", "k"], **LEGAL, reciprocal="div"))
    int16.run(None, {"X": np.zeros((2, 109), np.int8)})
    uint8 = session(one_node_model("uint8", ["q", "k"], B=[200], S=[3], Dmax=[66], reciprocal="div"))
    uint8.run(None, {"X": np.zeros((2, 29), np.int8)})


def test_masked_ratio_needs_one_key_to_be_enough(session):
    with pytest.raises(Exception) as excinfo:
        session(one_node_model("uint8", ["q", "k"], B=[255], S=[0], Dmax=[1], reciprocal="div", masked=1))
    assert "row sum can be too small for uint8: B when masked (255, needs >= 256)" in message_of(excinfo)
    session(one_node_model("uint8", ["q", "k"], B=[256], S=[0], Dmax=[1], reciprocal="div", masked=1))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 5, 7), "head axis does not divide into the heads (size 3, needs a multiple of 2)"),
        ((5, 7), "head_axis is not an axis before the last of X (-3, needs -2..0 but not -1)"),
        ((), "X is a scalar (rank 0, needs >= 1)"),
    ],
)
def test_shapes_that_were_not_declared_are_checked_when_run(session, shape, message):
    run = session(one_node_model("uint8", None, **TWO_HEADS))
    with pytest.raises(Exception) as excinfo:
        run.run(None, {"X": np.zeros(shape, np.int8)})
    assert message in message_of(excinfo)


def test_a_failed_run_leaves_the_session_usable(session):
    run = session(one_node_model("uint8", None, **TWO_HEADS))
    x = np.zeros((1, 2, 3, 4), np.int8)
    first = run.run(None, {"X": x})[0]
    with pytest.raises(Exception, match="does not divide"):
        run.run(None, {"X": np.zeros((1, 3, 3, 4), np.int8)})
    np.testing.assert_array_equal(run.run(None, {"X": x})[0], first)
