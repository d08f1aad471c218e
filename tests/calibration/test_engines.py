"""Engines: the same bytes from one process, many, and a cluster whose tasks end in any order; clear failures."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from graph.models import build

from hccs_onnx import workflow
from hccs_onnx.calibration.collect import Collector, Job
from hccs_onnx.calibration.data import Shard
from hccs_onnx.calibration.engines import LocalEngine, RayEngine, local, ray
from hccs_onnx.calibration.sketch_file import to_bytes
from hccs_onnx.demo import bundled_models
from hccs_onnx.errors import CalibrationError, DataError, HccsError

MODEL = bundled_models() / "digits_dynamo.onnx"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with np.load(bundled_models() / "calibration.npz") as arrays:
        np.savez(tmp_path / "data.npz", pixels=arrays["pixels"][:40])
    return tmp_path / "data.npz"


@pytest.fixture
def expected(data: Path) -> bytes:
    return to_bytes(workflow.sketch(MODEL, data, keep_rows=True))


def sketched(data: object, engine: Any) -> bytes:
    return to_bytes(workflow.sketch(MODEL, data, keep_rows=True, engine=engine))  # type: ignore[arg-type]


# --- local ---------------------------------------------------------------------------------------------------------


class InThisProcess:
    """Stands for the processes of the local engine: notes what they would be asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shards: list[int] = []
        monkeypatch.setattr(local, "_sketches", self._sketches)

    def _sketches(self, job: Job, shards: list[Shard], processes: int) -> list[tuple[int, bytes]]:
        self.shards.append(len(shards))
        collector = Collector(job)
        return [(len(shard), to_bytes(collector.collect_shard(shard))) for shard in reversed(shards)]


