"""Limits that no logit reaches and masks may: Clip, Max or Min by huge numbers, for the sake of half precision."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hccs_onnx.graph.mask_levels import HUGE
from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.view import GraphView


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step over constant limits, which are kept: none above -1000 or below 1000."""
    names = [tensor.name for tensor in node.inputs]
    if node.op == "Clip":
        low, high = [*names[1:], "", ""][:2]
        wide = (low == "" or _beyond(view, low, -1)) and (high == "" or _beyond(view, high, 1))
        return [Step(view.index(node), names[0], bends=True)] if wide else []
    if node.op in ("Max", "Min") and len(names) == 2:
        side = -1 if node.op == "Max" else 1
        for data, limit in (names, names[::-1]):
            if _beyond(view, limit, side):
                return [Step(view.index(node), data, bends=True)]
    return []


def _beyond(view: GraphView, name: str, side: int) -> bool:
    """Whether a constant lies far on one side, -1 or 1."""
    value = view.scalar(name)
    return value is not None and side * value >= HUGE
