"""A child process that runs models on the native library: what would kill pytest is an answer here.

``python -m native.worker LIBRARY`` is the child: it reads pickled requests and writes pickled answers.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnxruntime

TIMEOUT = 120.0  # seconds


@dataclass(frozen=True)
class Answer:
    """What came of a model: a result, or the text of the error, raised when it was loaded or when it was run."""

    y: np.ndarray[Any, Any] | None
    error: str = ""


class Worker:
    """The parent's side. A child that died is replaced when the next request comes."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.process: subprocess.Popen[bytes] | None = None
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close())

    def run(self, model: bytes, feeds: dict[str, np.ndarray[Any, Any]]) -> Answer:
        """Load and run a model; raises AssertionError where that killed the child, or took too long."""
        if self.process is None:
            command = [sys.executable, "-m", "native.worker", self.library]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log}
            self.process = subprocess.Popen(command, **pipes, cwd=Path(__file__).parents[1])
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        try:
            pickle.dump((model, feeds), process.stdin)
            process.stdin.flush()
            answer: Answer = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._stop()
            raise AssertionError(f"the process died: status {process.returncode}, it said\n{self._said()}") from None
        finally:
            timer.cancel()
        return answer

    def close(self) -> None:
        """Ends the child."""
        self._stop()
        self.log.close()

    def _stop(self) -> None:
        if self.process is not None:
            process, self.process = self.process, None
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(OSError):  # what was not sent yet has nowhere to go
                    stream.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _said(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-5000:]


def _answer(options: onnxruntime.SessionOptions, model: bytes, feeds: dict[str, np.ndarray[Any, Any]]) -> Answer:
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, feeds)
    except Exception as error:  # onnxruntime raises many classes without a common base
        return Answer(None, f"{type(error).__name__}: {error}")
    return Answer(y)


def _serve(library: str, requests: BinaryIO, answers: BinaryIO) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = "asan" not in os.environ.get("LD_PRELOAD", "")
    options.register_custom_ops_library(library)
    while True:
        try:
            model, feeds = pickle.load(requests)
        except EOFError:
            return
        pickle.dump(_answer(options, model, feeds), answers)
        answers.flush()


if __name__ == "__main__":
    from native.worker import _serve as serve  # as the module that pickle knows

    answers_fd = os.dup(1)
    os.dup2(2, 1)  # nothing else may come between the answers
    with os.fdopen(answers_fd, "wb") as stream:
        serve(sys.argv[1], sys.stdin.buffer, stream)
