"""``codegen``: an AI Engine project of a rewritten model."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hccs_onnx.aie.devices import TARGETS
from hccs_onnx.cli import codegen_aie4ml
from hccs_onnx.cli.arguments import positive
from hccs_onnx.cli.common import DATA_HELP, add_command, add_model, add_shape, command_line, note, shapes, table
from hccs_onnx.errors import ExitStatus, UsageError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "write an AI Engine project: graph, kernels and test vectors for every HCCS node with int8 logits"
    example = "python -m hccs_onnx codegen model.hccs.onnx -o aie --target vek280 --shape input_ids=1,128"
    parser = add_command(commands, "codegen", help_text, example)
    add_model(parser, "model", "a model that rewrite made with --to uint8 or --to int16")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", type=Path, help="folder of the project")
    parser.add_argument("--target", required=True, help=f"{', '.join(TARGETS)}, or a device file (.json)")
    parser.add_argument("--flow", choices=_FLOWS, default="adf", help="for which tools (default: adf, AMD's own)")
    parser.add_argument("--node", action="append", default=[], metavar="NAME", help="only this node; can be repeated")
    add_shape(parser)
    parser.add_argument(
        "--tiles", type=positive, metavar="N", help="most tiles for a node (default: one for every 32 rows)"
    )
    parser.add_argument("--data", type=Path, help=f"test vectors from the first of {DATA_HELP}; default: random codes")
    parser.add_argument("--kernel", choices=["fast", "reference"], help="which kernel tiles run (default: fast)")
    codegen_aie4ml.add_options(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    return _FLOWS[options.flow](options)


def _adf(options: argparse.Namespace) -> ExitStatus:
    from hccs_onnx.aie.project import write_project

    if options.assume_unmasked:
        raise UsageError(
            "--assume-unmasked", "means nothing for the flow adf, whose kernels mask", remedy="Leave it out"
        )
    report = write_project(
        options.model,
        options.output,
        options.target,
        nodes=options.node,
        shapes=shapes(options),
        tiles=options.tiles,
        data=options.data,
        kernel=options.kernel or "fast",
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
                "-" if project.estimate is None else f"{project.estimate.microseconds:.1f}",
            ]
        )
    header = [
        "node",
        "heads x rows x n",
        "output",
        "tiles",
        "rows an iteration",
        "iterations",
        "padding rows",
        "µs, modelled",
    ]
    print(table(header, rows))
    note(f"wrote {report.folder}; next: {command_line('simulate', report.folder)}")
    return ExitStatus.OK


_FLOWS: dict[str, Callable[[argparse.Namespace], ExitStatus]] = {"adf": _adf, "aie4ml": codegen_aie4ml.run}
"""What writes a project, by the name of the flow."""
