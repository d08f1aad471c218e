"""Registering again, many sessions, threads, fork, options that are gone: nothing depends on order or on luck."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading

import numpy as np
import onnxruntime
import pytest
from native_models import TWO_HEADS, expected, logits, one_node_model

CPU = ["CPUExecutionProvider"]
MODEL = one_node_model("uint8", ["b", 2, "q", "k"], **TWO_HEADS)
X = logits("uint8", (1, 2, 5, 40))
WANTED = expected("uint8", X, **TWO_HEADS)


def assert_right(session):
    np.testing.assert_array_equal(session.run(None, {"X": X})[0], WANTED)


def test_sessions_outlive_options(options):
    made = options()
    sessions = [onnxruntime.InferenceSession(MODEL, made, providers=CPU) for _ in range(3)]
    del made
    gc.collect()
    for session in sessions:
        assert_right(session)


def test_options_can_be_used_again_after_their_sessions_are_gone(options):
    made = options()
    for _ in range(3):
        session = onnxruntime.InferenceSession(MODEL, made, providers=CPU)
        assert_right(session)
        del session
        gc.collect()


def test_many_registrations_in_many_options(options):
    for _ in range(50):
        assert_right(onnxruntime.InferenceSession(MODEL, options(), providers=CPU))
    kept = [onnxruntime.InferenceSession(MODEL, options(), providers=CPU) for _ in range(20)]
    for session in kept:
        assert_right(session)


def test_registering_twice_with_the_same_options(options, library):
    made = options()
    made.register_custom_ops_library(library)
    assert_right(onnxruntime.InferenceSession(MODEL, made, providers=CPU))


def test_one_session_in_many_threads(session):
    run = session(MODEL, threads=2)
    wrong = []

    def work():
        wrong.extend(1 for _ in range(100) if not np.array_equal(run.run(None, {"X": X})[0], WANTED))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_sessions_created_in_many_threads(options):
    wrong = []

    def work():
        try:
            for _ in range(5):
                assert_right(onnxruntime.InferenceSession(MODEL, options(), providers=CPU))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _in_child(library, queue):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(MODEL, options, providers=CPU)
    queue.put(np.array_equal(session.run(None, {"X": X})[0], WANTED))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_sessions_of_its_own(session, library):
    run = session(MODEL)
    assert_right(run)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(library, queue))
    child.start()
    assert queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert_right(run)


def test_interpreter_exit_with_live_sessions_is_clean(library, tmp_path):
    (tmp_path / "model.onnx").write_bytes(MODEL)
    code = (
        "import onnxruntime, sys\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.register_custom_ops_library(sys.argv[1])\n"
        "sessions = [onnxruntime.InferenceSession(sys.argv[2], options) for _ in range(2)]\n"
    )
    command = [sys.executable, "-c", code, library, str(tmp_path / "model.onnx")]
    assert subprocess.run(command, timeout=120, check=False).returncode == 0
