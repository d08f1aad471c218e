"""com.microsoft Attention and QAttention: their parts compute the same, and their masks are exact."""

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
    randoms,
)
from graph.models import op_types

from hccs_onnx.graph.fused import expand_fused

BATCH, N, HEADS, SIZE, PAST = 2, 6, 3, 4, 3
WIDTH = HEADS * SIZE
ROWS, KEYS = np.arange(N)[:, None], np.arange(N)
FUTURE = KEYS > ROWS
LENGTHS = np.array([4, 6], np.int32)
PADDED = (LENGTHS[:, None] <= KEYS)[:, None, None]


def attention(mask: Array | None = None, **changes: object) -> Case:
    draw = randoms()
    inputs = {
        "x": draw(BATCH, N, WIDTH),
        "weights": draw(WIDTH, 3 * WIDTH) / 2,
        "bias": draw(3 * WIDTH),
        "mask": mask,
        "past": None,
        "attention_bias": None,
    }
    case = Case("Attention", inputs, attributes={"num_heads": HEADS}, constants=("weights", "bias"))
    return replace(case, **changes)  # type: ignore[arg-type]


def attributes(**more: object) -> dict[str, object]:
    return {"num_heads": HEADS, **more}


def masked_pairs() -> Array:
    """Which keys each query must not see, of each sample; every query sees itself."""
    hidden = np.random.default_rng(3).random((BATCH, N, N)) < 0.4
    hidden[:, KEYS, KEYS] = False
    return hidden


KEPT = (~PADDED[:, 0, 0]).astype(np.int32)
PAIRS = masked_pairs()
WITH_PAST = np.pad(KEPT, ((0, 0), (PAST, 0)), constant_values=1)
MASKS = {
    "none": attention(),
    "key-padding": attention(KEPT, hidden=PADDED),
    "key-padding-lowest": attention(KEPT, hidden=PADDED, attributes=attributes(mask_filter_value=LOWEST)),
    "pairs": attention((~PAIRS).astype(np.int32), hidden=PAIRS[:, None]),
    "lengths": attention(LENGTHS, hidden=PADDED),
    "ends-and-begins": attention(
        np.array([4, 6, 1, 0], np.int32), hidden=PADDED | (np.array([[1], [0]]) > KEYS)[:, None, None]
    ),
    "causal": attention(hidden=FUTURE, attributes=attributes(unidirectional=1)),
    "causal-lengths": attention(LENGTHS, hidden=FUTURE | PADDED, attributes=attributes(unidirectional=1)),
    "causal-pairs": attention(
        (~PAIRS).astype(np.int32), hidden=FUTURE | PAIRS[:, None], attributes=attributes(unidirectional=1)
    ),
    "scale": attention(attributes=attributes(scale=0.3)),
}
LENGTHS_AND_OFFSETS = np.array([4, 6, 0, 6, 12, 0, 4, 10], np.int32)


@pytest.mark.parametrize("name", MASKS)
def test_attention_taken_apart_computes_the_same(name: str, run: Run) -> None:
    check_parts(MASKS[name], run)


@pytest.mark.parametrize("name", MASKS)
def test_rewritten_attention_masks_exactly(name: str, run: Run, tmp_path: Path) -> None:
    check_rewritten(MASKS[name], run, tmp_path)


def test_attention_with_lengths_and_offsets_computes_the_same(run: Run) -> None:
    check_parts(attention(LENGTHS_AND_OFFSETS, hidden=PADDED), run)


def test_attention_with_a_sample_that_is_all_padding_computes_the_same(run: Run) -> None:
    check_parts(attention(np.array([[0] * N, [1] * N], np.int32), hidden=PADDED), run)


@pytest.mark.parametrize("opset", [11, 12, 13, 18, 21])
def test_attention_is_taken_apart_at_any_opset(opset: int, run: Run) -> None:
    check_parts(replace(MASKS["causal-lengths"], opset=opset), run)


@pytest.mark.parametrize("shape", [(BATCH, HEADS), (1, HEADS), (BATCH, 1), (1, 1)])
def test_attention_with_a_bias_computes_the_same(shape: tuple[int, int], run: Run, tmp_path: Path) -> None:
    if RUNTIME < TESTED and shape != (BATCH, HEADS):
        pytest.skip("this onnxruntime does not broadcast biases")
    case = attention(KEPT, hidden=PADDED).with_inputs(attention_bias=randoms(1)(*shape, N, N))
    check_parts(case, run)
    check_rewritten(case, run, tmp_path)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_with_a_past_computes_the_same(causal: int, run: Run, tmp_path: Path) -> None:
    columns = np.arange(PAST + N)
    padded = (WITH_PAST == 0)[:, None, None]
    case = attention(
        WITH_PAST,
        outputs=("y", "present"),
        attributes=attributes(unidirectional=causal),
        hidden=padded | (columns > ROWS + PAST) if causal else padded,
    ).with_inputs(past=randoms(1)(2, BATCH, HEADS, PAST, SIZE))
    check_parts(case, run)
    check_rewritten(case, run, tmp_path)


def test_attention_that_puts_out_a_present_without_a_past_computes_the_same(run: Run) -> None:
    check_parts(attention(outputs=("y", "present")), run)


