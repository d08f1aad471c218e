"""Timing of `softmax.py`: contestants take turns, round by round, on every shape and number of threads."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from common import SEED, log
from softmax_contestants import SOFTMAX, Contestant, Data, Shape, ort_contestants, run_copies
from softmax_peers import PEERS, Peer

WARM_S = 1e-3
TURN_S = 2e-3
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """Seconds that a call of a contestant took on a shape: median and quartiles over the rounds."""

    shape: str
    threads: int
    contestant: str
    way: str
    median_s: float
    lower_s: float
    upper_s: float
    rounds: int


@dataclass
class Results:
    """All that was timed in sessions.

    Parameters
    ----------
    timings : list of Timing
        In order of measurement.
    scaling : list of Timing
        The same contestants on several numbers of threads, taking turns with each other.
    graphs : dict
        Operators of the optimised graph that ONNX Runtime ran for each contestant inside it.
    skipped : list of str
        What was left out and why.
    checked : int
        How many outputs were compared with what they must be.
    run_copies : bool
        Whether plain ``session.run`` copies outputs.
    """

    timings: list[Timing] = field(default_factory=list)
    scaling: list[Timing] = field(default_factory=list)
    graphs: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    checked: int = 0
    run_copies: bool = False

    def skip(self, what: str) -> None:
        """Note, and say, that something is left out."""
        self.skipped.append(what)
        log(f"skipped: {what}")


@dataclass
class Turns:
    """A contestant's turns on one shape, called in one way."""

    contestant: Contestant
    way: str
    threads: int
    seconds: list[float] = field(default_factory=list)

    def check(self) -> None:
        """Open it and see that it computes what it must.

        Raises
        ------
        SystemExit
            If it does not.
        """
        name = f"{self.contestant.name} ({self.way}, threads: {self.threads})"
        try:
            with self.contestant.open(self.way, self.threads) as running:
                wrong = self.contestant.check(running.output())
        except Exception as error:  # whatever a runtime raises
            raise SystemExit(f"{name}: {(str(error) or repr(error)).splitlines()[0]}") from error
        if wrong:
            raise SystemExit(f"{name}: {wrong}")

    def take(self) -> None:
        """Take a turn, and leave the processors to the next one."""
        self.seconds.append(self._once())
        if self.threads > 1:
            _wait_for_threads()

    def _once(self) -> float:
        """Open it, warm it up, time calls back to back, close it; the mean time of a call."""
        with self.contestant.open(self.way, self.threads) as running:
            return _seconds(running.call)

    def timing(self, shape: Shape) -> Timing:
        """What came out."""
        lower, median, upper = (float(value) for value in np.percentile(self.seconds, (25, 50, 75)))
        return Timing(
            shape.label, self.threads, self.contestant.name, self.way, median, lower, upper, len(self.seconds)
        )


def measure(
    results: Results, shapes: Sequence[Shape], scaling: str, threads: Sequence[int], rounds: int, seconds: float
) -> None:
    """Check and time all contestants on all shapes, those of the fewest threads first, and add to `results`.

    Parameters
    ----------
    results : Results
        Where to add.
    shapes : sequence of Shape
        What to time on.
    scaling : str
        Label of the shape, if it is among them, on which those inside ONNX Runtime are timed once more, all numbers of
        threads in turn.
    threads : sequence of int
        Numbers of threads.
    rounds : int
        Most rounds on a shape.
    seconds : float
        Time for everything, about: each shape gets as many rounds, up to `rounds`, as fit into its share.
    """
    start, peers = time.perf_counter(), _usable_peers(results)
    counts = sorted(set(threads))
    phases: list[tuple[tuple[int, ...], Shape]] = [((count,), shape) for count in counts for shape in shapes]
    if len(counts) > 1:
        phases += [(tuple(counts), shape) for shape in shapes if shape.label == scaling]
    for number, (together, shape) in enumerate(phases, 1):
        data = Data(shape)
        inside = ort_contestants(shape, data)
        if not results.graphs:
            results.graphs = {name: model.operators() for name, model in inside.models.items()}
            results.run_copies = run_copies(inside.models[SOFTMAX], data.floats)
        entries = list(inside.contestants)
        if len(together) == 1:
            entries += [one for peer in peers for one in peer.contestants(shape, data)]
        turns = [Turns(one, way, count) for one in entries for way in one.ways for count in together]
        for one in turns:
            one.check()
        done = _take_rounds(turns, rounds, start + seconds * number / len(phases))
        results.checked += len(turns)
        target = results.timings if len(together) == 1 else results.scaling
        target += [one.timing(shape) for one in turns]
        log(f"{number}/{len(phases)} {shape.label}, threads: {' and '.join(map(str, together))}, rounds: {done}")


def _usable_peers(results: Results) -> list[Peer]:
    reasons = {peer: _unusable(peer) for peer in PEERS}
    for peer, reason in reasons.items():
        if reason:
            results.skip(f"{peer.package}: {reason}")
    return [peer for peer in PEERS if not reasons[peer]]


def _unusable(peer: Peer) -> str | None:
    """Why a peer cannot be timed, if it cannot."""
    shape = Shape("probe", (1, 1, 2, 32))
    try:
        for contestant in peer.contestants(shape, Data(shape)):
            for way in contestant.ways:
                Turns(contestant, way, 1).check()
    except ImportError as error:
        return f"{error} (benchmarks/README.md says how to install it)"
    except SystemExit as error:
        return str(error)
    return None


def _take_rounds(turns: Sequence[Turns], most: int, deadline: float) -> int:
    """Let each take its turn, round by round, until the deadline; how many rounds that were."""
    gc.collect()
    gc.disable()
    count, longest, order = 0, 0.0, random.Random(SEED)
    while count < most and (count < LEAST_ROUNDS or time.perf_counter() + longest < deadline):
        start = time.perf_counter()
        for one in order.sample(turns, len(turns)):  # so that nobody always follows the same
            one.take()
        longest = max(longest, time.perf_counter() - start)
        count += 1
    gc.enable()
    return count


def _seconds(call: Callable[[], object]) -> float:
    """Mean time of a call, of as many as fit into a turn, after others that warm caches, allocator and threads."""
    calls, start = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - start < WARM_S:
        call()
        calls += 1
    repeats = max(1, round(TURN_S * calls / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def _wait_for_threads(most: int = 100) -> None:
    """Sleep until threads that a contestant left behind no longer spin, so that the next has all processors."""
    for _ in range(most):
        busy, start = time.process_time(), time.perf_counter()
        time.sleep(1e-3)
        if time.process_time() - busy < 0.2 * (time.perf_counter() - start):
            return
