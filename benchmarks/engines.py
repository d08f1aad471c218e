"""Calibration on one and two workers: a Ray cluster on this machine, and the local engine's processes."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from common import MINILM_L6, ROOT, log, package_file, parser, publish, reuters, table, token_feeds, verdict

from hccs_onnx import workflow
from hccs_onnx.calibration.engines import Engine, LocalEngine, RayEngine
from hccs_onnx.calibration.sketch_file import to_bytes

_LEAST_GAIN = 1.7  # of two workers over one


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "engines")
    arguments.add_argument("--texts", type=int, default=256, help="Reuters R8 training texts through MiniLM L6")
    arguments.add_argument("--shards", type=int, default=16, help="tasks")
    arguments.add_argument("--rounds", type=int, default=5, help="of one and two workers in turn; the median counts")
    options = arguments.parse_args()
    model = package_file(*MINILM_L6)
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = _write(Path(folder) / "data.npz", model, options.texts)
        few = _write(Path(folder) / "few.npz", model, 8)
        expected = to_bytes(workflow.sketch(model, data))

        def timed(name: str, engine: Engine) -> None:
            start, before = time.perf_counter(), _cpu_seconds()
            sketch = workflow.sketch(model, data, engine=engine)
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            cpu.setdefault(name, []).append(_cpu_seconds() - before)
            log(f"{name}: {seconds[name][-1]:.1f} s, CPU {cpu[name][-1]:.1f} s")
            if to_bytes(sketch) != expected:
                raise SystemExit(f"{name} gives other bytes")

        for _ in range(options.rounds):
            for workers in (1, 2):
                _on_ray(
                    workers,
                    lambda: workflow.sketch(model, few, engine=RayEngine(shards=8)),
                    lambda workers=workers: timed(f"ray, {workers} workers", RayEngine(shards=options.shards)),
                )
            for processes in (1, 2):
                timed(f"local, {processes} processes", LocalEngine(processes, options.shards))
    publish(
        options.out,
        "Calibration: engines",
        _report(options.texts, options.shards, seconds, cpu),
        {"seconds": seconds, "cpu_seconds": cpu},
        ["ray"],
    )


def _write(file: Path, model: Path, texts: int) -> Path:
    """Texts, all padded to one length."""
    some, _ = reuters("train", texts)
    np.savez(file, **next(token_feeds(model, some, batch=texts)))  # type: ignore[arg-type]
    return file


def _on_ray(workers: int, warm_up: Callable[[], object], run: Callable[[], object]) -> None:
    """Run in a new cluster of so many workers, once they have started and loaded the model."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        warm_up()
        run()
    finally:
        ray.shutdown()


def _cpu_seconds() -> float:
    """Processor time of this process and all that came from it, also through others. Linux only."""
    parents, ticks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            values = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(values[1])
            ticks[int(folder.name)] = sum(map(int, values[11:15]))  # its own, and of children that have ended

    def ours(process: int) -> bool:
        while process != os.getpid() and process in parents:
            process = parents[process]
        return process == os.getpid()

    return sum(count for process, count in ticks.items() if ours(process)) / os.sysconf("SC_CLK_TCK")


def _report(texts: int, shards: int, seconds: dict[str, list[float]], cpu: dict[str, list[float]]) -> str:
    about = (
        f"MiniLM L6 over {texts} Reuters texts of 128 tokens, cut into {shards} shards; one thread a worker; median of "
        f"{min(map(len, seconds.values()))} runs, in turn. Ray: workers have started, sessions are loaded in the run. "
        "Local: the start of processes included. CPU: of all processes that take part. "
        "All give the same bytes as one process without shards."
    )
    median = {name: statistics.median(runs) for name, runs in seconds.items()}
    rows = [
        (
            name,
            f"{middle:.1f}",
            f"{min(seconds[name]):.1f} to {max(seconds[name]):.1f}",
            f"{texts / middle:.1f}",
            f"{1000 * statistics.median(cpu[name]) / texts:.0f}",
        )
        for name, middle in median.items()
    ]
    targets = []
    for engine, one, two in (
        ("Ray", "ray, 1 workers", "ray, 2 workers"),
        ("local", "local, 1 processes", "local, 2 processes"),
    ):
        gain = median[one] / median[two]
        needs, met = (f">= {_LEAST_GAIN}", verdict(gain >= _LEAST_GAIN)) if engine == "Ray" else ("", "")
        targets.append((f"{engine}: throughput of 2 against 1", f"{gain:.2f}", needs, met))
    return "\n\n".join(
        [
            about,
            table(["engine", "seconds, median", "range", "texts a second", "CPU ms a text"], rows),
            table(["target", "measured", "needs", ""], targets),
        ]
    )


if __name__ == "__main__":
    main()
