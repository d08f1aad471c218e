"""``simulate``: a written AI Engine project on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from hccs_onnx.aie.simulate import Simulation, SlotResult, simulate
from hccs_onnx.cli.common import add_command, add_json, note, print_json, printable, table
from hccs_onnx.errors import ExitStatus


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = (
        "run an AI Engine project on this machine, compiled by its C++20 compiler (CXX, c++, g++ or clang++), and"
        " compare it with the reference; status 3 if a code differs"
    )
    parser = add_command(commands, "simulate", help_text, "python -m hccs_onnx simulate aie")
    parser.add_argument("folder", metavar="DIR", type=Path, help="what codegen wrote (flow adf)")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    result = simulate(options.folder)
    if options.json:
        print_json({**asdict(result), "passed": result.passed})
    else:
        print(summary(result))
    for name in result.changed:
        note(f"note: {name} is not as codegen wrote it")
    for failure in result.failures:
        note(f"error: {failure}")
    return ExitStatus.OK if result.passed else ExitStatus.NOT_VERIFIED


def summary(result: Simulation) -> str:
    """A line for each head of each node, one for each of its tiles where something differs, and the verdict."""
    rows, wrong = [], []
    for (node, head), group in groupby(sorted(result.results, key=_order), key=lambda item: (item.node, item.head)):
        items = list(group)
        if head is not None or any(item.wrong for item in items):
            rows.append(_row(node, head, items))
        wrong += [
            printable(f"{node}, head {head}, tile {item.tile} at column {item.column}, row {item.row}: {item.first}")
            for item in items
            if item.wrong
        ]
    header = ["node", "head", "tiles", "rows", "codes", "wrong"]
    verdict = "passed: every code equals the reference" if result.passed else "FAILED"
    return "\n".join([table(header, rows), *([""] if wrong else []), *wrong, "", verdict])


def _order(item: SlotResult) -> tuple[str, int, int]:
    return item.node, -1 if item.head is None else item.head, item.tile


def _row(node: str, head: int | None, items: list[SlotResult]) -> list[str]:
    tiles = [item.tile for item in items]
    spread = str(tiles[0]) if len(tiles) == 1 else f"{tiles[0]} to {tiles[-1]}"
    sums = (sum(getattr(item, field) for item in items) for field in ("rows", "codes", "wrong"))
    return [node, "padding" if head is None else str(head), spread, *map(str, sums)]
