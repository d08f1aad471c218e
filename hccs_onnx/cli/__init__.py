"""The command line: ``python -m hccs_onnx COMMAND``. One file a command: parse, call, print."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence

from hccs_onnx._version import __version__
from hccs_onnx.cli import calibrate, codegen, demo, doctor, estimate, inspect, merge, report, rewrite, simulate, verify
from hccs_onnx.cli.arguments import Parser, as_typed, parse, usage
from hccs_onnx.cli.common import PrintableFormatter, note
from hccs_onnx.errors import ExitStatus, HccsError

_COMMANDS = (inspect, calibrate, merge, rewrite, verify, report, codegen, simulate, estimate, doctor, demo)
_DESCRIPTION = """Replace attention's Softmax in ONNX models by HCCS, the head-calibrated clipped-linear Softmax.

The road: inspect -> calibrate -> rewrite -> verify. Start with: python -m hccs_onnx demo"""


def parser() -> Parser:
    """The argument parser with all commands."""
    root = Parser(
        prog="python -m hccs_onnx", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root.add_argument("--version", action="version", version=f"hccs-onnx {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    for each in commands.choices.values():
        each.usage = usage(each)
        each.set_defaults(parser=each)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program's name; default: that of the process.

    Returns
    -------
    int
        Exit status: 0 ok, 1 the user's input is wrong, 2 usage, 3 not verified, 130 interrupted.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    options = parse(parser(), arguments)
    try:
        status = options.run(options)
        sys.stdout.flush()
        return int(status)
    except HccsError as error:
        note(f"error: {as_typed(error)}")
        return int(error.exit_status)
    except KeyboardInterrupt:
        note(f"interrupted; {getattr(options, 'when_interrupted', 'nothing was written')}")
        return int(ExitStatus.INTERRUPTED)
    except BrokenPipeError:  # the reader of stdout went away, as head does
        _silence_stdout()
        return int(ExitStatus.OK)
    except OSError as error:  # files have errors of their own, so it is stdout
        _silence_stdout()
        note(f"error: {error.filename or 'stdout'}: cannot be written ({error.strerror or error}).")
        return int(ExitStatus.BAD_INPUT)


def _silence_stdout() -> None:
    """Drop what is left in stdout's buffer, which the interpreter would try to write at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