def test_attention_with_narrower_values_computes_the_same(run: Run) -> None:
    draw = randoms()
    case = attention(attributes=attributes(qkv_hidden_sizes=[WIDTH, WIDTH, 6]))
    check_parts(case.with_inputs(weights=draw(WIDTH, 2 * WIDTH + 6) / 2, bias=draw(2 * WIDTH + 6)), run)


def test_half_precision_attention_computes_the_same_within_its_precision(run: Run, tmp_path: Path) -> None:
    case = attention(KEPT, hidden=PADDED, attributes=attributes(mask_filter_value=LOWEST))
    half = {name: None if value is None else value.astype(np.float16) for name, value in case.inputs.items()}
    case = case.with_inputs(**{**half, "mask": KEPT})
    check_parts(case, run, tolerance=1e-2)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            attention(attributes=attributes(do_rotary=1)),
            "its attribute do_rotary is 1, which onnxruntime's CPU provider does not compute",
        ),
        (
            attention(attributes=attributes(past_present_share_buffer=1)),
            "its attribute past_present_share_buffer is 1, which onnxruntime's CPU provider does not compute",
        ),
        (
            attention(np.ones((BATCH, 1, 8, 8), np.int32)),
            "input 'mask_index' has 4 axes, which onnxruntime's CPU provider does not compute",
        ),
        (attention(attributes={}), "its attribute num_heads is missing"),
        (
            attention(attributes=attributes(num_heads=5)),
            "the width of queries, keys or values is 12, not a multiple of its 5 heads",
        ),
    ],
)
def test_attention_that_cannot_be_taken_apart_is_left_with_the_reason(case: Case, reason: str) -> None:
    check_left(case, reason)


def qattention(signed: bool, mask: Array | None = None, **changes: object) -> Case:
    random = np.random.default_rng(0)
    inputs = {
        "x": random.integers(0, 256, (BATCH, N, WIDTH)).astype(np.uint8),
        "weights": random.integers(-127, 128, (WIDTH, 3 * WIDTH)).astype(np.int8)
        if signed
        else random.integers(0, 256, (WIDTH, 3 * WIDTH)).astype(np.uint8),
        "bias": randoms()(3 * WIDTH),
        "x_scale": np.array(0.01, np.float32),
        "weight_scale": np.array(0.02, np.float32),
        "mask": mask,
        "x_zero": np.array(120, np.uint8),
        "weight_zero": None if signed else np.array(130, np.uint8),
        "past": None,
    }
    constants = ("weights", "bias", "weight_scale", "weight_zero")
    return replace(  # type: ignore[arg-type]
        Case("QAttention", inputs, attributes={"num_heads": HEADS}, constants=constants), **changes
    )


PER_COLUMN = np.linspace(0.01, 0.03, 3 * WIDTH, dtype=np.float32)
QUANTIZED = {
    "int8": qattention(True),
    "uint8": qattention(False, KEPT, hidden=PADDED),
    "per-column": qattention(True, LENGTHS, hidden=PADDED).with_inputs(weight_scale=PER_COLUMN),
    "per-column-zero": qattention(
        True, (~PAIRS).astype(np.int32), hidden=FUTURE | PAIRS[:, None], attributes=attributes(unidirectional=1)
    ).with_inputs(weight_scale=PER_COLUMN, weight_zero=np.arange(3 * WIDTH).astype(np.int8)),
    "no-zero": qattention(True).with_inputs(x_zero=None),
    "past": qattention(
        True,
        outputs=("y", "present"),
        attributes=attributes(unidirectional=1),
        hidden=np.arange(PAST + N) > ROWS + PAST,
    ).with_inputs(past=randoms(1)(2, BATCH, HEADS, PAST, SIZE)),
}


@pytest.mark.parametrize("name", QUANTIZED)
def test_qattention_taken_apart_computes_the_same_and_masks_exactly(name: str, run: Run, tmp_path: Path) -> None:
    check_parts(QUANTIZED[name], run)
    check_rewritten(QUANTIZED[name], run, tmp_path)


def test_qattention_of_signed_input_is_left_with_the_reason() -> None:
    case = qattention(True)
    x = case.inputs["x"]
    assert x is not None
    check_left(
        case.with_inputs(x=(x // 2).astype(np.int8), x_zero=np.array(0, np.int8)),
        "its input 'x' is of type int8, which onnxruntime's CPU provider does not compute",
    )


def test_layers_with_one_mask_share_what_they_make_of_it(run: Run) -> None:
    case = attention(KEPT, hidden=PADDED, attributes=attributes(unidirectional=0))
    model = case.model()
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[0])
    second.name = "second"
    model.graph.node[0].output[0] = second.input[0] = "between"
    model.graph.node.append(second)
    (wanted,) = run(model, case.feed())
    assert set(expand_fused(model, Path()).values()) == {"between", "y"}
    kinds = op_types(model)
    assert (kinds.count("Softmax"), kinds.count("Greater"), kinds.count("Where")) == (2, 1, 1)
    (y,) = run(model, case.feed(), optimize=False)
    np.testing.assert_allclose(y, wanted, rtol=2e-6, atol=2e-6)
