"""com.microsoft MultiHeadAttention and DecoderMaskedMultiHeadAttention: their parts compute the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.fused.runtime_ops import (
    LOWEST,
    RUNTIME,
    TESTED,
    Array,
    Case,
    check_left,
    check_parts,
    check_rewritten,
    fused_outputs,
    randoms,
)

from hccs_onnx.graph.fused import expand_fused

pytestmark = pytest.mark.skipif(RUNTIME < TESTED, reason="this onnxruntime misreads masks of more keys than queries")

BATCH, N, M, HEADS, SIZE, PAST, BUFFER = 2, 5, 7, 3, 4, 3, 12
WIDTH = HEADS * SIZE
LENGTHS = np.array([4, 7], np.int32)
PADDED = (np.arange(M) >= LENGTHS[:, None])[:, None, None]
KEPT = (~PADDED[:, 0, 0]).astype(np.int32)
ROWS = np.arange(N)[:, None]


def multi_head(mask: Array | None = None, keys: int = M, **changes: object) -> Case:
    draw = randoms()
    inputs = {
        "query": draw(BATCH, N, WIDTH),
        "key": draw(BATCH, keys, WIDTH),
        "value": draw(BATCH, keys, WIDTH),
        "bias": draw(3 * WIDTH),
        "mask": mask,
        "attention_bias": None,
        "past_key": None,
        "past_value": None,
        "past_length": None,
        "indirection": None,
    }
    case = Case("MultiHeadAttention", inputs, attributes={"num_heads": HEADS}, constants=("bias",))
    return replace(case, **changes)  # type: ignore[arg-type]


def attributes(**more: object) -> dict[str, object]:
    return {"num_heads": HEADS} | more


def masked_pairs() -> Array:
    hidden = np.random.default_rng(3).random((BATCH, N, M)) < 0.4
    hidden[:, :, 2] = False
    return hidden


PAIRS = masked_pairs()
CASES = {
    "plain": multi_head(),
    "no-bias": multi_head().with_inputs(bias=None),
    "scale": multi_head(attributes=attributes(scale=0.7)),
    "key-padding": multi_head(KEPT, hidden=PADDED),
    "key-padding-lowest": multi_head(KEPT, hidden=PADDED, attributes=attributes(mask_filter_value=LOWEST)),
    "lengths": multi_head(LENGTHS, hidden=PADDED),
    "lengths-and-offsets": multi_head(np.array([4, 7, 0, 5, 10, 0, 7, 14], np.int32), hidden=PADDED),
    "pairs": multi_head((~PAIRS).astype(np.int32), hidden=PAIRS[:, None]),
    "causal": multi_head(keys=N, hidden=np.arange(N) > ROWS, attributes=attributes(unidirectional=1)),
    "narrow-values": multi_head().with_inputs(value=randoms(1)(BATCH, M, 6), bias=randoms(2)(2 * WIDTH + 6)),
    "cross": multi_head(KEPT, hidden=PADDED).with_inputs(
        key=randoms(1)(BATCH, HEADS, M, SIZE), value=randoms(2)(BATCH, HEADS, M, SIZE)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_multi_head_attention_taken_apart_computes_the_same_and_masks_exactly(
    name: str, run: Run, tmp_path: Path
) -> None:
    check_parts(CASES[name], run)
    check_rewritten(CASES[name], run, tmp_path)


def test_causal_attention_to_more_keys_lets_the_last_query_see_all_as_onnxruntime_does(run: Run) -> None:
    hidden = (np.arange(M) > ROWS) & (ROWS < N - 1)
    check_parts(multi_head(hidden=hidden, attributes=attributes(unidirectional=1)), run)


@pytest.mark.parametrize("shape", [(BATCH, HEADS), (1, HEADS), (BATCH, 1), (1, 1)])
def test_multi_head_attention_with_a_bias_computes_the_same(shape: tuple[int, int], run: Run) -> None:
    check_parts(multi_head(KEPT, hidden=PADDED).with_inputs(attention_bias=randoms(1)(*shape, N, M)), run)


def with_past(causal: int, length: int = PAST) -> Case:
    """A past of `length` positions, of which the first `PAST` count."""
    columns = np.arange(PAST + N)
    mask = np.ones((BATCH, PAST + N), np.int32)
    mask[0, 6:] = mask[1, 0] = 0
    hidden = (mask == 0)[:, None, None]
    return multi_head(
        mask,
        keys=N,
        outputs=("y", "present_key", "present_value"),
        attributes=attributes(unidirectional=causal),
        hidden=hidden | (columns > ROWS + PAST) if causal else hidden,
    ).with_inputs(
        past_key=randoms(1)(BATCH, HEADS, length, SIZE),
        past_value=randoms(2)(BATCH, HEADS, length, SIZE),
        past_length=np.array([PAST], np.int32) if length > PAST else None,
    )


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("length", [PAST, BUFFER])
def test_multi_head_attention_with_a_past_computes_the_same(causal: int, length: int, run: Run, tmp_path: Path) -> None:
    check_parts(with_past(causal, length), run)
    check_rewritten(with_past(causal, length), run, tmp_path)


def test_logits_that_multi_head_attention_puts_out_are_the_same(run: Run) -> None:
    check_parts(multi_head(outputs=("y", "", "", "logits")), run)


def test_multi_head_attention_puts_out_keys_and_values(run: Run) -> None:
    check_parts(multi_head(outputs=("y", "present_key", "present_value")), run)


def packed(case: Case) -> Case:
    """Queries, keys and values, or keys and values, in one input, which onnxruntime's CPU provider does not compute."""
    query, key, value = (np.asarray(case.inputs[name]) for name in ("query", "key", "value"))
    if query.shape == key.shape:
        return case.with_inputs(query=stacked(query, key, value), key=None, value=None)
    return case.with_inputs(key=stacked(key, value), value=None, bias=None)


