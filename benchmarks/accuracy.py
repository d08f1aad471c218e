"""Accuracy of classifiers with HCCS and with other stand-ins in the place of Softmax, with and without retraining."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import torch
from accuracy_data import DATASETS, Dataset, load
from accuracy_models import FIRST, MODELS, Classifier, new_classifier, train
from accuracy_report import report
from accuracy_results import Key, Results
from accuracy_rows import Row, Setting, rows
from common import log, parser

_SEEDS = {("tiny", name): 3 for name in DATASETS} | {("minilm", "r8"): 3}  # 1 for the rest


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "accuracy")
    arguments.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments.add_argument("--data", nargs="+", choices=DATASETS, default=list(DATASETS))
    arguments.add_argument("--seeds", type=int, help="seeds at most, 3 or 1 as the table wants where not given")
    arguments.add_argument("--rows", default="", metavar="REGEX", help="only rows whose names match")
    arguments.add_argument("--work", type=Path, default=Path("accuracy-work"), help="folder for fine-tuned models")
    arguments.add_argument("--device", default="cpu", help="torch device for training")
    arguments.add_argument("--report", action="store_true", help="only write the report of what was measured so far")
    options = arguments.parse_args()

    results = Results(options.out.with_suffix(".json"))
    if not options.report:
        wanted = [row for row in rows() if re.search(options.rows, row.name)]
        for model in options.models:
            for data_name in options.data:
                for seed in range(min(_SEEDS.get((model, data_name), 1), options.seeds or 3)):
                    _measure(results, wanted, Key(model, data_name, seed), options.work, options.device)
    report(results, options.out)


def _measure(results: Results, wanted: list[Row], key: Key, work: Path, device: str) -> None:
    """Whatever of a model, data set and seed was not measured yet."""
    missing = [row for row in wanted if results.get(key, row.name) is None]
    if not missing:
        return
    data = load(key.data)
    classifier = _fine_tuned(key, data, work, device)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(key.model, key.seed, classifier, data, Path(folder))
        for row in missing:
            log(f"{key}: {row.name}")
            value = row.measure(setting)
            results.put(key, row.name, value)
            log(f"{key}: {row.name}: {value:.4f}")


def _fine_tuned(key: Key, data: Dataset, work: Path, device: str) -> Classifier:
    """The float model, trained unless an earlier run has left it."""
    classifier = new_classifier(key.model, len(data.classes), key.seed).to(device)
    path = work / f"{key.model}-{key.data}-{key.seed}.pt"
    if path.exists():
        classifier.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        return classifier
    train(classifier, data.train, FIRST[key.model], key.seed, f"{key}: fine-tuning")
    work.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(classifier.state_dict(), part)
    part.replace(path)
    return classifier


if __name__ == "__main__":
    main()
