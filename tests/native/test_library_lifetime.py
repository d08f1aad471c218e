"""Registering again, many sessions, threads, processes, options that are gone: nothing depends on order or on luck."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from native import process_scenarios
from native.conftest import MakeOptions, MakeSession
from native.models import OUTPUTS, TWO_HEADS, assert_same_bits, expected, logits, one_node_model

CPU = ["CPUExecutionProvider"]
MODEL = one_node_model("uint8", ["b", 2, "q", "k"], **TWO_HEADS)
X = logits("uint8", (1, 2, 5, 40))
WANTED = expected("uint8", X, **TWO_HEADS)


def assert_right(session: onnxruntime.InferenceSession) -> None:
    assert_same_bits(session.run(None, {"X": X})[0], WANTED)


def in_threads(count: int, work: Callable[[], None]) -> None:
    """Run `work` in threads that start together; the first error is raised here."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def guarded() -> None:
        try:
            barrier.wait(60)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_sessions_run_when_their_options_are_gone(options: MakeOptions) -> None:
    made = options()
    sessions = [onnxruntime.InferenceSession(MODEL, made, providers=CPU) for _ in range(3)]
    del made
    gc.collect()
    for session in sessions:
        assert_right(session)


def test_options_make_sessions_when_earlier_ones_are_gone(options: MakeOptions) -> None:
    made = options()
    for _ in range(3):
        session = onnxruntime.InferenceSession(MODEL, made, providers=CPU)
        assert_right(session)
        del session
        gc.collect()


def test_library_registers_in_any_number_of_options(options: MakeOptions) -> None:
    for _ in range(50):
        assert_right(onnxruntime.InferenceSession(MODEL, options(), providers=CPU))
    kept = [onnxruntime.InferenceSession(MODEL, options(), providers=CPU) for _ in range(20)]
    for session in reversed(kept):
        assert_right(session)


def test_library_registers_again_with_the_same_options(options: MakeOptions, library: str) -> None:
    made = options()
    for _ in range(3):
        made.register_custom_ops_library(library)
        assert_right(onnxruntime.InferenceSession(MODEL, made, providers=CPU))


def test_sessions_of_every_form_live_beside_each_other(session: MakeSession) -> None:
    made = {output: session(one_node_model(output, None, **TWO_HEADS)) for output in OUTPUTS}
    for seed in range(5):
        for output, run in made.items():
            x = logits(output, (1, 2, 3, 20 + seed), seed)
            assert_same_bits(run.run(None, {"X": x})[0], expected(output, x, **TWO_HEADS))


def test_session_runs_in_many_threads(session: MakeSession) -> None:
    run = session(MODEL, threads=2)

    def work() -> None:
        for _ in range(100):
            assert_right(run)

    in_threads(8, work)


def test_sessions_are_made_and_dropped_in_many_threads(options: MakeOptions) -> None:
    def work() -> None:
        for _ in range(10):
            assert_right(onnxruntime.InferenceSession(MODEL, options(), providers=CPU))

    in_threads(8, work)


def test_session_stays_usable_when_a_run_failed(session: MakeSession) -> None:
    run = session(one_node_model("uint8", None, **TWO_HEADS))
    for _ in range(3):
        assert_right(run)
        with pytest.raises(Exception, match="does not divide"):
            run.run(None, {"X": np.zeros((1, 3, 3, 4), np.int8)})
        assert_right(run)


def test_options_stay_usable_when_a_session_was_refused(options: MakeOptions) -> None:
    made = options()
    for _ in range(3):
        with pytest.raises(Exception, match="offset B out of range"):
            onnxruntime.InferenceSession(one_node_model("uint8", None, B=[0], S=[0], Dmax=[1]), made, providers=CPU)
        assert_right(onnxruntime.InferenceSession(MODEL, made, providers=CPU))


@pytest.mark.parametrize("scenario", process_scenarios.SCENARIOS)
def test_library_works_in_processes(library: str, tmp_path: Path, scenario: str) -> None:
    if scenario.startswith("fork") and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    model, data = tmp_path / "model.onnx", tmp_path / "data.npz"
    model.write_bytes(MODEL)
    np.savez(data, x=X, y=WANTED)
    command = [sys.executable, process_scenarios.__file__, scenario, library, str(model), str(data)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, result.stderr
