"""``rewrite``: the main job."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from hccs_onnx import workflow
from hccs_onnx.assignment import check_choices
from hccs_onnx.calibration.data.shards import files
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.cli.arguments import new_file
from hccs_onnx.cli.calibrate import add_fit_options, calibrate, given_fit_options
from hccs_onnx.cli.common import DATA_HELP, add_command, add_model, command_line, note, say, table
from hccs_onnx.cli.inspect import line
from hccs_onnx.correction.correct import LayerCorrection
from hccs_onnx.correction.solve import Method
from hccs_onnx.errors import ExitStatus, UsageError
from hccs_onnx.graph.external import external_locations
from hccs_onnx.graph.files import check_source, check_target, read_model, writing_errors
from hccs_onnx.graph.placement import ExternalData, place

CORRECTIONS = ("none", *get_args(Method))
_MOST_REASONS = 10
_TOLD_BY_FILES = ("granularity", "to", "reciprocal", "profile")
_WITHOUT_DATA = ("to", "reciprocal", "profile")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "replace attention's Softmax nodes by HCCS nodes, into a new model that runs on stock onnxruntime"
    example = "python -m hccs_onnx rewrite model.onnx --data samples.npz -o model.hccs.onnx"
    parser = add_command(commands, "rewrite", help_text, example)
    add_model(parser)
    parser.add_argument("-o", "--output", type=new_file, help="new model (default: MODEL with .hccs.onnx)")
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
        help="""refer to MODEL's files of external data, or copy them (default: share what lies in the output's folder,
        copy the rest)""",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    given = given_fit_options(options)
    _check(options, given)
    check_source(options.model)
    output = options.output or workflow.default_output(options.model)
    inputs = [options.model, *([options.calibration] if options.calibration is not None else [])]
    if options.data is not None:
        inputs += files(options.data)
    check_target(output, *inputs)  # before any long work
    calibration = None
    if options.calibration is not None:
        calibration = Calibration.load(options.calibration)
        check_choices(calibration, given, str(options.calibration))
    elif options.data is not None:
        with writing_errors(output):  # whether data could be shared or copied, also before long work
            place(external_locations(read_model(options.model)), options.model, output, options.external_data)
        calibration = calibrate(options)
    report = workflow.rewrite(
        options.model,
        output,
        calibration=calibration,
        **{name: given.get(name) for name in _WITHOUT_DATA},
        correct=options.correct,
        data=options.data if options.correct != "none" else None,
        strict=options.strict,
        include=options.include,
        exclude=options.exclude,
        external_data=options.external_data,
    )
    left = len(report.found) - len(report.rewritten)
    made = f" ({_made(calibration, given)})" if report.rewritten else ""
    say(f"{report.output}: {len(report.rewritten)} attention Softmax rewritten{made}, {left} left alone")
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
        return ExitStatus.OK
    if calibration is None:
        kept = "" if given.get("to", "float") == "float" else ", the model's own quantisers of the logits"
        note(f"data-free: one clip range of 3.3 nats a head{kept}. For better fidelity calibrate: add --data DATA")
    note(f"check it: {command_line('verify', options.model, report.output, '--data')} DATA")
    return ExitStatus.OK


def _check(options: argparse.Namespace, given: Mapping[str, Any]) -> None:
    """Refuse options that would be ignored."""
    corrects = options.correct != "none"
    if options.calibration is not None and options.data is not None and not corrects:
        remedy = "Leave one of them out, or add --correct, which needs both"
        raise UsageError("--data", "means nothing with --calibration", remedy=remedy)
    if corrects and options.data is None:
        raise UsageError("correct", "needs samples", found=options.correct, remedy="Add --data DATA")
    for name, value in given.items():
        if options.calibration is not None and name not in _TOLD_BY_FILES:
            remedy = "Leave it out, or calibrate with it"
            raise UsageError(name, "means nothing with --calibration, which has it", found=value, remedy=remedy)
        # Without data no quantiser is fitted that could have a form: that of the logits is the model's own.
        if options.calibration is None and options.data is None and name not in _WITHOUT_DATA:
            raise UsageError(name, "needs data", found=value, remedy="Add --data DATA")


def _made(calibration: Calibration | None, given: Mapping[str, Any]) -> str:
    """Output type, and for integers how row sums are inverted."""
    if calibration is not None:
        output, reciprocal = calibration.output, calibration.reciprocal
    else:
        output, reciprocal = given.get("to", "float"), given.get("reciprocal", "norm")
    return output if output == "float" else f"{output}, {reciprocal}"


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
