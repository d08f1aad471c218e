"""Write the reference pages from the code: ``python -m tools.reference_pages``.

docs/cli.md comes from the argument parser, the tables of docs/operator.md from the operator's schema.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import helper

from hccs_onnx.cli import parser
from hccs_onnx.cli.arguments import spelling
from hccs_onnx.operator.schema import ATTRIBUTES, DOMAIN, OP_TYPE, VERSION, op_schema

DOCS = Path(__file__).parent.parent / "docs"
NOTE = "<!-- Written by `python -m tools.reference_pages` from {source}; change it there. -->"
REGION = re.compile(r"(<!-- begin schema -->\n).*(<!-- end schema -->)", re.DOTALL)

_INTRODUCTION = """
Results go to stdout, progress and diagnostics to stderr; with `--json` one JSON document is all that stdout gets. Exit
status: 0 done; 1 the input is wrong (one line says what, and what to do); 2 wrong usage; 3 a check failed (`verify`,
`simulate`); 130 interrupted. After `pip install`, `hccs-onnx` is short for `python -m hccs_onnx`.
"""


def cli_page() -> str:
    """The page of all commands, as Markdown."""
    root = parser()
    commands = next(action for action in root._actions if isinstance(action, argparse._SubParsersAction))
    helps = {action.dest: action.help or "" for action in commands._choices_actions}
    index = _table(("command", "does"), ((f"[`{name}`](#{name})", _cell(helps[name])) for name in commands.choices))
    parts = ["# Command line", NOTE.format(source="the argument parser"), f"`{root.prog} COMMAND`", index]
    parts += [_INTRODUCTION.strip()]
    for name, command in commands.choices.items():
        parts += _command(name, command)
    return "\n\n".join(parts) + "\n"


def operator_tables() -> str:
    """Inputs, outputs and attributes of the operator, as Markdown."""
    schema = op_schema()
    types = {item.type_param_str: item for item in schema.type_constraints}
    sides = [("input", item) for item in schema.inputs] + [("output", item) for item in schema.outputs]
    tensors = [
        (f"`{item.name}`", side, _types(types[item.type_str].allowed_type_strs), _cell(item.description))
        for side, item in sides
    ]
    attributes = [
        (
            f"`{item.name}`",
            str(item.type).rpartition(".")[2].lower(),
            _default(item.default_value),
            _cell(item.description),
        )
        for item in (schema.attributes[name] for name in ATTRIBUTES)
    ]
    parts = [
        NOTE.format(source="the operator's schema"),
        f"Domain `{DOMAIN}`, name `{OP_TYPE}`, version {VERSION}.",
        _table(("tensor", "", "types", "meaning"), tensors),
        f"Type of `Y`: {types['T2'].description}",
        _table(("attribute", "type", "default", "meaning, legal range"), attributes),
    ]
    return "\n\n".join(parts) + "\n"


def operator_page(page: str) -> str:
    """`page` with its tables written anew."""
    return REGION.sub(lambda match: f"{match[1]}{operator_tables()}{match[2]}", page)


def _command(name: str, command: argparse.ArgumentParser) -> list[str]:
    """Heading, usage, what it does, arguments and example of one command."""
    actions = [action for action in command._actions if not isinstance(action, argparse._HelpAction)]
    rows = ((f"`{_with_choices(action)}`", _cell(action.help or "")) for action in actions)
    example = (command.epilog or "").partition("example:\n")[2].strip()
    return [
        f"## {name}",
        command.description or "",
        f"```text\n{command.usage}\n```",
        _table(("argument", "meaning"), rows),
        f"Example: `{example}`",
    ]


def _with_choices(action: argparse.Action) -> str:
    """An argument as it is typed, with its short form and its choices."""
    text = spelling(action)
    if not action.option_strings:
        return text
    if action.choices:
        text = f"{action.option_strings[-1]} {{{','.join(map(str, action.choices))}}}"
    return ", ".join([*action.option_strings[:-1], text])


def _kind(kind: object) -> str:
    """Kind of an attribute: ``AttrType.INTS`` as `ints`."""
    return str(kind).rpartition(".")[2].lower()


def _default(attribute: onnx.AttributeProto) -> str:
    """The default of an attribute, or that it has to be given."""
    if not attribute.name:
        return "required"
    value = helper.get_attribute_value(attribute)
    values = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
    return ", ".join(item.decode() if isinstance(item, bytes) else f"{item:g}" for item in values)


def _types(names: Iterable[str]) -> str:
    """Element types: ``tensor(int8)`` as `int8`."""
    return ", ".join(sorted(name.removeprefix("tensor(").removesuffix(")") for name in names))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(words: str) -> str:
    """Text on one line, without what Markdown would take for a mark."""
    return re.sub(r"([|*_])", r"\\\1", " ".join(words.split())).replace("<", "&lt;")


def main() -> None:
    """Write both pages."""
    (DOCS / "cli.md").write_text(cli_page())
    page = DOCS / "operator.md"
    page.write_text(operator_page(page.read_text()))


if __name__ == "__main__":
    main()
