"""``rewrite``: the main job."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from hccs_onnx import workflow
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.cli.calibrate import add_fit_options, calibrate
from hccs_onnx.cli.common import DATA_HELP, add_command, add_model, note, say, table
from hccs_onnx.cli.inspect import line
from hccs_onnx.correction.correct import LayerCorrection
from hccs_onnx.correction.solve import Method
from hccs_onnx.errors import CalibrationError, ExitStatus, HccsError
from hccs_onnx.graph.external import external_locations
from hccs_onnx.graph.files import check_source, check_target, read_model, writing_errors
from hccs_onnx.graph.placement import ExternalData, place

CORRECTIONS = ("none", *get_args(Method))
_MOST_REASONS = 10


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "replace attention's Softmax nodes by HCCS nodes, into a new model that runs on stock onnxruntime"
    example = "python -m hccs_onnx rewrite model.onnx --data samples.npz -o model.hccs.onnx"
    parser = add_command(commands, "rewrite", help_text, example)
    add_model(parser)
    parser.add_argument("-o", "--output", type=Path, help="new model (default: MODEL with .hccs.onnx)")
    parser.add_argument("--calibration", type=Path, help="calibration file made for MODEL")
    parser.add_argument(
        "--data", type=Path, help=f"calibrate first (without --calibration), and correct, with {DATA_HELP}"
    )
    add_fit_options(parser)
    parser.add_argument(
        "--correct",
        choices=CORRECTIONS,
        default="none",
        help="""after the rewrite, bring attention's output projections closer to the original's on the data: their
        biases, or by least squares their weights as well (default: none)""",
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail if a Softmax that looks like attention is left alone"
    )
    parser.add_argument("--include", metavar="REGEX", help="rewrite only nodes in whose name this is found")
    parser.add_argument("--exclude", metavar="REGEX", help="leave alone nodes in whose name this is found")
    parser.add_argument(
        "--external-data",
        choices=get_args(ExternalData),
        help="refer to MODEL's files of external data, or copy them (default: share what lies in the output's folder)",
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(options: argparse.Namespace) -> ExitStatus:
    if options.calibration is not None and options.data is not None and options.correct == "none":
        options.usage_error("argument --data: not allowed with argument --calibration, but to --correct")
    if options.correct != "none" and options.data is None:
        raise HccsError("--correct", "needs samples", found=options.correct, remedy="Add --data DATA")
    calibration = None
    check_source(options.model)
    output = options.output or workflow.default_output(options.model)
    inputs = (options.model, options.data, options.calibration)
    check_target(output, *(path for path in inputs if path is not None))  # before any long work
    if options.calibration is not None:
        calibration = Calibration.load(options.calibration)
        if options.to not in ("float", calibration.output):
            problem = f"was made for {calibration.output} output"
            raise CalibrationError(
                str(options.calibration), problem, needs=f"--to {options.to}", remedy="Calibrate again"
            )
    elif options.data is not None:
        with writing_errors(output):  # whether data could be shared or copied, also before long work
            place(external_locations(read_model(options.model)), options.model, output, options.external_data)
        calibration = calibrate(options)
    else:
        _check_data_free(options)
    report = workflow.rewrite(
        options.model,
        output,
        calibration=calibration,
        to=options.to if calibration is None else None,
        reciprocal=options.reciprocal,
        profile=options.profile,
        correct=options.correct,
        data=options.data if options.correct != "none" else None,
        strict=options.strict,
        include=options.include,
        exclude=options.exclude,
        external_data=options.external_data,
    )
    left = len(report.found) - len(report.rewritten)
    say(f"{report.output}: {len(report.rewritten)} attention Softmax rewritten, {left} left alone")
    if report.corrections:
        print(corrections(report.corrections))
    for copy in report.copies:
        note(f"external data copied to {copy} ({copy.stat().st_size / 1e6:.1f} MB)")
    reasons = [line(item) for item in report.found if item.reason is not None]
    for reason in reasons[:_MOST_REASONS]:
        note(reason)
    if left > _MOST_REASONS:
        note(f"... and {left - _MOST_REASONS} more left alone")
    if not report.rewritten:
        note(f"nothing was left to rewrite; {report.output} is {options.model} as it is")
    elif calibration is None:
        kept = "" if options.to == "float" else ", the model's own quantisers of the logits"
        note(f"data-free: one clip range of 3.3 nats a head{kept}. For better fidelity calibrate: add --data DATA")
    note(f"check it: python -m hccs_onnx verify {options.model} {report.output} --data DATA")
    return ExitStatus.OK


def _check_data_free(options: argparse.Namespace) -> None:
    """Without data the quantiser of the logits is the model's own: none is fitted that could have a form."""
    for name in ("logit_scale", "logit_zero_point"):
        value = getattr(options, name)
        if value != "free":
            raise HccsError(f"--{name.replace('_', '-')}", "needs data", found=value, remedy="Add --data DATA")


def corrections(layers: Sequence[LayerCorrection]) -> str:
    """A line for each rewritten Softmax: what was done to the projection behind it."""
    rows = []
    for layer in layers:
        errors = ["" if error is None else f"{error:.4f}" for error in (layer.before, layer.after)]
        rows.append([layer.node, *errors, _what(layer)])
    return table(["Softmax", "error held out", "corrected", "correction"], rows)


def _what(layer: LayerCorrection) -> str:
    if layer.ridge is None:
        return f"left alone: {layer.reason}"
    return "bias" if math.isinf(layer.ridge) else f"ridge {layer.ridge:.2g}"