def stacked(*arrays: Array) -> Array:
    """(batch, position, head, array, size)."""
    return np.stack([array.reshape(BATCH, -1, HEADS, SIZE) for array in arrays], axis=3)


@pytest.mark.parametrize("case", [multi_head(keys=N), multi_head(KEPT).with_inputs(bias=None)])
def test_packed_inputs_taken_apart_compute_what_separate_ones_do(case: Case, run: Run, tmp_path: Path) -> None:
    wanted = fused_outputs(case, run)
    parts = packed(case).model()
    assert expand_fused(parts, tmp_path)
    np.testing.assert_allclose(run(parts, packed(case).feed())[0], wanted[0], rtol=2e-6, atol=2e-6)
    check_rewritten(packed(case), run, tmp_path)


def test_half_precision_computes_the_same_within_its_precision(run: Run) -> None:
    case = multi_head(KEPT, hidden=PADDED, attributes=attributes(mask_filter_value=LOWEST))
    half = {name: None if value is None else value.astype(np.float16) for name, value in case.inputs.items()}
    check_parts(case.with_inputs(**{**half, "mask": KEPT}), run, tolerance=1e-2)


def test_multi_head_attention_of_unknown_shapes_is_left_with_the_reason() -> None:
    model = multi_head().model()
    mystery = onnx.helper.make_node("Mystery", ["key"], ["k"], domain="other")
    model.graph.node.insert(0, mystery)
    model.opset_import.append(onnx.helper.make_opsetid("other", 1))
    model.graph.node[1].input[1] = "k"
    assert expand_fused(model, Path()) == {}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            with_past(0, BUFFER).with_inputs(indirection=np.zeros((1, 2, BUFFER), np.int32)),
            "input 'cache_indirection' picks keys of other beams",
        ),
        (
            CASES["cross"].with_inputs(mask=np.ones((BATCH, 1, N, M), np.int32)),
            "input 'key_padding_mask' has 4 axes, which onnxruntime's CPU provider does not compute",
        ),
        (
            replace(CASES["cross"], attributes=attributes(unidirectional=1)),
            "attribute unidirectional has no meaning for keys that come as a past (input 'key' has 4 axes)",
        ),
        (multi_head(attributes={}), "its attribute num_heads is missing"),
        (multi_head(attributes=attributes(num_heads=5)), "the width of queries is 12, not a multiple of its 5 heads"),
        (with_past(0).with_inputs(past_value=None), "of its inputs 'past_key' and 'past_value' only one is there"),
    ],
)
def test_multi_head_attention_that_cannot_be_taken_apart_is_left_with_the_reason(case: Case, reason: str) -> None:
    check_left(case, reason)


def decoder(**changes: object) -> Case:
    """One new position on a buffer of keys and values."""
    draw = randoms()
    mask = np.array([[1, 1, 0, 1], [1, 1, 1, 1]], np.int32)
    inputs = {
        "query": draw(BATCH, 1, WIDTH),
        "key": draw(BATCH, 1, WIDTH),
        "value": draw(BATCH, 1, WIDTH),
        "mask": mask,
        "attention_bias": None,
        "past_key": draw(BATCH, HEADS, BUFFER, SIZE),
        "past_value": draw(BATCH, HEADS, BUFFER, SIZE),
        "past_length": np.array([PAST], np.int32),
        "beam_width": None,
        "indirection": None,
        "bias": draw(3 * WIDTH),
    }
    case = Case(
        "DecoderMaskedMultiHeadAttention",
        inputs,
        ("y", "present_key", "present_value"),
        attributes(past_present_share_buffer=1),
        ("bias",),
        (mask == 0)[:, None, None],
    )
    return replace(case, **changes)  # type: ignore[arg-type]


DECODERS = {
    "buffer": decoder(),
    "bias": decoder().with_inputs(attention_bias=randoms(1)(1, HEADS, 1, PAST + 1)),
    "logits": decoder(
        outputs=("y", "present_key", "present_value", "logits"),
        attributes=attributes(past_present_share_buffer=1, output_qk=1),
        counted=lambda output: output[1:],  # in the other sample 0.001 is lost beside the mask's 10000
    ),
    "cross": decoder(outputs=("y",), attributes=attributes(), hidden=PADDED).with_inputs(
        key=randoms(1)(BATCH, HEADS, M, SIZE),
        value=randoms(2)(BATCH, HEADS, M, SIZE),
        mask=KEPT,
        past_key=None,
        past_value=None,
        past_length=None,
    ),
}


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_attention_taken_apart_computes_the_same_and_masks_exactly(name: str, run: Run, tmp_path: Path) -> None:
    check_parts(DECODERS[name], run)
    check_rewritten(DECODERS[name], run, tmp_path)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            decoder(attributes=attributes()),
            "its attribute past_present_share_buffer is 0, which onnxruntime's CPU provider does not compute",
        ),
        (
            decoder().with_inputs(key=None, value=None),
            "input 'key' is not there (queries, keys and values packed), which onnxruntime's CPU provider does not "
            "compute",
        ),
        (
            decoder().with_inputs(mask=np.array([4, 3], np.int32)),
            "input 'mask_index' has 1 axes, which onnxruntime's CPU provider does not compute",
        ),
        (
            DECODERS["cross"].with_inputs(attention_bias=randoms(1)(1, HEADS, 1, M)),
            "input 'attention_bias' goes with keys of another sequence, which onnxruntime's CPU provider does not "
            "compute",
        ),
    ],
)
def test_decoder_attention_that_cannot_be_taken_apart_is_left_with_the_reason(case: Case, reason: str) -> None:
    check_left(case, reason)
