"""``inspect``: which Softmax nodes are attention, and why the others are not."""

from __future__ import annotations

import argparse
from typing import Any

from hccs_onnx import workflow
from hccs_onnx.cli.common import add_command, add_json, add_model, print_json, say
from hccs_onnx.errors import ExitStatus
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.scopes import describe


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "list every Softmax: attention that would be rewritten, or the reason why not"
    parser = add_command(commands, "inspect", help_text, "python -m hccs_onnx inspect model.onnx")
    add_model(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    found = workflow.inspect(options.model)
    rewritten = workflow.count_hccs(read_model(options.model))
    if options.json:
        softmaxes = [_as_json(item) for item in found]
        print_json({"model": str(options.model), "hccs_nodes": rewritten, "softmaxes": softmaxes})
    else:
        for item in found:
            say(line(item))
        count = sum(item.reason is None for item in found)
        say(f"{count} of {len(found)} Softmax would be rewritten")
        if rewritten:
            say(f"HCCS nodes already there: {rewritten}; to change them start from the original")
    return ExitStatus.OK


def line(item: AttentionSoftmax) -> str:
    """What there is to say of a Softmax."""
    name = (item.node or item.probabilities) + (f" in {describe(item.place)}" if item.place else "")
    if item.reason is not None:
        return f"{name}: left alone: {item.reason}"
    heads = "heads not known" if item.heads is None else f"{item.heads} heads"
    mask = "masked" if item.masked else "not masked"
    return f"{name}: {heads}, axis length {_length(item)}, {mask}: rewrite"


def _length(item: AttentionSoftmax) -> int | str:
    """Axis length; names that shape inference made up say no more than that it is dynamic."""
    length = item.axis_length
    return "dynamic" if length is None or str(length).startswith("unk__") else length


def _as_json(item: AttentionSoftmax) -> dict[str, object]:
    return {
        "node": item.node,
        "graph": describe(item.place),
        "logits": item.logits,
        "heads": item.heads,
        "head_axis": item.head_axis,
        "axis_length": _length(item),
        "masked": item.masked,
        "absorbed_scale": item.factor,
        "rewrite": item.reason is None,
        "reason": item.reason,
    }
