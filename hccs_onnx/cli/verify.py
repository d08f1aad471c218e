"""``verify``: the rewritten model against the original."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hccs_onnx import words
from hccs_onnx.backends import BACKENDS
from hccs_onnx.cli.common import (
    DATA_HELP,
    add_command,
    add_json,
    add_model,
    mean_and_worst,
    note,
    print_json,
    table,
)
from hccs_onnx.errors import ExitStatus
from hccs_onnx.verify import Bounds, Verification, verify


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "run original and rewritten model on data and compare outputs and heads; status 3 if a bound is missed"
    example = "python -m hccs_onnx verify model.onnx model.hccs.onnx --data samples.npz --min-cosine 0.95"
    parser = add_command(commands, "verify", help_text, example)
    add_model(parser, "original", "the original ONNX file")
    add_model(parser, "rewritten", "what rewrite made of it")
    parser.add_argument("--data", required=True, type=Path, help=DATA_HELP)
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="function",
        help="what runs HCCS nodes: the function body in the model (default), the native library, or Python operators",
    )
    parser.add_argument("--min-cosine", type=float, help="lowest mean cosine of any output, -1..1")
    parser.add_argument("--min-worst-cosine", type=float, help="lowest cosine of any vector of any output, -1..1")
    parser.add_argument("--min-agreement", type=float, help="lowest argmax agreement of any class-score output, 0..1")
    parser.add_argument("--max-difference", type=float, help="highest absolute difference of any output")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    bounds = Bounds(options.min_cosine, options.min_worst_cosine, options.min_agreement, options.max_difference)
    result = verify(options.original, options.rewritten, options.data, backend=options.backend, bounds=bounds)
    if options.json:
        print_json(_finite({**asdict(result), "passed": not result.failures}))
    else:
        print(summary(result))
        print("FAILED" if result.failures else "passed" if bounds != Bounds() else "no bounds given")
    unjudged = bounds.unjudged(result.outputs)
    for failure in result.failures:
        remedy = (
            "Leave that bound out" if failure in unjudged else "Calibrate with more or better data, or relax the bound"
        )
        note(f"error: {options.rewritten}: {failure}. {remedy}.")
    return ExitStatus.NOT_VERIFIED if result.failures else ExitStatus.OK


def summary(result: Verification) -> str:
    """Tables of outputs and of nodes."""
    outputs = [
        [
            item.name,
            f"{item.max_difference:.4g}",
            f"{item.mean_difference:.4g}",
            f"{item.mean_cosine:.4f}",
            f"{item.worst_cosine:.4f}",
            "" if item.argmax_agreement is None else f"{item.argmax_agreement:.2%}",
        ]
        for item in result.outputs
    ]
    nodes = []
    for name in dict.fromkeys(item.node for item in result.heads):
        heads = [item for item in result.heads if item.node == name]
        kl = [item.kl for item in heads]
        deficits = mean_and_worst([item.deficit for item in heads])
        nodes.append([name, str(len(heads)), f"{sum(kl) / len(kl):.4f}", f"{max(kl):.4f}", *deficits])
    measures = (words.LARGEST_DIFFERENCE, words.MEAN_DIFFERENCE, words.MEAN_COSINE, words.WORST_COSINE, words.AGREEMENT)
    header = ["output", *(word.heading for word in measures)]
    losses = (words.MEAN_KL, words.WORST_KL, words.MEAN_DEFICIT, words.WORST_DEFICIT)
    node_header = [words.NODE.heading, "heads", *(word.heading for word in losses)]
    title = f"{result.samples} feeds, backend {result.backend}"
    return f"{title}\n\n{table(header, outputs)}\n\n{table(node_header, nodes)}"


def _finite(value: Any) -> Any:
    """`value` with NaN and infinities as strings, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
