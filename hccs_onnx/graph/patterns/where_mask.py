"""A mask that replaces logits: Where(condition, logits, -huge) or the other way round."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from hccs_onnx.graph.mask_levels import MASKS, MaskLevels
from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.view import GraphView


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step, where the replacement is a constant far below any logit."""
    if node.op != "Where":
        return []
    _, first, second = (tensor.name for tensor in node.inputs)
    for data, fill in ((first, second), (second, first)):
        value = view.constant(fill)
        if value is not None and value.size and np.all(value <= -MASKS):
            return [Step(view.index(node), data, mask=MaskLevels(True, float(-value.max())))]
    return []
