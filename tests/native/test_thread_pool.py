"""Any number of threads gives the same, at every size around those where work is cut up."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from native.conftest import MakeSession
from native.models import DTYPES, OUTPUTS, TWO_HEADS, assert_same_bits, expected, logits, one_node_model

SENTINEL = 77  # no probability of a row that is longer than one position


def run_into_dirty_output(run: onnxruntime.InferenceSession, x: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """Y, in memory that held no trace of the result before."""
    bound = onnxruntime.OrtValue.ortvalue_from_numpy(np.full(x.shape, SENTINEL, dtype))
    binding = run.io_binding()
    binding.bind_cpu_input("X", x)
    binding.bind_ortvalue_output("Y", bound)
    run.run_with_iobinding(binding)
    return bound.numpy().copy()  # what numpy() gives may be the value's own memory


def rows_around_chunk_edges(row_bytes: int) -> list[int]:
    """Numbers of rows whose bytes, both sides counted, are just under, at and just over 2^15, 2^16 .. 2^20."""
    fitting = {2**exponent // row_bytes + more for exponent in range(15, 21) for more in (-1, 0, 1)}
    return sorted(rows for rows in fitting if rows > 0)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [33, 1000, 90000])
@pytest.mark.parametrize("output", OUTPUTS)
def test_threads_give_the_same_when_sizes_are_around_chunk_edges(
    session: MakeSession, output: str, n: int, threads: int
) -> None:
    x_type, y_type = DTYPES[output]
    counts = rows_around_chunk_edges(n * (x_type(0).itemsize + y_type(0).itemsize))
    one = {name: values[:1] for name, values in TWO_HEADS.items()}
    other = {name: values[1:] for name, values in TWO_HEADS.items()}
    run_one = session(one_node_model(output, ["q", "k"], **one), threads)
    run_two = session(one_node_model(output, ["h", "q", "k"], **TWO_HEADS), threads)
    x = logits(output, (max(counts), n), seed=n)
    wanted, wanted_of_other = expected(output, x, **one), expected(output, x, **other)
    for rows in counts:
        y = run_into_dirty_output(run_one, x[:rows], y_type)
        assert_same_bits(y, wanted[:rows], f"{rows} rows of one head")
        half = rows // 2  # heads change where no chunk ends
        if half > 0:
            y = run_into_dirty_output(run_two, x[: 2 * half].reshape(2, half, n), y_type)
            assert_same_bits(y[0], wanted[:half], f"first of two heads, {half} rows each")
            assert_same_bits(y[1], wanted_of_other[half : 2 * half], f"second of two heads, {half} rows each")


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("output", OUTPUTS)
def test_threads_give_the_same_when_run_again(session: MakeSession, output: str, threads: int) -> None:
    run = session(one_node_model(output, ["b", "h", "q", "k"], **TWO_HEADS), threads)
    for seed in range(3):
        x = logits(output, (2, 4, 301, 301), seed)
        assert_same_bits(run_into_dirty_output(run, x, DTYPES[output][1]), expected(output, x, **TWO_HEADS))


def test_threads_give_the_same_when_the_pool_is_shared_by_sessions(session: MakeSession) -> None:
    sessions = {output: session(one_node_model(output, ["b", "h", "q", "k"], **TWO_HEADS), 2) for output in OUTPUTS}
    for seed in range(3):
        for output, run in sessions.items():
            x = logits(output, (1, 2, 400, 300), seed)
            assert_same_bits(run_into_dirty_output(run, x, DTYPES[output][1]), expected(output, x, **TWO_HEADS))
