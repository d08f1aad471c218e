"""``codegen --flow aie4ml``: attention blocks for aie4ml."""

from __future__ import annotations

import argparse
import shlex

from hccs_onnx.cli.common import note, shapes, table
from hccs_onnx.errors import ExitStatus, UsageError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this flow alone."""
    help_text = "flow aie4ml: leave out masks; nothing is ever padded, as the samples prove for themselves"
    parser.add_argument("--assume-unmasked", action="store_true", help=help_text)


def run(options: argparse.Namespace) -> ExitStatus:
    """Write the project and print what is in it."""
    from hccs_onnx.aie.aie4ml_flow import write_project

    for option, what in (("tiles", "places whole layers"), ("kernel", "has kernels of its own")):
        if getattr(options, option) is not None:
            raise UsageError(f"--{option}", f"means nothing for the flow aie4ml, which {what}", remedy="Leave it out")
    report = write_project(
        options.model,
        options.output,
        options.target,
        nodes=options.node,
        shapes=shapes(options),
        data=options.data,
        assume_unmasked=options.assume_unmasked,
    )
    rows = [
        [
            block.folder,
            str(block.heads),
            str(block.positions),
            str(block.tiles),
            f"{block.fidelity.relative_error:.3f}",
            f"{block.fidelity.equal_probabilities:.1%}",
        ]
        for block in report.blocks
    ]
    print(table(["block", "heads", "positions", "tiles", "error of its output", "equal HCCS outputs"], rows))
    note("compared on the samples, each block in integers with the same block of the model: error of its output in the"
         " 2-norm, relative; share of HCCS outputs that are the same integers")  # fmt: skip
    note(f"wrote {report.folder}; next: python {shlex.quote(f'{report.folder}/write_firmware.py')}")
    return ExitStatus.OK
