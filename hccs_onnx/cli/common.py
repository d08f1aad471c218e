"""What several commands share: options, tables, JSON."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATA_HELP = """samples: an .npz (input name -> array, first axis = samples), a Parquet file or a folder of them (a
column an input, a row a sample), a folder of .npz (one feed each), a folder of ONNX test_data_set_*/input_*.pb, or a
quoted pattern of any of these, as in 'shards/*.npz'"""


def add_command(commands: Any, name: str, help_text: str, example: str) -> argparse.ArgumentParser:
    """A subparser whose help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_model(parser: argparse.ArgumentParser, name: str = "model", help_text: str = "ONNX file") -> None:
    """A positional argument for a model file."""
    parser.add_argument(name, metavar=name.upper(), type=Path, help=help_text)


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def print_json(content: object) -> None:
    """One JSON document on stdout."""
    json.dump(content, sys.stdout, indent=1, sort_keys=True)
    print()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text columns: the first to the left, the others to the right.

    Examples
    --------
    >>> print(table(["what", "n"], [["a", "1"], ["bcd", "20"]]))
    what   n
    a      1
    bcd   20
    """
    lines = [list(map(printable, cells)) for cells in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = []
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def command_line(*words: str | Path) -> str:
    """One of our commands, as it can be typed in a shell.

    Examples
    --------
    >>> command_line("inspect", Path("my model.onnx"))
    "python -m hccs_onnx inspect 'my model.onnx'"
    """
    return f"python -m hccs_onnx {shlex.join(map(str, words))}"


def say(text: str) -> None:
    """A line of the result, on stdout."""
    print(printable(text))


def mean_and_worst(values: Sequence[float]) -> list[str]:
    """Mean of numbers, and the one farthest from 0.

    Examples
    --------
    >>> mean_and_worst([0.01, -0.03, 0.005])
    ['-0.005', '-0.03']
    """
    return [f"{sum(values) / len(values):.2g}", f"{max(values, key=abs):.2g}"]


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(printable(text), file=sys.stderr)


def printable(text: str) -> str:
    r"""`text` on one line, escaped where names from a model or of files could break it, or command the terminal.

    Examples
    --------
    >>> printable("a\nb \x1b[2J é")
    'a\\nb \\x1b[2J é'
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class PrintableFormatter(logging.Formatter):
    """Log records on one line each."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, escaped where it is not printable."""
        return printable(super().format(record))


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add ``--shape``, several of which can be given; `shapes` reads them."""
    parser.add_argument(
        "--shape", action="append", nargs="+", default=[], type=_shape, metavar="NAME=1,128",
        help="shape of a dynamic input",
    )  # fmt: skip


def shapes(options: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """Shapes that ``--shape`` gives, by input name."""
    return dict(pair for group in options.shape for pair in group)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``NAME=1,128`` as a name and a shape."""
    name, equals, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = ()
    if not (equals and name and shape) or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SIZE,SIZE,...; files go before options")
    return name, shape
