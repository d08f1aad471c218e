"""What several commands share: options, tables, JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATA_HELP = """samples: an .npz (input name -> array, first axis = samples), a folder of .npz (one feed each), or a
folder of ONNX test_data_set_*/input_*.pb"""


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
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = []
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    print(text, file=sys.stderr)
