"""com.microsoft GroupQueryAttention: its parts compute the same, with buffers, windows, padding, rotary embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from graph.fused.runtime_ops import RUNTIME, TESTED, Array, Case, check_left, check_parts, check_rewritten, randoms

pytestmark = pytest.mark.skipif(RUNTIME < TESTED, reason="this onnxruntime computes GroupQueryAttention in another way")

BATCH, N, HEADS, KV_HEADS, SIZE, BUFFER = 2, 6, 4, 2, 16, 12
WIDTH, KV_WIDTH = HEADS * SIZE, KV_HEADS * SIZE
ROWS, KEYS = np.arange(N)[:, None], np.arange(N)
FUTURE = KEYS > ROWS


def angles(half: int = SIZE // 2, positions: int = 32) -> tuple[Array, Array]:
    """Cosine and sine of each position."""
    turns = np.outer(np.arange(positions), 100.0 ** (-np.arange(half) / half))
    return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)


def attributes(**more: object) -> dict[str, object]:
    return {"num_heads": HEADS, "kv_num_heads": KV_HEADS, **more}


def up_to(*lengths: int) -> Callable[[Array], Array]:
    """Of each sample, the positions that count: rows of y and of the buffers."""

    def counted(output: Array) -> Array:
        axis = output.ndim - 2
        return np.concatenate(
            [np.moveaxis(sample, axis - 1, 0)[:length].ravel() for sample, length in zip(output, lengths, strict=True)]
        )

    return counted


def grouped(batch: int = BATCH, new: int = N, lengths: tuple[int, ...] = (N, N), **changes: object) -> Case:
    """`new` positions; `lengths` of each sample, with them."""
    draw = randoms()
    inputs = {
        "query": draw(batch, new, WIDTH),
        "key": draw(batch, new, KV_WIDTH),
        "value": draw(batch, new, KV_WIDTH),
        "past_key": None,
        "past_value": None,
        "lengths": np.array(lengths, np.int32) - 1,
        "total": np.array(max(lengths), np.int32),
        "cosine": None,
        "sine": None,
        "position": None,
        "attention_bias": None,
        "head_sink": None,
        "k_scale": None,
        "v_scale": None,
        "q_norm": None,
        "k_norm": None,
        "query_lengths": None,
    }
    case = Case(
        "GroupQueryAttention",
        inputs,
        ("y", "present_key", "present_value"),
        attributes(),
        ("cosine", "sine"),
        FUTURE,
    )
    return replace(case, **changes)  # type: ignore[arg-type]


def on_buffer(new: int, lengths: tuple[int, ...], buffer: int = BUFFER, **changes: object) -> Case:
    """`new` positions behind those in a buffer."""
    draw, batch = randoms(1), len(lengths)
    rows = np.arange(new)[:, None] + (np.array(lengths) - new)[:, None, None]
    hidden = (np.arange(max(lengths)) > rows)[:, None]
    counted = up_to(*lengths)
    case = grouped(
        batch, new, lengths, hidden=hidden, counted=lambda output: output if output.ndim == 3 else counted(output)
    )
    return replace(  # type: ignore[arg-type]
        case.with_inputs(past_key=draw(batch, KV_HEADS, buffer, SIZE), past_value=draw(batch, KV_HEADS, buffer, SIZE)),
        **changes,
    )


def window(size: int) -> Array:
    """What is hidden where each query sees `size` keys."""
    return FUTURE | (ROWS - size >= KEYS)


STEP = on_buffer(1, (4, 6))
PADDED = np.array([4, 6])
CASES = {
    "prompt": grouped(),
    "prompt-padded": grouped(lengths=(4, 6), counted=up_to(4, 6)),
    "prompt-empty-past": on_buffer(N, (N, N), buffer=0),
    "prompt-on-buffer": on_buffer(N, (N, N)),
    "step": on_buffer(1, (4, 6), buffer=5),
    "step-on-buffer": STEP,
    "chunk": on_buffer(3, (8,)),
    "equal-heads": grouped(attributes=attributes(kv_num_heads=HEADS)).with_inputs(
        key=randoms(1)(BATCH, N, WIDTH), value=randoms(2)(BATCH, N, WIDTH)
    ),
    "packed": grouped().with_inputs(query=randoms(1)(BATCH, N, WIDTH + 2 * KV_WIDTH), key=None, value=None),
    "window-1": grouped(attributes=attributes(local_window_size=1), hidden=window(1)),
    "window-4": grouped(attributes=attributes(local_window_size=4), hidden=window(4)),
    "window-wide": grouped(attributes=attributes(local_window_size=9)),
    "softcap": grouped(attributes=attributes(softcap=2.0)),
    "scale": grouped(attributes=attributes(scale=0.4)),
    "both-ways": grouped(
        lengths=(4, 6),
        counted=up_to(4, 6),
        attributes=attributes(causal=0),
        hidden=(PADDED[:, None] <= KEYS)[:, None, None],
    ),
    "bias": grouped().with_inputs(attention_bias=randoms(1)(1, HEADS, N, N)),
    "bias-softcap": grouped(attributes=attributes(softcap=2.0)).with_inputs(attention_bias=randoms(1)(BATCH, 1, N, N)),
    "bias-step": STEP.with_inputs(attention_bias=randoms(1)(BATCH, 1, 1, 6)),
    "query-lengths": replace(
        on_buffer(N, (6, 8)).with_inputs(query_lengths=np.array([3, 6], np.int32), total=np.array(12, np.int32)),
        hidden=None,
    ),
}


@pytest.mark.parametrize("name", [name for name in CASES if name != "query-lengths"])
def test_grouped_query_attention_taken_apart_computes_the_same_and_masks_exactly(
    name: str, run: Run, tmp_path: Path
) -> None:
    check_parts(CASES[name], run)
    check_rewritten(CASES[name], run, tmp_path)


def test_chunks_of_several_lengths_taken_apart_compute_the_same(run: Run) -> None:
    rows, cache = up_to(3, 6), up_to(6, 8)
    case = replace(
        CASES["query-lengths"],
        hidden=np.array(True),
        counted=lambda output: rows(output) if output.ndim == 3 else cache(output),
    )
    check_parts(case, run)


TURNED = {
    "prompt": grouped(),
    "prompt-padded": CASES["prompt-padded"],
    "packed": CASES["packed"],
    "step": STEP,
    "chunk": CASES["chunk"],
    "positions-of-a-prompt": grouped().with_inputs(position=np.array([[3, 1, 7, 8, 0, 5], [9, 2, 3, 4, 5, 6]])),
    "positions-of-a-step": STEP.with_inputs(position=np.array([[7], [2]])),
    "positions-of-a-chunk": CASES["chunk"].with_inputs(position=np.array([[9, 3, 4]])),
}


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("name", TURNED)
def test_rotary_embedding_taken_apart_computes_the_same(name: str, interleaved: int, run: Run, tmp_path: Path) -> None:
    cosine, sine = angles()
    turned = attributes(do_rotary=1, rotary_interleaved=interleaved)
    case = replace(TURNED[name].with_inputs(cosine=cosine, sine=sine), attributes=turned)
    check_parts(case, run)
    check_rewritten(case, run, tmp_path)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding_of_a_part_of_each_head_computes_the_same(interleaved: int, run: Run) -> None:
    draw, (cosine, sine) = randoms(), angles(half=8)
    case = grouped(attributes=attributes(do_rotary=1, rotary_interleaved=interleaved)).with_inputs(
        query=draw(BATCH, N, 2 * WIDTH), key=draw(BATCH, N, 2 * KV_WIDTH), value=draw(BATCH, N, 2 * KV_WIDTH)
    )
    check_parts(case.with_inputs(cosine=cosine, sine=sine), run)


def test_half_precision_computes_the_same_within_its_precision(run: Run) -> None:
    case = grouped()
    half = {name: case.inputs[name].astype(np.float16) for name in ("query", "key", "value")}  # type: ignore[union-attr]
    check_parts(case.with_inputs(**half), run, tolerance=1e-2)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            grouped(attributes=attributes(smooth_softmax=1)),
            "attribute smooth_softmax is 1, which adds a term to the row sum that a Softmax has not",
        ),
        (
            grouped(attributes=attributes(qk_output=1)),
            "attribute qk_output is 1, which puts out what lies around the Softmax",
        ),
        (
            grouped(attributes=attributes(sliding_window_cache=1, local_window_size=4)),
            "attribute sliding_window_cache is 1, which moves keys about in the cache",
        ),
        (
            grouped().with_inputs(head_sink=randoms()(HEADS)),
            "input 'head_sink' adds a term to the row sum that a Softmax has not",
        ),
        (grouped().with_inputs(k_scale=np.ones(1, np.float32)), "input 'k_scale' means a quantised cache"),
        (
            grouped().with_inputs(q_norm=np.ones(SIZE, np.float32)),
            "input 'q_norm_weight' is not computed by onnxruntime's CPU provider",
        ),
        (grouped(opset=11), "the model's opset is 11, in which GatherND has no batch_dims"),
        (grouped(attributes={}), "its attribute kv_num_heads is 0, not a divisor of its 0 heads"),
        (
            grouped(attributes=attributes(kv_num_heads=3)),
            "its attribute kv_num_heads is 3, not a divisor of its 4 heads",
        ),
        (
            grouped().with_inputs(value=None),
            "of its inputs 'key' and 'value' or 'past_key' and 'past_value' only one is there",
        ),
    ],
)
def test_grouped_query_attention_that_cannot_be_taken_apart_is_left_with_the_reason(case: Case, reason: str) -> None:
    check_left(case, reason)
