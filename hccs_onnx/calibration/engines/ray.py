"""A Ray cluster: shards are tasks, their sketches are added up in a tree of tasks. Needs Ray, the extra ``[ray]``."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice
from typing import Any

from hccs_onnx._version import __version__
from hccs_onnx.calibration.collect import Collector, Job
from hccs_onnx.calibration.data import Samples, Shard
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.calibration.sketch_file import Sum, from_bytes, to_bytes
from hccs_onnx.errors import CalibrationError, HccsError
from hccs_onnx.progress import bar

_FEEDS_A_SHARD = 4096  # at most, unless told: what a lost worker may cost
_SHARDS_A_CORE = 8  # at least: so that no core waits long for the last
_IN_FLIGHT_A_CORE = 2  # tasks: enough to keep cores busy; sketches that wait to be added are bounded by it
_READY_AT_ONCE = 32  # a share of what is in flight is taken at once, so that the driver keeps up with many cores
_BRANCHES = 8  # sketches that a task adds up
_TRIES_AGAIN = 20  # of one task when its worker is lost
_SECONDS_TO_ANSWER = 10.0
_PACKAGES = ("numpy", "onnxruntime")


@dataclass(frozen=True)
class RayEngine:
    """Runs a model on the cores of a Ray cluster.

    Every node needs this package, the data, and the model's external data under the same paths, and the same versions
    of onnxruntime and NumPy.

    Parameters
    ----------
    address : str, optional
        Of the cluster, as `ray.init` takes it; default: the one that this process is connected to, or that the
        environment names, or a new one on this machine.
    shards : int, optional
        Number of tasks; default: 8 a core, or more so that none has more than 4,096 feeds.
    """

    address: str | None = None
    shards: int | None = None

    def sketch(self, job: Job, samples: Samples) -> ModelSketch:
        """The sketch of all samples, as one part."""
        with _cluster(self.address) as ray:
            count = self.shards
            if count is None:
                count = max(_SHARDS_A_CORE * _cores(ray), -(-len(samples) // _FEEDS_A_SHARD))
            shards = [shard.absolute() for shard in samples.shards(count)]  # workers may run in other folders
            data = _got(ray, _sum_of(ray, replace(job, path=job.path.absolute()), shards))
        return from_bytes(data, "engine ray").as_one_part()


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; left again unless it was connected before."""
    try:
        import ray
    except ImportError as error:
        raise HccsError("engine ray", "needs Ray", remedy="pip install hccs-onnx[ray]") from error
    connected = ray.is_initialized()
    if not connected:
        _check_reachable(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreachable(str(error)) from error
    try:
        yield ray
    finally:
        if not connected:
            ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Refuse HOST:PORT at once if nobody answers there; Ray itself tries for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(str(error)) from error


def _unreachable(reason: str) -> HccsError:
    found = reason.splitlines()[0][:200].rstrip(".")
    remedy = "Check --address, or start one with ray start --head"
    return HccsError("engine ray", f"cannot reach the cluster ({found})", remedy=remedy)


def _cores(ray: Any) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _sum_of(ray: Any, job: Job, shards: Sequence[Shard]) -> Any:
    """Reference to the sum of all shards' sketches, added up in whatever order they are done."""
    options = {"num_cpus": 1, "max_retries": _TRIES_AGAIN}
    sketch_task = ray.remote(num_returns=2, **options)(sketch_shard)
    add_task = ray.remote(num_returns=2, **options)(add_up)
    shared = [ray.put(job)]  # in a list, so that a task gets the reference, and the model only if it has no session yet
    job_key, versions = shared[0].hex(), _versions()
    waiting = iter(shards)
    sketches: list[Any] = []
    running: dict[Any, Any] = {}  # by the reference to its number of feeds, which is small, that to the sketch
    with bar("calibrating", sum(map(len, shards))) as advance:
        while True:
            for shard in islice(waiting, max(0, _IN_FLIGHT_A_CORE * _cores(ray) - len(running))):
                feeds, data = sketch_task.remote(shared, job_key, versions, shard)
                running[feeds] = data
            while len(sketches) >= _BRANCHES or (not running and len(sketches) > 1):
                feeds, data = add_task.remote(*sketches[:_BRANCHES])
                running[feeds], sketches = data, sketches[_BRANCHES:]
            if not running:
                return sketches[0]
            several = 1 + len(running) // _READY_AT_ONCE
            for feeds in ray.wait(list(running), num_returns=several)[0]:
                advance(_got(ray, feeds))
                sketches.append(running.pop(feeds))


def _got(ray: Any, reference: Any) -> Any:
    """What a task gave.

    Raises
    ------
    HccsError
        What it raised, or that it was lost for good.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HccsError):
            raise error.cause from None
        problem = f"a task failed: {type(error.cause).__name__}: {str(error.cause)[:300].rstrip('.')}"
        raise CalibrationError("engine ray", problem, remedy="See the worker's log") from error
    except ray.exceptions.RayError as error:
        problem = f"a task was lost {_TRIES_AGAIN + 1} times ({type(error).__name__})"
        remedy = "If memory ran out, use more shards or fewer workers a node"
        raise CalibrationError("engine ray", problem, remedy=remedy) from error


def sketch_shard(shared: list[Any], job_key: str, versions: dict[str, str], shard: Shard) -> tuple[int, bytes]:
    """A task: how many feeds a shard has, and their sketch."""
    import ray

    if job_key not in _collectors:
        _check_versions(versions)
        _collectors.clear()
        _collectors[job_key] = Collector(ray.get(shared[0]))
    return len(shard), to_bytes(_collectors[job_key].collect_shard(shard))


_collectors: dict[str, Collector] = {}
"""In a worker process the session of the job that it worked for last."""


def add_up(*sketches: bytes) -> tuple[int, bytes]:
    """A task: the sum of some sketches. It has no feeds of its own."""
    total = Sum()
    for sketch in sketches:
        total.add(sketch, "shard")
    return 0, to_bytes(total.result().as_one_part())


def _versions() -> dict[str, str]:
    """Of what results depend on."""
    return {"hccs-onnx": __version__, **{package: version(package) for package in _PACKAGES}}


def _check_versions(driver: dict[str, str]) -> None:
    """Refuse to work with other versions, whose results may differ in the last bit."""
    for package, number in _versions().items():
        if number != driver[package]:
            problem, needs = f"a worker has another {package}", driver[package]
            remedy = "Install the same on all nodes"
            raise CalibrationError("engine ray", problem, found=number, needs=needs, remedy=remedy)
