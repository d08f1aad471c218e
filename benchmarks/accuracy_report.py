"""The accuracy table as Markdown, what is wanted, and accuracy against operations an element as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_data import DATASETS, LENGTH
from accuracy_models import AGAIN, FIRST, MODELS
from accuracy_onnx import CALIBRATION_TEXTS
from accuracy_results import Results
from accuracy_rows import FLOAT, FLOAT_AGAIN, GRANULARITIES, PAPER_OUTPUTS, Row, rows
from accuracy_surrogates import SURROGATES
from common import publish_text, table, verdict

_MODELS = {"tiny": "BERT-tiny's shape (2 layers, 2 heads, 128 channels), trained from scratch", "minilm": "MiniLM-L6"}
_DATASETS = {"r8": "Reuters R8", "r52": "Reuters R52", "20news": "20 Newsgroups"}
_GROUPS = {"float": "Softmax", "paper": "HCCS as in the paper", "ours": "HCCS", "others": "other stand-ins"}
_TARGETS = (  # row, compared with, points lost at most, on the mean over data sets with MiniLM-L6
    ("float output, calibrated, least-squares", FLOAT, 0.5),
    ("float output, by squares, calibrated, least-squares", FLOAT, 0.5),
    ("uint8 norm, calibrated, least-squares", FLOAT, 1.0),
    ("float output, calibrated, retrained", FLOAT_AGAIN, 0.2),
    ("uint8 norm, calibrated, retrained", FLOAT_AGAIN, 0.2),
    ("uint8 clb, calibrated, retrained", FLOAT_AGAIN, 0.5),
)
OPERATIONS = {
    FLOAT: 16,  # max, subtract, exp (2 to split, 2 to reduce, 6 for the polynomial, 2 to scale), sum, multiply
    "uint8 norm, calibrated": 8,  # max, subtract, min, multiply, subtract, sum, multiply, shift
    "float output, calibrated": 10,  # max, subtract, divide, round, min, multiply-subtract, mask (2), sum, multiply
    "base-2 (Softermax)": 10,  # max, subtract, split (2), polynomial (3), scale, sum, multiply
    "polynomial exp (I-BERT)": 11,  # max, subtract, split (3), polynomial (3), shift, sum, multiply
    "32-entry table (IntAttention)": 8,  # max, subtract, index (2), limit, read, sum, multiply
    "sparsemax": 50,  # bitonic sort of 64 (21 exchanges, 2 each), running sum, compare (3), subtract, max
    "normalised ReLU": 3,  # max, sum, multiply
}
"""Additions, multiplications, comparisons, shifts and table reads an element, without what is done once a row."""


def report(results: Results, out: Path) -> None:
    """Write what was measured so far beside the results."""
    sections = [_about()]
    if any(results.cell(model, data, row.name) is None for model in MODELS for data in DATASETS for row in rows()):
        sections.append("What is blank, or a row that is not there, was not measured yet.")
    for model in MODELS:
        if results.has(model):
            sections += [f"## {_MODELS[model]}", _table(results, model)]
    if results.has("minilm"):
        sections.append(_targets(results))
    lines = _granularity(results)
    if lines:
        sections += ["## Granularity", lines]
    if _figure(results, out.with_suffix(".svg")):
        about = "Accuracy and operations an element, which are counted in `accuracy_report.py`."
        sections.append(f"![{about}]({out.name}.svg)\n\n{about}")
    command = "python benchmarks/accuracy.py"
    print(publish_text(out, "Accuracy", "\n\n".join(sections), results.environments(), command))


def _about() -> str:
    minilm, tiny = FIRST["minilm"], FIRST["tiny"]
    return (
        f"Test accuracy in percent on official splits, texts cut at {LENGTH} word pieces; mean over seeds, with the "
        "number of seeds and largest minus smallest where there are several. Fine-tuned with Softmax (MiniLM-L6 "
        f"{minilm.epochs} epochs with matrix products in bfloat16, BERT-tiny's shape {tiny.epochs} in float32), then "
        "measured, always in float32, with something else in its place, "
        f"as it is or after {AGAIN['minilm'].epochs} more epoch with it in place. In brackets: points gained or lost "
        "against the float model of the same training, so that the additional epoch itself is no gain. Calibrated and "
        f"corrected on {CALIBRATION_TEXTS} training texts without labels, by the ONNX road (export, `calibrate`, "
        "`rewrite`, onnxruntime); retrained rows are measured in torch, whose HCCS is the same bit for bit. Other "
        "stand-ins are plain floating-point versions of their papers' functions, without the papers' number formats; "
        "uniform attention shows how much a task needs attention at all. "
        f"HCCS as in the paper has no mask: padding keeps the floor score; texts are padded to {LENGTH} word pieces."
    )


def _table(results: Results, model: str) -> str:
    lines = []
    for row in rows():
        cells = [_cell(results, model, data, row) for data in DATASETS]
        if any(cells):
            lines.append([_GROUPS[row.group], row.name, *(cell or "" for cell in cells), _mean(results, model, row)])
    return table(["", "variant", *(_DATASETS[data] for data in DATASETS), "mean, lost"], lines)


def _cell(results: Results, model: str, data: str, row: Row) -> str:
    value = results.cell(model, data, row.name)
    if value is None:
        return ""
    text = f"{100 * value.mean:.2f}"
    base = _base(row)
    difference = results.cell(model, data, row.name, minus=base)
    if difference is not None and row.name not in (FLOAT, FLOAT_AGAIN):
        text += f" ({100 * difference.mean:+.2f})"
    return text + (f" [{value.seeds}: {100 * value.spread:.2f}]" if value.seeds > 1 else "")


def _mean(results: Results, model: str, row: Row) -> str:
    lost = _lost(results, model, row.name, _base(row))
    return "" if lost is None or row.name in (FLOAT, FLOAT_AGAIN) else f"{lost:+.2f}"


def _base(row: Row) -> str:
    return FLOAT_AGAIN if row.retrained else FLOAT


def _lost(results: Results, model: str, row: str, base: str) -> float | None:
    """Points lost, mean over data sets; None unless all were measured."""
    cells = [results.cell(model, data, row, minus=base) for data in DATASETS]
    return None if None in cells else -100 * float(np.mean([cell.mean for cell in cells if cell]))


def _targets(results: Results) -> str:
    lines = []
    for row, base, most in _TARGETS:
        lost = _lost(results, "minilm", row, base)
        measured = ["not measured on all", ""] if lost is None else [f"{lost:.3f}", verdict(lost <= most + 1e-9)]
        lines.append([row, base, measured[0], f"<= {most}", measured[1]])
    return table(["MiniLM-L6, points lost", "against", "measured", "needs", ""], lines)


def _granularity(results: Results) -> str:
    """Whether finer parameters are better in the paper's setting, and whether that is more than chance."""
    lines = []
    for model in MODELS:
        for output in PAPER_OUTPUTS:
            for again in (False, True):
                names = [f"{output}, {name}, calibrated" + ", retrained" * again for name in GRANULARITIES.values()]
                losses = [
                    [-100 * v for v in results.values(model, name, FLOAT_AGAIN if again else FLOAT)] for name in names
                ]
                gains = [100 * v for v in results.values(model, names[-1], minus=names[0])]
                if len(gains) > 1:
                    error = np.std(gains, ddof=1) / np.sqrt(len(gains))
                    lost = [f"{np.mean(loss):+.2f}" for loss in losses]
                    gain = f"{np.mean(gains):+.2f} ± {error:.2f} ({len(gains)})"
                    lines.append([_title(model), f"{output}, {'retrained' if again else 'as it is'}", *lost, gain])
    if not lines:
        return ""
    head = ["", "HCCS as in the paper", *(f"lost, {name}" for name in GRANULARITIES.values()), "per head - one for all"]
    return "\n\n".join([
        "Points lost on the mean over all data sets and seeds, and what a head's own parameters gain over one set for "
        "all heads: mean, standard error, runs.",
        table(head, lines),
        "What calibration found, mean over some of these models: KL over all heads, and between what values the clip "
        "ranges of 8 of 10 heads lie, in nats.",
        _calibrations(results),
    ])  # fmt: skip


