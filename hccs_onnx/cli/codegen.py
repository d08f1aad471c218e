"""``codegen``: an AI Engine project of a rewritten model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hccs_onnx.aie.devices import TARGETS
from hccs_onnx.cli.common import DATA_HELP, add_command, add_model, note, table
from hccs_onnx.errors import ExitStatus


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "write an AI Engine project: graph, kernels and test vectors for every HCCS node with int8 logits"
    example = "python -m hccs_onnx codegen model.hccs.onnx -o aie --target vek280 --shape input_ids=1,128"
    parser = add_command(commands, "codegen", help_text, example)
    add_model(parser, "model", "a model that rewrite made with --to uint8 or --to int16")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", type=Path, help="folder of the project")
    parser.add_argument("--target", required=True, help=f"{', '.join(TARGETS)}, or a device file (.json)")
    parser.add_argument("--flow", choices=_FLOWS, default="adf", help="what is written (default: adf, AMD's own tools)")
    parser.add_argument("--node", action="append", default=[], metavar="NAME", help="only this node; can be repeated")
    shape_help = "shape of a dynamic input"
    parser.add_argument(
        "--shape", action="append", nargs="+", default=[], type=_shape, metavar="NAME=1,128", help=shape_help
    )
    parser.add_argument("--tiles", type=int, metavar="N", help="most tiles for a node (default: one for every 32 rows)")
    parser.add_argument("--data", type=Path, help=f"test vectors from the first of {DATA_HELP}; default: random codes")
    parser.add_argument("--kernel", choices=["fast", "reference"], default="fast", help="which kernel tiles run")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    return _FLOWS[options.flow](options)


def _adf(options: argparse.Namespace) -> ExitStatus:
    from hccs_onnx.aie.project import write_project

    report = write_project(
        options.model,
        options.output,
        options.target,
        nodes=options.node,
        shapes=dict(pair for group in options.shape for pair in group),
        tiles=options.tiles,
        data=options.data,
        kernel=options.kernel,
    )
    rows = []
    for project in report.nodes:
        plan = project.plan
        rows.append(
            [
                project.node.name,
                f"{plan.work.heads} x {plan.work.rows} x {plan.work.n}",
                f"{project.node.output} {project.node.params.reciprocal}",
                str(len(plan.tiles)),
                f"{plan.slots} x {plan.rows}",
                str(plan.iterations),
                f"{plan.padding:.1%}",
            ]
        )
    header = ["node", "heads x rows x n", "output", "tiles", "rows an iteration", "iterations", "padding rows"]
    print(table(header, rows))
    note(f"wrote {report.folder}; next: python -m hccs_onnx simulate {report.folder}")
    return ExitStatus.OK


_FLOWS: dict[str, Callable[[argparse.Namespace], ExitStatus]] = {"adf": _adf}
"""What writes a project, by the name of the flow."""


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``NAME=1,128`` as a name and a shape."""
    name, equals, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not (equals and name and shape):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SIZE,SIZE,...")
    return name, shape
