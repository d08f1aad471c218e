"""What arguments are: options given once, one line of usage, and kinds of values."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hccs_onnx.errors import HccsError, UsageError

_SEVERAL = "; name several by one quoted pattern: 'shards/*.npz'"


class Parser(argparse.ArgumentParser):
    """A parser that refuses an option's second value, instead of forgetting the first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in (None, "store"):
            self.register("action", name, _Once)


class _Once(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given: frozenset[str] = getattr(namespace, "given", frozenset())
        if self.dest in given:
            raise argparse.ArgumentError(self, "given twice" + (_SEVERAL if self.dest == "data" else ""))
        namespace.given = given | {self.dest}
        setattr(namespace, self.dest, values)


def parse(root: Parser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of a command line, with its command's parser in `parser`.

    Parameters
    ----------
    root : Parser
        Whose commands have set `parser`.
    arguments : sequence of str, optional
        Default: those of the process.

    Raises
    ------
    SystemExit
        With status 2, once usage and error are printed.
    """
    options, unknown = root.parse_known_args(arguments)
    if unknown:  # an unquoted pattern leaves all files but the first
        files = hasattr(options, "data") and not all(word.startswith("-") for word in unknown)
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}{_SEVERAL if files else ''}")
    return options


def usage(parser: argparse.ArgumentParser) -> str:
    """One line: what has to be given, files before options, which may take several values.

    Examples
    --------
    >>> parser = Parser("fold")
    >>> _ = parser.add_argument("model", metavar="MODEL"), parser.add_argument("--to", required=True)
    >>> usage(parser)
    'fold MODEL --to TO [options]'
    """
    needed = [spelling(action) for action in parser._actions if action.required]
    return " ".join([parser.prog, *needed, "[options]"])


def spelling(action: argparse.Action) -> str:
    """An argument as it is typed: its long name and what stands for its value."""
    value = str(action.metavar or action.dest.upper()) + " ..." * (action.nargs == "+")
    if not action.option_strings:
        return value
    return " ".join([action.option_strings[-1], *([] if action.nargs == 0 else [value])])


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def new_file(text: str) -> Path:
    """A file to be written; a name that ends like a folder's is none."""
    if text.endswith(("/", os.sep)):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder; name a file in it")
    return Path(text)


def as_typed(error: HccsError) -> str:
    """Text of an error, with the option for the parameter that it is about.

    Examples
    --------
    >>> as_typed(UsageError("logit_scale", "needs data", remedy="Add --data DATA"))
    '--logit-scale: needs data. Add --data DATA.'
    """
    name, colon, rest = str(error).partition(":")
    if isinstance(error, UsageError) and name.isidentifier():
        name = f"--{name.replace('_', '-')}"
    return name + colon + rest
