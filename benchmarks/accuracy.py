"""Accuracy of classifiers with HCCS and with other stand-ins in the place of Softmax, with and without retraining."""

from __future__ import annotations

import os
import re
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import torch
from accuracy_data import DATASETS, load
from accuracy_models import FIRST, MODELS, Classifier, new_classifier, train
from accuracy_report import report
from accuracy_results import Key, Results
from accuracy_rows import Row, Setting, rows
from common import log, parser

_SEEDS = {("tiny", name): 3 for name in DATASETS} | {("minilm", "r8"): 3}  # 1 for the rest
_ROWS = {row.name: row for row in rows()}


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "accuracy")
    arguments.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments.add_argument("--data", nargs="+", choices=DATASETS, default=list(DATASETS))
    arguments.add_argument("--seeds", type=int, help="seeds at most, 3 or 1 as the table wants where not given")
    arguments.add_argument("--rows", default="", metavar="REGEX", help="only rows whose names match")
    arguments.add_argument("--work", type=Path, default=Path("accuracy-work"), help="folder for fine-tuned models")
    arguments.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, of one thread each")
    arguments.add_argument("--device", default="cpu", help="torch device for training")
    arguments.add_argument("--report", action="store_true", help="only write the report of what was measured so far")
    options = arguments.parse_args()

    results = Results(options.out.with_suffix(".json"), options.device)
    failed = 0
    if not options.report:
        wanted = [row for row in rows() if re.search(options.rows, row.name)]
        missing = [
            (key, row)
            for model in options.models
            for data in options.data
            for key in (Key(model, data, seed) for seed in range(min(_SEEDS.get((model, data), 1), options.seeds or 3)))
            for row in wanted
            if results.get(key, row.name) is None
        ]
        failed = _measure(results, missing, options.work, options.device, options.jobs)
    report(results, options.out)
    if failed:
        raise SystemExit(f"{failed} runs failed, see above")


def _measure(results: Results, missing: list[tuple[Key, Row]], work: Path, device: str, jobs: int) -> int:
    """Whatever was not measured yet, each result kept as it comes; how many runs failed."""
    # What needs no training comes first: it calibrates, and training uses that.
    names: dict[Key, list[str]] = {}
    for key, row in sorted(missing, key=lambda item: item[1].retrained):
        names.setdefault(key, []).append(row.name)
    failed = 0
    # A pool of processes of one thread trains these small models faster than one process of many threads, and one
    # thread gives the same sums on every machine.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))
    try:
        running: dict[Future[float], tuple[Key, str | None]]
        running = {pool.submit(_fine_tune, key, work, device): (key, None) for key in names}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key, name = running.pop(future)
                if future.exception() is not None:
                    failed += 1
                    log(f"{key}: {name or 'fine-tuning'}: {future.exception()!r}")
                elif name is None:
                    log(f"{key}: fine-tuned, {future.result():.0f} s")
                    running |= {pool.submit(_measure_row, key, row, work, device): (key, row) for row in names[key]}
                else:
                    results.put(key, name, future.result())
                    results.note_calibrations(key, key.folder(work).glob("*.json"))
                    log(f"{key}: {name}: {future.result():.4f}")
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _fine_tune(key: Key, work: Path, device: str) -> float:
    """Train a float model unless an earlier run has left it; the time it took, in seconds."""
    path = _checkpoint(key, work)
    if path.exists():
        return 0.0
    data = load(key.data)
    classifier = new_classifier(key.model, len(data.classes), key.seed).to(device)
    seconds = train(classifier, data.train, FIRST[key.model], key.seed, f"{key}: fine-tuning")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(classifier.state_dict(), part)
    part.replace(path)
    return seconds


def _measure_row(key: Key, name: str, work: Path, device: str) -> float:
    """Test accuracy of a row."""
    return _ROWS[name].measure(_setting(key, work, device))


@lru_cache(maxsize=1)
def _setting(key: Key, work: Path, device: str) -> Setting:
    data = load(key.data)
    classifier: Classifier = new_classifier(key.model, len(data.classes), key.seed).to(device)
    path = _checkpoint(key, work)
    classifier.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    return Setting(str(key), key.model, key.seed, classifier, data, path.parent)


def _checkpoint(key: Key, work: Path) -> Path:
    return key.folder(work) / "float.pt"


if __name__ == "__main__":
    main()