def test_local_engine_starts_processes_only_when_work_takes_long(
    data: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = InThisProcess(monkeypatch)
    assert sketched(data, LocalEngine(processes=2)) == expected
    assert processes.shards == []
    monkeypatch.setattr(local, "_WORTH_PROCESSES", 0.0)
    assert sketched(data, LocalEngine(processes=2)) == expected
    assert processes.shards == [16]


@pytest.mark.parametrize(("shards", "started"), [(1, []), (3, [3]), (1000, [40])])
def test_local_engine_cuts_into_the_shards_that_are_asked_for(
    data: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch, shards: int, started: list[int]
) -> None:
    processes = InThisProcess(monkeypatch)
    assert sketched(data, LocalEngine(processes=2, shards=shards)) == expected
    assert processes.shards == started


def test_local_engine_takes_feeds_from_python(data: Path, expected: bytes) -> None:
    with np.load(data) as arrays:
        feeds = [{"pixels": sample[None]} for sample in arrays["pixels"][::-1]]
    assert sketched(iter(feeds), LocalEngine(processes=2)) == expected


def assert_no_process_is_left() -> None:
    """At once, or when the pool's own thread has noticed as well."""
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_local_engine_gives_the_same_bytes_in_processes(data: Path, expected: bytes) -> None:
    assert sketched(data, LocalEngine(processes=2, shards=5)) == expected
    assert_no_process_is_left()


@pytest.mark.slow
def test_local_engine_passes_on_what_a_process_raises(data: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "zz.npz", pixels=np.zeros((4, 3), np.float32))
    with pytest.raises(DataError, match=r"zz\.npz: sample 0: input 'pixels': has the wrong shape"):
        sketched(tmp_path / "*.npz", LocalEngine(processes=2, shards=4))
    assert_no_process_is_left()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_local_engine_says_so_when_a_process_is_killed(data: Path) -> None:
    def kill() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        os.kill(children[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(CalibrationError, match="a worker process ended before its work was done"):
        sketched(data, LocalEngine(processes=2, shards=40))
    killer.join()


BRANCHES = (
    "g (float[b,2,n,4] q, float[b,2,4,n] k, float[b,2,n,4] v, bool flag) => (float[b,2,n,4] y) { y = If (flag) <"
    "then_branch = t () => (float[b,2,n,4] z) "
    "{ l = MatMul (q, k) p = Softmax <axis = -1> (l) z = MatMul (p, v) }, "
    "else_branch = e () => (float[b,2,n,4] z) "
    "{ m = MatMul (v, k) r = Softmax <axis = -1> (m) z = MatMul (r, q) }> }"
)


@pytest.mark.slow
def test_local_engine_adds_up_what_ran_in_some_shards_only(tmp_path: Path) -> None:
    onnx.save(build(BRANCHES, {}), tmp_path / "if.onnx")
    (tmp_path / "feeds").mkdir()
    for number in range(6):  # the first shards never come into one of the branches
        random = np.random.default_rng(number)
        shapes = {"q": (1, 2, 5, 4), "k": (1, 2, 4, 5), "v": (1, 2, 5, 4)}
        feed = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        np.savez(tmp_path / "feeds" / f"{number}.npz", flag=np.array(number < 4), **feed)  # type: ignore[arg-type]
    one, many = (
        workflow.sketch(tmp_path / "if.onnx", tmp_path / "feeds", keep_rows=True, engine=engine)
        for engine in (LocalEngine(), LocalEngine(processes=2, shards=3))
    )
    assert [sketch.rows.tolist() for sketch in one.sketches] == [[20, 20], [10, 10]]
    assert to_bytes(one) == to_bytes(many)


# --- sessions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [2, 3])
def test_results_do_not_depend_on_threads(
    data: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    from hccs_onnx.calibration import collect

    options = collect._options(False)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    options.intra_op_num_threads = threads
    monkeypatch.setattr(collect, "_options", lambda records: options)
    assert sketched(data, LocalEngine()) == expected


# --- a cluster, made up ----------------------------------------------------------------------------------------------


class Reference:
    """What a task will give."""

    def __init__(self, value: Callable[[], object]) -> None:
        self.value = value
        self.waited_for = False

    def hex(self) -> str:
        return str(id(self))


class MadeUpRay:
    """Ray's calls that the engine makes, in this process; tasks end in an order drawn by lot."""

    exceptions = SimpleNamespace(RayTaskError=type("RayTaskError", (Exception,), {}), RayError=OSError)

    def __init__(self, seed: int, cores: int) -> None:
        self._random, self._cores = random.Random(seed), cores
        self.most_running, self.most_added = 0, 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self._cores)}

    def put(self, value: object) -> Reference:
        return Reference(lambda: value)

    def get(self, reference: Reference) -> object:
        return reference.value()

    def remote(self, num_returns: int, num_cpus: int, max_retries: int) -> Callable:
        assert (num_returns, num_cpus) == (2, 1)
        assert max_retries > 1

        def task(function: Callable) -> object:
            def remote(*arguments: object) -> list[Reference]:
                values = [each.value() if isinstance(each, Reference) else each for each in arguments]
                self.most_added = max(self.most_added, sum(isinstance(each, Reference) for each in arguments))
                feeds, data = function(*values)
                return [Reference(lambda: feeds), Reference(lambda: data)]

            return SimpleNamespace(remote=remote)

        return task

    def wait(self, references: list[Reference], num_returns: int) -> tuple[list[Reference], list[Reference]]:
        self.most_running = max(self.most_running, len(references))
        ready = self._random.sample(references, num_returns)
        return ready, [reference for reference in references if reference not in ready]


def by_made_up_ray(made_up: MadeUpRay, data: Path, shards: int, monkeypatch: pytest.MonkeyPatch) -> bytes:
    from contextlib import nullcontext

    monkeypatch.setitem(sys.modules, "ray", made_up)
    monkeypatch.setattr(ray, "_cluster", lambda address: nullcontext(made_up))
    return sketched(data, RayEngine(shards=shards))


@pytest.mark.parametrize(("shards", "seed"), [(1, 0), (2, 1), (9, 2), (40, 3), (40, 4)])
def test_ray_engine_gives_the_same_bytes_whatever_the_shards_and_order(
    data: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch, shards: int, seed: int
) -> None:
    made_up = MadeUpRay(seed, cores=2)
    assert by_made_up_ray(made_up, data, shards, monkeypatch) == expected
    assert made_up.most_running <= 2 * 2 + 1  # what is in flight does not grow with the data
    assert made_up.most_added <= 8


def test_ray_engine_passes_on_what_a_task_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = MadeUpRay(0, cores=1)

    def fail() -> None:
        error = made_up.exceptions.RayTaskError("Traceback ...")
        error.cause = DataError("x.npz", "is damaged")
        raise error

    with pytest.raises(DataError, match=r"^x\.npz: is damaged\.$"):
        ray._got(made_up, Reference(fail))


def test_ray_engine_says_so_when_a_task_is_lost_for_good() -> None:
    def fail() -> None:
        raise OSError("worker died")

    with pytest.raises(CalibrationError, match=r"engine ray: a task was lost 21 times \(OSError\)"):
        ray._got(MadeUpRay(0, cores=1), Reference(fail))


def test_ray_engine_refuses_workers_of_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CalibrationError, match=r"a worker has another numpy \(.*, needs 0\.1\)"):
        ray._check_versions(ray._versions() | {"numpy": "0.1"})


def test_ray_engine_is_refused_without_ray(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HccsError, match=r"engine ray: needs Ray\. pip install hccs-onnx\[ray\]\."):
        sketched(data, RayEngine())


def test_ray_engine_refuses_feeds_from_python(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is not in files"):
        by_made_up_ray(MadeUpRay(0, cores=1), [{"pixels": np.zeros((1, 64), np.float32)}], 2, monkeypatch)  # type: ignore[arg-type]
