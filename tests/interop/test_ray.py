"""A real Ray cluster, on this machine: the bytes of the local engine, also when its workers are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import DIGITS

from hccs_onnx import workflow
from hccs_onnx.calibration.engines import RayEngine
from hccs_onnx.calibration.sketch_file import to_bytes
from hccs_onnx.cli import main
from hccs_onnx.errors import DataError, HccsError

ray = pytest.importorskip("ray")

# Ray leaves files and sockets to be closed when the process ends.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

MODEL = DIGITS / "digits_torchscript.onnx"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    root = Path(__file__).parents[2]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with np.load(DIGITS / "calibration.npz") as arrays:
        for number in range(4):
            np.savez(folder / f"{number}.npz", pixels=np.tile(arrays["pixels"][64 * number : 64 * number + 64], (4, 1)))
    return folder / "*.npz"


@pytest.fixture(scope="module")
def expected(data: Path) -> bytes:
    return to_bytes(workflow.sketch(MODEL, data, keep_rows=True))


@pytest.mark.parametrize("shards", [1, 7, 40])
def test_cluster_gives_the_bytes_of_the_local_engine(cluster: None, data: Path, expected: bytes, shards: int) -> None:
    assert to_bytes(workflow.sketch(MODEL, data, keep_rows=True, engine=RayEngine(shards=shards))) == expected


def workers() -> list[int]:
    """Processes below this one in which Ray's tasks run."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            parents[int(folder.name)] = int((folder / "status").read_text().split("PPid:\t")[1].split()[0])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()

    def ours(process: int) -> bool:
        while process in parents:
            if parents[process] == os.getpid():
                return True
            process = parents[process]
        return False

    return [process for process, name in names.items() if name.startswith(b"ray::sketch_shard") and ours(process)]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_killed_workers_cost_nothing_but_time(cluster: None, data: Path, expected: bytes) -> None:
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and len(killed) < 3:
            for process in workers()[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                time.sleep(1.0)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        sketch = workflow.sketch(MODEL, data, keep_rows=True, engine=RayEngine(shards=64))
    finally:
        over.set()
        killer.join()
    assert killed  # else nothing was tried
    assert to_bytes(sketch) == expected


def test_error_of_a_task_is_the_error_of_the_run(cluster: None, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pixels=np.full((8, 64), np.nan, np.float32))
    with pytest.raises(DataError, match=r"a\.npz: sample [04]: input 'pixels': holds NaN or \+infinity") as caught:
        workflow.sketch(MODEL, tmp_path / "a.npz", engine=RayEngine(shards=2))
    assert type(caught.value) is DataError


def test_command_line_takes_the_engine(cluster: None, data: Path, expected: bytes, tmp_path: Path) -> None:
    options = ["--engine", "ray", "--shards", "3", "--to", "uint8", "--sketch-out", str(tmp_path / "s.sketch")]
    assert main(["calibrate", str(MODEL), "--data", str(data), *options]) == 0
    assert (tmp_path / "s.sketch").read_bytes() == expected


def test_cluster_that_cannot_be_reached_is_refused(data: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(HccsError, match="engine ray: cannot reach the cluster"):
        workflow.sketch(MODEL, data, engine=RayEngine(address="127.0.0.1:1"))
