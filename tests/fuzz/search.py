"""The search: models, damaged in turn, given to a worker process; what it should not have done comes back."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.mutations import damaged

PATIENCE = 60.0  # seconds for one model, on a busy machine


@dataclass(frozen=True)
class Finding:
    """A damaged model that was neither rewritten nor refused.

    Parameters
    ----------
    seed : str
        Of the mutation: ``damaged(original, random.Random(seed))`` makes the model again.
    original : str
        Name of what was damaged.
    what : str
        What the worker said, or how it ended.
    model : bytes
        The damaged model.
    """

    seed: str
    original: str
    what: str
    model: bytes = field(repr=False)


def search(
    originals: Mapping[str, bytes], folder: Path, *, count: int = 0, seconds: float = 0.0, seed: int = 0
) -> tuple[list[Finding], Counter[str]]:
    """Damage models until there were `count` and `seconds` are over.

    Parameters
    ----------
    originals : mapping of str to bytes
        Model files by name, taken in turns.
    folder : pathlib.Path
        An empty one, for the worker.
    count : int
        Models to try at least.
    seconds : float
        Time to go on for.
    seed : int
        What mutations depend on, beside the number of the model.

    Returns
    -------
    list of Finding
        What should not have happened.
    Counter of str
        How often models were rewritten (``ok``) and refused.
    """
    findings, answers = [], Counter[str]()
    end, number = time.monotonic() + seconds, 0
    names = list(originals)
    worker = Worker(folder)
    try:
        while number < count or time.monotonic() < end:
            name = names[number % len(names)]
            label = f"{seed}:{number}"
            model = damaged(originals[name], random.Random(label))
            answer = worker.judge(model)
            answers[answer.split()[0]] += 1
            if answer.startswith("found"):
                findings.append(Finding(label, name, answer, model))
            number += 1
    finally:
        worker.close()
    return findings, answers


class Worker:
    """The child process, started anew after each end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def judge(self, model: bytes) -> str:
        """What the worker says of a model, or how it ended."""
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(len(model).to_bytes(8, "little") + model)
        process.stdin.flush()
        if not select.select([process.stdout], [], [], PATIENCE)[0]:
            self.close()
            return f"found no end in {PATIENCE:.0f} s"
        answer = process.stdout.readline().decode().rstrip("\n")
        return answer or f"found a crash, status {self.close()}"

    def _start(self) -> subprocess.Popen[bytes]:
        tests = Path(__file__).parent.parent
        paths = [str(tests), str(tests.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-m", "fuzz.worker", str(self._folder)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)

    def close(self) -> int | None:
        """End the process; its status."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        try:
            process.communicate(timeout=5)  # closes its input
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode
