"""``merge``: fit head parameters to what several runs of ``calibrate --sketch-out`` have collected."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hccs_onnx.calibration.data.shards import matches
from hccs_onnx.calibration.merge import merge_files
from hccs_onnx.cli.arguments import new_file
from hccs_onnx.cli.calibrate import add_fit_options, add_sketch_options, check_targets, fit_options, note_unused, write
from hccs_onnx.cli.common import add_command
from hccs_onnx.errors import ExitStatus, UsageError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "add up sketches of calibrate --sketch-out, in any order, and fit the parameters to all their data"
    example = "python -m hccs_onnx merge part*.sketch -o model.hccs.json"
    parser = add_command(commands, "merge", help_text, example)
    parser.add_argument("sketches", metavar="SKETCH", nargs="+", type=Path, help="sketch files, or quoted patterns")
    parser.add_argument("-o", "--output", type=new_file, help="calibration file (needed, unless there is --sketch-out)")
    add_fit_options(parser)
    add_sketch_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    if options.output is None and options.sketch_out is None:
        remedy = "Name a calibration file with -o, or a sketch with --sketch-out"
        raise UsageError("-o", "nothing to write", remedy=remedy)
    chosen = fit_options(options)
    paths = [path for pattern in options.sketches for path in matches(pattern, "the name")]
    check_targets(options.sketch_out, options.output, *paths)
    if options.output is None:
        note_unused(options)
    sketch = merge_files(paths, allow_repeats=options.allow_repeats)
    subject = str(paths[0]) + (f" and {len(paths) - 1} more" if paths[1:] else "")
    write(sketch, chosen, options.sketch_out, options.output, Path("MODEL"), subject)
    return ExitStatus.OK
