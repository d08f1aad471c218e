"""Illegal nodes fail with a message that names the node, what is wrong, the bound and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from native.conftest import MakeSession
from native.models import DTYPES, OUTPUTS, TWO_HEADS, WORDING, assert_same_bits, expected, logits, one_node_model

LEGAL: dict[str, Any] = {"B": [300], "S": [2], "Dmax": [100]}


def assert_refusal(caught: pytest.ExceptionInfo[Exception], message: str) -> None:
    text = str(caught.value)
    assert f"node 'sm': {message}" in text or f"node 'sm': head 0: {message}" in text
    assert WORDING.search(text), text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"B": [0]}, "head 0: offset B out of range (0, needs >= 1)"),
        ({"B": [32768]}, "head 0: offset B out of range (32768, needs <= 32767)"),
        ({"B": [2**40]}, "head 0: offset B out of range (1099511627776, needs <= 32767)"),
        ({"Dmax": [-(2**63)]}, "head 0: clip distance Dmax out of range (-9223372036854775808, needs >= 1)"),
        ({"S": [2, 2**32]}, "head 1: slope S out of range (4294967296, needs <= 127)"),
        ({"S": [-1]}, "head 0: slope S out of range (-1, needs >= 0)"),
        ({"S": [128]}, "head 0: slope S out of range (128, needs <= 127)"),
        ({"Dmax": [0]}, "head 0: clip distance Dmax out of range (0, needs >= 1)"),
        ({"Dmax": [128]}, "head 0: clip distance Dmax out of range (128, needs <= 127)"),
        ({"S": [4]}, "head 0: floor B - S*Dmax is negative (-100, needs >= 0)"),
        ({"B": [300, 300], "S": [2, 4]}, "head 1: floor B - S*Dmax is negative"),
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
@pytest.mark.parametrize("output", OUTPUTS)
def test_session_is_refused_when_an_attribute_is_illegal(
    session: MakeSession, changes: dict[str, Any], message: str, output: str
) -> None:
    attributes = {name: value for name, value in {**LEGAL, **changes}.items() if value is not None}
    with pytest.raises(Exception) as caught:
        session(one_node_model(output, (1, 4, 5, 7), **attributes))
    assert_refusal(caught, message)


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
@pytest.mark.parametrize("output", OUTPUTS)
def test_session_is_refused_when_scale_or_mask_gap_is_illegal(
    session: MakeSession, changes: dict[str, Any], message: str, output: str
) -> None:
    with pytest.raises(Exception) as caught:
        session(one_node_model(output, (1, 4, 5, 7), **{**LEGAL, **changes}))
    assert_refusal(caught, message)


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
@pytest.mark.parametrize("rows", [2, 0])
@pytest.mark.parametrize("declared", ["static", "dynamic"])
def test_row_length_is_refused_as_soon_as_it_is_known(
    session: MakeSession, output: str, attributes: dict[str, Any], n: int, message: str, declared: str, rows: int
) -> None:
    x = np.zeros((rows, n), np.int8)
    with pytest.raises(Exception) as caught:
        run = session(one_node_model(output, x.shape if declared == "static" else ["q", "k"], **attributes))
        assert declared == "dynamic"
        run.run(None, {"X": x})
    assert_refusal(caught, message)


@pytest.mark.parametrize(
    ("output", "attributes", "n"),
    [
        ("int16", {**LEGAL, "reciprocal": "div"}, 109),
        ("int16", {**LEGAL, "reciprocal": "norm"}, 110),
        ("int16", {"B": [32767], "S": [1], "Dmax": [1], "reciprocal": "clb"}, 1),
        ("uint8", {"B": [200], "S": [3], "Dmax": [66], "reciprocal": "div"}, 29),
        ("uint8", {"B": [256], "S": [2], "Dmax": [127], "reciprocal": "div"}, 1),
        ("uint8", {"B": [1], "S": [0], "Dmax": [1], "reciprocal": "norm"}, 1),
        ("uint8", {"B": [256], "S": [0], "Dmax": [1], "reciprocal": "div", "masked": 1}, 300),
        ("float", {"B": [1], "S": [0], "Dmax": [1], "reciprocal": "div"}, 1),
    ],
)
def test_node_at_the_bound_is_computed(session: MakeSession, output: str, attributes: dict[str, Any], n: int) -> None:
    x = logits(output, (2, n))
    for declared in (x.shape, ["q", "k"]):
        y = session(one_node_model(output, declared, **attributes)).run(None, {"X": x})[0]
        assert_same_bits(y, expected(output, x, **attributes))


def test_masked_node_is_refused_when_one_key_is_not_enough(session: MakeSession) -> None:
    with pytest.raises(Exception) as caught:
        session(one_node_model("uint8", ["q", "k"], B=[255], S=[0], Dmax=[1], reciprocal="div", masked=1))
    assert_refusal(caught, "row sum can be too small for uint8: B when masked (255, needs >= 256)")


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 5, 7), "head axis does not divide into the heads (size 3, needs a multiple of 2)"),
        ((5, 7), "head_axis is not an axis before the last of X (-3, needs -2..0 but not -1)"),
        ((), "X is a scalar (rank 0, needs >= 1)"),
        ((1,) * 33, "rank of X is too high (33, needs <= 32)"),
    ],
    ids=["heads", "head_axis", "scalar", "rank"],
)
def test_shape_is_refused_when_run_if_it_was_not_declared(
    session: MakeSession, output: str, shape: tuple[int, ...], message: str
) -> None:
    if len(shape) > 32 and np.lib.NumpyVersion(np.__version__) < "2.0.0":
        pytest.skip("needs NumPy 2 for arrays of such a rank")
    run = session(one_node_model(output, None, **TWO_HEADS))
    with pytest.raises(Exception) as caught:
        run.run(None, {"X": np.zeros(shape, DTYPES[output][0])})
    assert_refusal(caught, message)