def _calibrations(results: Results) -> str:
    lines = []
    for model in MODELS:
        for output in PAPER_OUTPUTS:
            found = [results.calibrations(model, f"{output}, {name}") for name in GRANULARITIES.values()]
            if all(found):
                lines.append([_title(model), output, len(found[0]), *map(_calibration, found)])
    return table(["", "HCCS as in the paper", "models", *GRANULARITIES.values()], lines)


def _calibration(found: Sequence[Mapping[str, Any]]) -> str:
    low, high = np.mean([one["clip_ranges"] for one in found], axis=0)
    return f"{np.mean([one['kl'] for one in found]):.3f}; {low:.2f} to {high:.2f}"


def _figure(results: Results, path: Path) -> bool:
    """Accuracy against operations an element, with and without retraining; whether there was enough to draw."""
    points = {model: _points(results, model) for model in MODELS}
    points = {model: found for model, found in points.items() if found}
    if not points:
        return False
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "hccs-onnx"
    from matplotlib import pyplot as plt

    places = {name: place for place, name in enumerate(sorted(OPERATIONS, key=lambda name: -OPERATIONS[name]))}
    figure, axes = plt.subplots(
        1, len(points), figsize=(3 + 3.2 * len(points), 3.2), squeeze=False, sharey=True, layout="constrained"
    )
    for axis, (model, found) in zip(axes[0], points.items(), strict=True):
        for name, plain, again in found:
            color = "black" if name == FLOAT else "tab:blue" if name in SURROGATES else "tab:orange"
            axis.plot([plain, again], [places[name]] * 2, color=color, linewidth=1)
            axis.plot(plain, places[name], "o", color=color, markerfacecolor="white")
            axis.plot(again, places[name], "o", color=color)
        axis.set(xlabel="accuracy, %, mean over the data sets", title=_title(model))
        axis.grid(axis="x", linewidth=0.4)
    axes[0][0].set_yticks([*places.values()], [f"{_label(name)}: {OPERATIONS[name]}" for name in places])
    axes[0][0].set_ylabel("operations an element")
    axes[0][0].plot([], [], "o", color="gray", markerfacecolor="white", label="as it is")
    axes[0][0].plot([], [], "o", color="gray", label="after one more epoch")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True


def _title(model: str) -> str:
    return _MODELS[model].split(" (")[0]


def _label(name: str) -> str:
    """A row's name in the figure."""
    if name == FLOAT:
        return "Softmax"
    return name if name in SURROGATES else f"HCCS, {name.removesuffix(', calibrated')}"


def _points(results: Results, model: str) -> Sequence[tuple[str, float, float]]:
    """Name, accuracy in percent without and with one more epoch; of what was measured on all data sets."""
    found = []
    for name in OPERATIONS:
        again = FLOAT_AGAIN if name == FLOAT else f"{name}, retrained"
        means = [[results.cell(model, data, row) for data in DATASETS] for row in (name, again)]
        if all(cell is not None for cells in means for cell in cells):
            plain, trained = (100 * float(np.mean([cell.mean for cell in cells if cell])) for cells in means)
            found.append((name, plain, trained))
    return found
