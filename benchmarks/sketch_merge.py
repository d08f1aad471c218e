"""Adding up sketch files: ``python -m hccs_onnx merge`` of a thousand, of a model of 12 layers with 12 heads."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from common import (
    MINILM_L6,
    ChildRun,
    log,
    package_file,
    parser,
    publish,
    reuters,
    run_module,
    table,
    token_feeds,
    verdict,
)

from hccs_onnx import workflow
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.calibration.sketch_file import to_bytes

_MOST_SECONDS = 10.0


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "sketch_merge")
    arguments.add_argument("--sketches", type=int, default=1000, help="files")
    arguments.add_argument("--different", type=int, default=10, help="files with data of their own; others repeat it")
    arguments.add_argument("--texts", type=int, default=64, help="Reuters R8 training texts in a file")
    arguments.add_argument("--repeats", type=int, default=3, help="runs, of which the fastest counts")
    options = arguments.parse_args()
    real = _sketches(options.different, options.texts)
    with tempfile.TemporaryDirectory() as folder:
        size = _write(Path(folder), real, options.sketches)
        log(f"{options.sketches} files of {size / 1e6:.2f} MB")
        sums = [_merge(folder, "--sketch-out", Path(folder) / "all") for _ in range(options.repeats)]
        log(f"sums: {sums}")
        fits = [_merge(folder, "-o", Path(folder) / "calibration.json") for _ in range(options.repeats)]
        log(f"sums and fits: {fits}")
        merged = (Path(folder) / "all").stat().st_size
    best = {
        "merge --sketch-out": min(sums, key=lambda run: run.seconds),
        "merge -o, with the fit": min(fits, key=lambda run: run.seconds),
    }
    body = _report(options.sketches, options.texts, size, merged, best)
    numbers = {
        "sketches": options.sketches,
        "bytes_each": size,
        "bytes_merged": merged,
        "runs": {"sum": [asdict(run) for run in sums], "sum_and_fit": [asdict(run) for run in fits]},
    }
    publish(options.out, "Sketches: merge", body, numbers)


def _sketches(count: int, texts: int) -> list[ModelSketch]:
    """Sketches of MiniLM L6 on different texts, each put behind that of the next to make 12 layers of them."""
    l6 = package_file(*MINILM_L6)
    halves = []
    for number in range(count):
        some, _ = reuters("train", texts, skip=number * texts)
        halves.append(workflow.sketch(l6, token_feeds(l6, some, batch=1)))
        log(f"collected {number + 1} of {count}")
    return [_on_top(one, other) for one, other in zip(halves, halves[1:] + halves[:1], strict=True)]


def _on_top(one: ModelSketch, other: ModelSketch) -> ModelSketch:
    more = tuple(replace(each, node=f"{each.node}/2", logits=f"{each.logits}/2") for each in one.subject.observed)
    subject = replace(one.subject, observed=one.subject.observed + more)
    return replace(one, subject=subject, sketches=one.sketches + other.sketches)


def _write(folder: Path, real: Sequence[ModelSketch], count: int) -> float:
    """Write files, each as if of data of its own; returns their mean size."""
    size = 0
    for number in range(count):
        sketch = replace(real[number % len(real)], parts=(sha256(str(number).encode()).hexdigest(),))
        size += (folder / f"part{number:05}.sketch").write_bytes(to_bytes(sketch))
    return size / count


@dataclass(frozen=True)
class _Run(ChildRun):
    """A run, and the processor time that it took on both cores together."""

    cpu_seconds: float


def _merge(folder: str, *arguments: str | Path) -> _Run:
    before = _cpu_of_children()
    run = run_module("hccs_onnx", "merge", Path(folder) / "part*.sketch", *arguments)
    return _Run(run.seconds, run.peak_mb, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _report(count: int, texts: int, size: float, merged: int, best: dict[str, _Run]) -> str:
    about = (
        f"A fresh `python -m hccs_onnx merge`, start of the interpreter included, of {count:,} files that lie in the "
        f"system's cache. Each holds 12 Softmax of 12 heads, as MiniLM L6 gives them for {texts} Reuters texts and "
        f"once more for {texts} others: {size / 1e6:.1f} MB, {size / 144 / 1e3:.0f} kB a head (the sum of all: "
        f"{merged / 144 / 1e3:.0f} kB a head)."
    )
    rows = [(name, f"{run.seconds:.1f}", f"{run.cpu_seconds:.1f}", f"{run.peak_mb:.0f}") for name, run in best.items()]
    seconds = best["merge --sketch-out"].seconds
    target = (f"merge of {count:,} sketches", f"{seconds:.1f} s", f"<= {_MOST_SECONDS:.0f} s")
    met = verdict(seconds <= _MOST_SECONDS)
    return "\n\n".join(
        [
            about,
            table(["command", "seconds, best run", "CPU seconds", "peak, MB"], rows),
            table(["target", "measured", "needs", ""], [(*target, met)]),
        ]
    )


if __name__ == "__main__":
    main()
