"""``report``: a page to look at."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hccs_onnx import words
from hccs_onnx.aie.devices import TARGETS
from hccs_onnx.calibration.data.shards import files
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.cli.arguments import new_file
from hccs_onnx.cli.common import DATA_HELP, add_command, add_model, add_shape, note, shapes, table
from hccs_onnx.errors import ExitStatus
from hccs_onnx.graph.files import check_source, check_target, model_files

if TYPE_CHECKING:
    from hccs_onnx.report.content import Content


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "write one HTML page: what was rewritten, how close it comes, which heads are hard, what it costs"
    example = "python -m hccs_onnx report model.onnx --calibration model.hccs.json --data test.npz -o report.html"
    parser = add_command(commands, "report", help_text, example)
    add_model(parser)
    parser.add_argument("--calibration", required=True, type=Path, help="calibration file made for MODEL")
    parser.add_argument("-o", "--output", type=new_file, help="page to write (default: MODEL with .report.html)")
    parser.add_argument("--data", type=Path, help=f"measure and draw maps with {DATA_HELP}")
    parser.add_argument("--rewritten", type=Path, metavar="OUT.onnx", help="what rewrite made of MODEL (default: anew)")
    parser.add_argument("--labels", type=Path, help="class of each sample, integers in an .npy: adds accuracy")
    parser.add_argument(
        "--sample", type=_number, metavar="N", help="feed of DATA whose attention is drawn (default: 0)"
    )
    parser.add_argument("--target", help=f"estimate the cost on {', '.join(TARGETS)} or a device file; integer output")
    add_shape(parser)
    parser.set_defaults(run=_run)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return int(text)


def _run(options: argparse.Namespace) -> ExitStatus:
    from hccs_onnx.report.gather import Request
    from hccs_onnx.report.write import check_packages, write_report

    check_packages()
    check_source(options.model)
    output = options.output or options.model.with_name(options.model.name.removesuffix(".onnx") + ".report.html")
    inputs = model_files(options.model) + (files(options.data) if options.data is not None else [])
    inputs += [path for path in (options.calibration, options.rewritten, options.labels) if path is not None]
    check_target(output, *inputs)  # before any long work
    request = Request(
        data=options.data,
        rewritten=options.rewritten,
        labels=options.labels,
        target=options.target,
        shapes=shapes(options),
        sample=options.sample,
    )
    content = write_report(options.model, Calibration.load(options.calibration), output, request)
    print(summary(content))
    note(f"wrote {output}")
    return ExitStatus.OK


def summary(content: Content) -> str:
    """A line for each layer: its heads' KL, the mean and the worst."""
    rows = []
    for layer in content.layers:
        kl = [head.kl for head in layer]
        rows.append([layer[0].node, str(len(layer)), f"{sum(kl) / len(kl):.4f}", f"{max(kl):.4f}"])
    header = [words.NODE.heading, "heads", words.MEAN_KL.heading, words.WORST_KL.heading]
    return table(header, rows)
