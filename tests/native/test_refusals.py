"""The native op refuses what the Python implementation refuses, and computes the same where it does not."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, NodeProto, helper

from native.models import (
    ELEMENTS,
    OUTPUTS,
    RECIPROCALS,
    WORDING,
    Array,
    assert_same_bits,
    attribute_of,
    logits,
    model_of,
    node_of,
    reference_result,
)
from native.worker import Worker

Kind = AttributeProto
HUGE = [2**31 - 1, 2**31, 2**32 + 300, 2**63 - 1, -(2**31) - 1, -(2**63)]
FLOATS = [0.0, -0.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e-45, 3.4e38, 1e-30]


def sometimes(rare: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`rare` one time in eight or so."""
    return st.integers(0, 7).flatmap(lambda which: rare if which == 7 else usual)


@st.composite
def lists(draw: st.DrawFn, heads: int) -> dict[str, list[int] | list[float]]:
    """B, S, Dmax and scale; often legal, often at a bound or just behind it."""
    offsets = draw(
        st.lists(
            sometimes(
                st.sampled_from([-1, 0, 1, 32767, 32768, *HUGE]),
                st.sampled_from([255, 256, 300]) | st.integers(1, 2000) | st.integers(1, 32767),
            ),
            min_size=heads,
            max_size=heads,
        )
    )
    clips = [draw(sometimes(st.sampled_from([-1, 0, 128, *HUGE]), st.integers(1, 127))) for _ in offsets]
    slopes = []
    for offset, clip in zip(offsets, clips, strict=True):
        steepest = min(max(offset // max(clip, 1), 0), 127)
        odd = st.sampled_from([-1, 127, 128, steepest + 1, *HUGE])
        slopes.append(draw(sometimes(odd, st.sampled_from([0, steepest]) | st.integers(0, steepest))))
    scales = draw(
        st.lists(sometimes(st.sampled_from(FLOATS), st.floats(2.0**-10, 2, width=32)), min_size=1, max_size=3)
    )
    result = {"B": offsets, "S": slopes, "Dmax": clips, "scale": scales[: draw(st.sampled_from([1, heads]))]}
    for name, values in result.items():
        longer = draw(sometimes(st.integers(0, 4), st.none()))
        if longer is not None:
            result[name] = (values * 4)[:longer]
        elif draw(st.integers(0, 3)) == 0:
            del values[1:]
    return result


def row_lengths(numbers: dict[str, Any]) -> st.SearchStrategy[int]:
    """Row lengths, often where the row sum meets a bound."""
    offset, slope, clip = (next(iter(numbers[name]), 1) for name in ("B", "S", "Dmax"))
    floor = offset - slope * clip
    edges = [32767 // offset] if offset > 0 else []
    edges += [1 - (offset - 256) // floor] if floor > 0 else []
    near = [edge + more for edge in edges for more in (-1, 0, 1) if 1 <= edge + more <= 600]
    return st.sampled_from(near or [1]) | sometimes(st.just(0), st.integers(1, 200))


@st.composite
def nodes(draw: st.DrawFn) -> tuple[NodeProto, str, Array, list[int | str | None] | None]:
    """A node, its output type, X, and the shape that X is declared with."""
    output = draw(st.sampled_from(OUTPUTS))
    heads = draw(st.integers(1, 3))
    numbers = draw(lists(heads))
    rank = draw(sometimes(st.integers(1, 8), st.just(4)))
    shape = [draw(sometimes(st.integers(0, 7), st.just(heads))) for _ in range(rank - 1)]
    shape.append(draw(row_lengths(numbers)))
    axis = draw(sometimes(st.sampled_from([-1, rank - 1, *HUGE]) | st.integers(-9, 9), st.integers(1, rank)))
    attributes = {
        **numbers,
        "head_axis": -axis if 1 < axis <= rank else axis,
        "reciprocal": draw(sometimes(st.text(max_size=5), st.sampled_from(RECIPROCALS))),
        "masked": draw(sometimes(st.sampled_from([-1, 2, *HUGE]), st.integers(0, 1))),
        "mask_gap": draw(sometimes(st.sampled_from(FLOATS), st.sampled_from([64.0, 1.0]))),
    }
    kinds = {"scale": Kind.FLOATS, "head_axis": Kind.INT, "reciprocal": Kind.STRING, "masked": Kind.INT}
    kinds["mask_gap"] = Kind.FLOAT
    made = [
        attribute_of(name, kinds.get(name, Kind.INTS), value.encode() if isinstance(value, str) else value)
        for name, value in attributes.items()
        if name in ("B", "S", "Dmax") or draw(st.integers(0, 5))
    ]
    declared = draw(
        st.sampled_from([shape, [f"d{axis}" for axis in range(rank)], None, ["d", *shape[1:]], [*shape[:-1], None]])
    )
    return node_of(made), output, logits(output, shape, seed=sum(shape)), declared


def assert_agreement(
    worker: Worker, node: NodeProto, output: str, x: Array, declared: list[int | str | None] | None
) -> None:
    """The op and Python refuse the node for `x`, or compute the same."""
    wanted = reference_result(node, x, output)
    x_type, y_type = ELEMENTS[output]
    zero = helper.make_tensor("zero", y_type, [], [0])
    answer = worker.run(model_of(node, x_type, zero, y_type, declared), {"X": x})
    event("refused" if wanted is None else "computed")
    if wanted is None:
        assert answer.y is None, "Python refuses it"
        assert WORDING.search(answer.error), answer.error
        assert "node 'sm': " in answer.error
    else:
        assert answer.y is not None, f"Python computes it: {answer.error}"
        assert_same_bits(answer.y, wanted)


@settings(max_examples=4 * settings().max_examples)
@given(case=nodes())
def test_op_refuses_what_python_refuses_and_computes_the_rest(
    worker: Worker, case: tuple[NodeProto, str, Array, list[int | str | None] | None]
) -> None:
    assert_agreement(worker, *case)


@settings(max_examples=2 * settings().max_examples)
@given(
    data=st.data(),
    output=st.sampled_from(["uint8", "int16"]),
    reciprocal=st.sampled_from([b"div", b"clb"]),
    masked=st.integers(0, 1),
    offset=st.integers(1, 300) | st.integers(1, 32767),
    clip=st.integers(1, 127),
    rows=st.integers(0, 2),
    is_declared=st.booleans(),
)
def test_op_refuses_the_row_lengths_that_python_refuses(
    worker: Worker,
    data: st.DataObject,
    output: str,
    reciprocal: bytes,
    masked: int,
    offset: int,
    clip: int,
    rows: int,
    is_declared: bool,
) -> None:
    slope = data.draw(st.integers(0, min(127, offset // clip)))
    n = data.draw(row_lengths({"B": [offset], "S": [slope], "Dmax": [clip]}))
    node = node_of(
        [
            attribute_of("B", Kind.INTS, [offset]),
            attribute_of("S", Kind.INTS, [slope]),
            attribute_of("Dmax", Kind.INTS, [clip]),
            attribute_of("reciprocal", Kind.STRING, reciprocal),
            attribute_of("masked", Kind.INT, masked),
        ]
    )
    assert_agreement(worker, node, output, logits(output, (rows, n)), [rows, n] if is_declared else ["q", "k"])
