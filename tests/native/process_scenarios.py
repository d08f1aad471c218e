"""One scenario with child processes, in a process of its own: ``python process_scenarios.py NAME LIBRARY MODEL DATA``.

DATA is an .npz with x and y. Exit status 0: every process got y from x, bit for bit. Needs NumPy and onnxruntime only.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable

import numpy as np
import onnxruntime

TIMEOUT = 60  # seconds; a fork can leave a lock that nobody will open


class Case:
    """A model with what it must compute; can be sent to another process."""

    def __init__(self, library: str, model: str, data: str) -> None:
        self.library, self.model = library, model
        with np.load(data) as arrays:
            self.x, self.y = arrays["x"], arrays["y"]

    def session(self) -> onnxruntime.InferenceSession:
        """A session with one thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.register_custom_ops_library(self.library)
        return onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def check(self, session: onnxruntime.InferenceSession) -> None:
        """Raise AssertionError unless the session computes y."""
        np.testing.assert_array_equal(session.run(None, {"X": self.x})[0], self.y)

    def check_own_session(self) -> None:
        """The same for a new session."""
        self.check(self.session())


def fork(work: Callable[[], None]) -> None:
    """Run `work` in a forked child that does not come back."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            import signal

            signal.alarm(TIMEOUT)
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with status {status}"


def fork_makes_sessions(case: Case) -> None:
    """The library is loaded and in use when the child is forked; the child registers it again."""
    session = case.session()
    case.check(session)
    fork(case.check_own_session)
    case.check(session)


def fork_before_registration(case: Case) -> None:
    """Parent and child register for the first time after the fork."""
    fork(case.check_own_session)
    case.check_own_session()


def fork_uses_session(case: Case) -> None:
    """The child uses, and drops, the parent's session of one thread, which stays usable for the parent."""
    sessions = [case.session()]
    case.check(sessions[0])

    def use() -> None:
        case.check(sessions[0])
        sessions.clear()
        case.check_own_session()

    fork(use)
    case.check(sessions[0])


def fork_from_fork(case: Case) -> None:
    """A grandchild does as its parent does."""
    session = case.session()
    fork(lambda: fork(lambda: case.check(session)))
    case.check(session)


def spawn_makes_sessions(case: Case) -> None:
    """Spawned children, several at once."""
    case.check_own_session()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(Case.check_own_session, [case] * 4)


def exit_with_live_sessions(case: Case) -> None:
    """The interpreter ends while sessions and options live."""
    globals()["kept"] = [case.session() for _ in range(3)]


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        fork_makes_sessions,
        fork_before_registration,
        fork_uses_session,
        fork_from_fork,
        spawn_makes_sessions,
        exit_with_live_sessions,
    )
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]](Case(*sys.argv[2:]))
