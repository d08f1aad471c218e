"""The machine at hand: in the process itself, or in one process a core once that is worth their start."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

from hccs_onnx.calibration.collect import Collector, Job
from hccs_onnx.calibration.data import Feed, Samples, Shard
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.calibration.sketch_file import Sum, to_bytes
from hccs_onnx.errors import CalibrationError
from hccs_onnx.progress import bar

_TRIAL = 8  # feeds whose time tells that of the others
_WORTH_PROCESSES = 8.0  # seconds of work; starting a process takes two to three
_SHARDS_A_PROCESS = 8  # so that none waits long for the last


@dataclass(frozen=True)
class LocalEngine:
    """Runs a model on this machine.

    Parameters
    ----------
    processes : int
        Most processes. Each has a session of its own. With more than 1 the caller's main module must be importable
        without doing anything, as Python's multiprocessing wants it.
    shards : int, optional
        Cut the data into so many shards and use processes at once; default: only if the work takes long.
    """

    processes: int = 1
    shards: int | None = None

    def sketch(self, job: Job, samples: Samples) -> ModelSketch:
        """The sketch of all samples, as one part."""
        with bar("calibrating", len(samples)) as advance:
            if self.shards is not None and self.shards > 1:
                shards = samples.shards(self.shards)
                return _in_processes(job, shards, self.processes, advance).as_one_part()
            collector = Collector(job)
            if self.processes == 1 or self.shards == 1 or not samples.in_files:
                return collector.collect(_counted(samples, advance))
            first, rest = samples.shards(1)[0].split(_TRIAL)
            start = time.monotonic()
            sketch = collector.collect(_counted(Samples(first, job.specs), advance))
            seconds_left = (time.monotonic() - start) / len(first) * len(rest)
            if not rest:
                return sketch
            if seconds_left < _WORTH_PROCESSES:
                more = collector.collect(_counted(Samples(rest, job.specs), advance))
            else:
                del collector
                shards = Samples(rest, job.specs).shards(self.processes * _SHARDS_A_PROCESS)
                more = _in_processes(job, shards, self.processes, advance)
            return (sketch + more).as_one_part()


def _counted(samples: Samples, advance: Callable[[int], object]) -> Iterator[Feed]:
    for feed in samples:
        yield feed
        advance(1)


def _in_processes(job: Job, shards: Sequence[Shard], processes: int, advance: Callable[[int], object]) -> ModelSketch:
    total = Sum(job.subject)
    for feeds, data in _sketches(job, shards, min(processes, len(shards))):
        total.add(data, "shard")
        advance(feeds)
    return total.result()


def _sketches(job: Job, shards: Sequence[Shard], processes: int) -> Iterator[tuple[int, bytes]]:
    """Feeds and sketch of each shard as it is done; no more than a few are held at a time."""
    context = multiprocessing.get_context("spawn")  # onnxruntime's threads do not survive a fork
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(processes, context, _start, (job,))
    running: set[Future[tuple[int, bytes]]] = set()
    waiting = iter(shards)
    try:
        while True:
            running |= {pool.submit(_work, shard) for shard in islice(waiting, 2 * processes - len(running))}
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        pool.shutdown()
    except BrokenProcessPool as error:
        problem = "a worker process ended before its work was done"
        remedy = "If memory ran out, use --shards 1; engine ray tries again when a worker is lost"
        raise CalibrationError("engine local", problem, remedy=remedy) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
                process.join()


_worker: list[Job | Collector] = []
"""In a worker process its job, later a session of it."""


def _start(job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this process
    _worker[:] = [job]


def _work(shard: Shard) -> tuple[int, bytes]:
    worker = _worker[0]
    if isinstance(worker, Job):  # not at the start, where what it raises would not reach the parent
        worker = _worker[0] = Collector(worker)
    return len(shard), to_bytes(worker.collect_shard(shard))
