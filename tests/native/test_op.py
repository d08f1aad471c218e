"""The custom op in onnxruntime gives what the NumPy reference gives, bit for bit."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from native.conftest import MakeSession
from native.models import (
    DTYPES,
    OUTPUTS,
    RECIPROCALS,
    TWO_HEADS,
    assert_same_bits,
    chained_model,
    expected,
    logits,
    one_node_model,
    stacked_model,
)

outputs = pytest.mark.parametrize("output", OUTPUTS)


@pytest.mark.parametrize("declared", ["static", "dynamic", "unknown"])
@pytest.mark.parametrize("masked", [0, 1])
@pytest.mark.parametrize("reciprocal", RECIPROCALS)
@outputs
def test_every_form_equals_reference_however_the_shape_is_declared(
    session: MakeSession, output: str, reciprocal: str, masked: int, declared: str
) -> None:
    attributes = {**TWO_HEADS, "reciprocal": reciprocal, "masked": masked, "mask_gap": 20.0}
    x = logits(output, (3, 4, 5, 13))
    shape = {"static": x.shape, "dynamic": ["b", "h", "q", "k"], "unknown": None}[declared]
    run = session(one_node_model(output, shape, **attributes))
    assert run.get_outputs()[0].type == f"tensor({output})"
    assert_same_bits(run.run(None, {"X": x})[0], expected(output, x, **attributes))


@pytest.mark.parametrize(
    ("declared", "inferred"),
    [
        ((2, 4, 5, 13), [2, 4, 5, 13]),
        (("b", 4, "q", "k"), ["b", 4, "q", "k"]),
        ((None, 4, None, "k"), None),
        (None, None),
    ],
    ids=["static", "named", "partly named", "unknown"],
)
@outputs
def test_type_and_shape_are_inferred_for_the_next_node(
    session: MakeSession,
    output: str,
    declared: tuple[int | str | None, ...] | None,
    inferred: list[int | str] | None,
) -> None:
    x = logits(output, (2, 4, 5, 13))
    run = session(chained_model(output, declared, **TWO_HEADS))
    if inferred:
        assert run.get_outputs()[0].shape == inferred
    y = run.run(None, {"X": x})[0]
    assert_same_bits(y, expected(output, x, **TWO_HEADS).astype(np.float32))


@pytest.mark.parametrize("rank", range(2, 9))
@outputs
def test_heads_lie_along_any_axis_but_the_last(session: MakeSession, output: str, rank: int) -> None:
    shape = (*(2, 4, 2, 6, 2, 8, 2)[: rank - 1], 21)
    x = logits(output, shape, seed=rank)
    for head_axis in (*range(rank - 1), *range(-rank, -1)):
        attributes = {**TWO_HEADS, "head_axis": head_axis}
        y = session(one_node_model(output, [None] * rank, **attributes)).run(None, {"X": x})[0]
        assert_same_bits(y, expected(output, x, **attributes), f"head_axis {head_axis}")


@outputs
def test_heads_repeat_when_batch_is_folded_into_their_axis(session: MakeSession, output: str) -> None:
    x = logits(output, (6, 5, 33))
    for attributes in (TWO_HEADS, {**TWO_HEADS, "B": [20000, 3000, 4000], "S": [2], "Dmax": [100], "scale": [0.1]}):
        y = session(one_node_model(output, ["bh", "q", "k"], **attributes)).run(None, {"X": x})[0]
        assert_same_bits(y, expected(output, x, **attributes))


@pytest.mark.parametrize("shape", [(19,), (3, 19), (1, 1), (1,), (1,) * 8 + (3,)])
@outputs
def test_head_axis_is_not_looked_at_when_there_is_one_head(
    session: MakeSession, output: str, shape: tuple[int, ...]
) -> None:
    x = logits(output, shape)
    for head_axis in (-1, 11, -11, 2**62, -(2**62)):
        attributes = {"B": [300], "S": [2], "Dmax": [100], "head_axis": head_axis}
        y = session(one_node_model(output, None, **attributes)).run(None, {"X": x})[0]
        assert_same_bits(y, expected(output, x, **attributes))


@outputs
def test_list_of_one_entry_serves_all_heads(session: MakeSession, output: str) -> None:
    attributes = {"B": [20000], "S": [1, 2, 3], "Dmax": [100], "scale": [0.1]}
    x = logits(output, (2, 6, 3, 21))
    y = session(one_node_model(output, x.shape, **attributes)).run(None, {"X": x})[0]
    assert_same_bits(y, expected(output, x, **attributes))


@pytest.mark.parametrize("shape", [(0, 2, 3, 5), (1, 2, 0, 5), (1, 2, 3, 0), (1, 0, 3, 5), (0, 0, 0, 0)])
@outputs
def test_empty_tensor_gives_an_empty_tensor(session: MakeSession, output: str, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, DTYPES[output][0])
    y = session(one_node_model(output, ["b", "h", "q", "k"], **TWO_HEADS)).run(None, {"X": x})[0]
    assert y.shape == shape
    assert y.dtype == DTYPES[output][1]


@outputs
def test_rows_of_more_than_65536_keys_equal_reference(session: MakeSession, output: str) -> None:
    attributes = {"B": [32767], "S": [127], "Dmax": [127], "scale": [0.1], "masked": 1}
    x = logits(output, (2, 131077))
    y = session(one_node_model(output, ["q", "k"], **attributes)).run(None, {"X": x})[0]
    assert_same_bits(y, expected(output, x, **attributes))


def test_float_rows_equal_reference_when_not_finite(session: MakeSession) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([[1, 2, nan], [inf, 0, 1], [-inf, -inf, -inf], [-inf, 0, -inf], [-inf, nan, -inf]], np.float32)
    attributes = {"B": [300], "S": [2], "Dmax": [100]}
    y = session(one_node_model("float", x.shape, **attributes)).run(None, {"X": x})[0]
    assert_same_bits(y, expected("float", x, **attributes))


@outputs
def test_output_is_written_where_it_is_bound(session: MakeSession, output: str) -> None:
    run = session(one_node_model(output, ["b", "h", "q", "k"], **TWO_HEADS))
    target = np.full((2, 4, 5, 33), 77, DTYPES[output][1])
    bound = onnxruntime.OrtValue.ortvalue_from_numpy(target)
    address = bound.data_ptr()
    for seed in range(3):
        x = logits(output, target.shape, seed)
        binding = run.io_binding()
        binding.bind_cpu_input("X", x)
        binding.bind_ortvalue_output("Y", bound)
        run.run_with_iobinding(binding)
        assert bound.data_ptr() == address
        assert_same_bits(bound.numpy(), expected(output, x, **TWO_HEADS))


@outputs
def test_sliced_and_transposed_feeds_equal_reference(session: MakeSession, output: str) -> None:
    run = session(one_node_model(output, ["b", "h", "q", "k"], **TWO_HEADS))
    x = logits(output, (3, 5, 4, 34)).transpose(0, 2, 1, 3)[1:, :, :, 1:]
    y = run.run(None, {"X": x})[0]
    assert_same_bits(y, expected(output, x, **TWO_HEADS))


def test_nodes_in_a_chain_equal_reference_when_buffers_are_reused(session: MakeSession) -> None:
    scales = [0.1, 0.001, 0.01, 0.0005]
    for shape in ((2, 2, 7, 33), (2, 2, 65, 129)):
        run = session(stacked_model(scales))
        for seed in range(3):
            x = logits("float", shape, seed)
            wanted = x
            for scale in scales:
                wanted = expected("float", wanted, **{**TWO_HEADS, "scale": [scale]})
            assert_same_bits(run.run(None, {"X": x})[0], wanted)


@given(
    data=st.data(),
    output=st.sampled_from(OUTPUTS),
    reciprocal=st.sampled_from(RECIPROCALS),
    masked=st.integers(0, 1),
    heads=st.integers(1, 3),
    n=st.integers(1, 700),
)
def test_random_node_equals_reference(
    session: MakeSession, data: st.DataObject, output: str, reciprocal: str, masked: int, heads: int, n: int
) -> None:
    most = 32767 // n if output == "int16" and reciprocal != "norm" else 32767
    offsets = data.draw(st.lists(st.integers(min(256, most), most), min_size=heads, max_size=heads))
    clips = [data.draw(st.integers(1, 127)) for _ in offsets]
    slopes = [data.draw(st.integers(0, min(127, offset // clip))) for offset, clip in zip(offsets, clips, strict=True)]
    scale = [float(np.float32(data.draw(st.floats(0.001, 2))))]
    attributes = {"B": offsets, "S": slopes, "Dmax": clips, "scale": scale, "reciprocal": reciprocal, "masked": masked}
    x = logits(output, (2, heads, 2, n), seed=n)
    y = session(one_node_model(output, None, **attributes)).run(None, {"X": x})[0]
    assert_same_bits(y, expected(output, x, **attributes))
