"""``calibrate``: fit head parameters to data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hccs_onnx import workflow
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.cli.common import DATA_HELP, add_command, add_model, note, table
from hccs_onnx.errors import ExitStatus
from hccs_onnx.graph.files import check_source, check_target
from hccs_onnx.params import OUTPUT_TYPES, PROFILES


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "fit the parameters of every attention head to data and write a calibration file"
    example = "python -m hccs_onnx calibrate model.onnx --data samples.npz -o model.hccs.json"
    parser = add_command(commands, "calibrate", help_text, example)
    add_model(parser)
    parser.add_argument("--data", required=True, type=Path, help=DATA_HELP)
    parser.add_argument("-o", "--output", type=Path, help="calibration file (default: MODEL with .hccs.json)")
    add_fit_options(parser)
    parser.set_defaults(run=_run)


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """What is fitted: ``--granularity``, ``--to``, ``--reciprocal``, ``--profile``, and the quantiser of the logits."""
    parser.add_argument(
        "--granularity", choices=["head", "layer", "global"], default="head", help="what shares one set of parameters"
    )
    parser.add_argument(
        "--objective",
        choices=get_args(workflow.Objective),
        default="kl",
        help="what is least: KL divergence (default), or for float output the squared difference of probabilities",
    )
    parser.add_argument(
        "--to",
        choices=OUTPUT_TYPES,
        default="float",
        help="what attention puts out: float (default), or integers, with the logits quantised to int8",
    )
    parser.add_argument(
        "--reciprocal",
        choices=["norm", "div", "clb"],
        default="norm",
        help="how integer output inverts row sums: norm (default; exact to 15 bits), or the paper's div and clb",
    )
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        default="extended",
        help="what is legal: extended (default), or paper, what the published kernels compute (no mask)",
    )
    parser.add_argument(
        "--logit-scale",
        choices=get_args(workflow.LogitScale),
        default="free",
        help="scale of the integer logits' quantiser: any (default), or a power of two",
    )
    parser.add_argument(
        "--logit-zero-point",
        choices=get_args(workflow.LogitZeroPoint),
        default="free",
        help="its zero point: fitted (default), or 0",
    )
    parser.add_argument(
        "--scale-granularity",
        choices=get_args(workflow.ScaleGranularity),
        default="head",
        help="one such quantiser for each head (default), or for the whole tensor",
    )


def calibrate(options: argparse.Namespace) -> Calibration:
    """The calibration that the options ask for."""
    return workflow.calibrate(
        options.model,
        options.data,
        granularity=options.granularity,
        objective=options.objective,
        to=options.to,
        reciprocal=options.reciprocal,
        profile=options.profile,
        logit_scale=options.logit_scale,
        logit_zero_point=options.logit_zero_point,
        scale_granularity=options.scale_granularity,
    )


def _run(options: argparse.Namespace) -> ExitStatus:
    check_source(options.model)
    output = options.output or options.model.with_name(options.model.name.removesuffix(".onnx") + ".hccs.json")
    check_target(output, options.model, options.data)  # before any long work
    calibration = calibrate(options)
    calibration.save(output)
    print(summary(calibration))
    note(f"wrote {output}; next: python -m hccs_onnx rewrite {options.model} --calibration {output}")
    return ExitStatus.OK


def summary(calibration: Calibration) -> str:
    """A line for each Softmax: heads, longest row, clip ranges, KL."""
    rows = []
    for softmax in calibration.softmaxes:
        clips = [fit.params.clip_range for fit in softmax.heads]
        kl = [fit.kl for fit in softmax.heads]
        rows.append(
            [
                softmax.node,
                str(len(softmax.heads)),
                str(softmax.longest),
                f"{min(clips):.2f} to {max(clips):.2f}",
                f"{np.mean(kl):.4f}",
                f"{max(kl):.4f}",
            ]
        )
        if calibration.output != "float":
            deficit = max((fit.deficit for fit in softmax.heads), key=abs)
            rows[-1] += [f"{np.median([fit.params.Dmax for fit in softmax.heads]):.0f}", f"{deficit:.2g}"]
    header = ["Softmax", "heads", "longest row", "clip range (nats)", "mean KL (nats)", "worst head"]
    if calibration.output != "float":
        header += ["codes in clip", "row-mass deficit"]
    return table(header, rows)
