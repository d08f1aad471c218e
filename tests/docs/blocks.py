"""Blocks of code in Markdown pages, and running them."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hccs_onnx.cli import main

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "custom_ops/README.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_FENCE = re.compile(
    r"(?:<!-- (?P<comment>[^\n]*) -->\n)?^```(?P<language>python|console)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Parameters
    ----------
    language : str
        python or console.
    code : str
        Its text.
    line : int
        Where it begins in the page, counted from 1.
    comment : str
        What the comment before it says: ``not run: REASON``, or ``slow`` and ``needs PACKAGE`` with a comma between.
    output : str or None
        The text block right behind it: what it prints.
    """

    language: str
    code: str
    line: int
    comment: str = ""
    output: str | None = None

    @property
    def is_run(self) -> bool:
        return not self.comment.startswith("not run: ")

    @property
    def is_slow(self) -> bool:
        return "slow" in self.comment.split(", ")

    @property
    def needs(self) -> list[str]:
        return [word.removeprefix("needs ") for word in self.comment.split(", ") if word.startswith("needs ")]


def blocks(page: str) -> Iterator[Block]:
    """Blocks of a page that can be run, in order."""
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start("code"))
        yield Block(match["language"], match["code"], line, match["comment"] or "", match["output"])


def commands(code: str) -> Iterator[list[str]]:
    """Command lines of a console block, split into words; comments left out."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Run a Python block in `names`; what it prints has to be what the page says."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.code, f"line {block.line}", "exec"), names)
    if block.output is not None:
        assert printed.getvalue() == block.output


def run_command(words: list[str]) -> None:
    """Run one command line: ours in this process, Python otherwise; what installs or makes is looked up, not run."""
    match words:
        case ["python", "-m", "hccs_onnx", *arguments]:
            assert main(arguments) == 0, shlex.join(words)
        case ["python", *arguments]:
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=300)
        case ["pip", "install", *arguments]:
            unknown = [extra for extra in _extras(arguments) if not _defined(rf"^{extra} = ", "pyproject.toml")]
            assert not unknown, f"no such extra: {unknown}"
        case ["make", target, *_]:
            assert _defined(rf"^{target}:", "Makefile"), f"no such target: {target}"
        case _:
            raise AssertionError(f"cannot be run: {shlex.join(words)}; say <!-- not run: why --> before the block")


def _extras(arguments: list[str]) -> list[str]:
    """Extras that a pip command names."""
    found = re.search(r"\[(.*?)\]", " ".join(arguments))
    return found[1].split(",") if found else []


def _defined(pattern: str, file: str) -> bool:
    return re.search(pattern, (ROOT / file).read_text(), re.MULTILINE) is not None
