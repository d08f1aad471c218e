"""A mask or position bias that is added to the logits."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hccs_onnx.graph.mask_levels import mask_levels
from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.view import GraphView


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step for each input that may carry the logits."""
    if node.op != "Add":
        return []
    first, second = (tensor.name for tensor in node.inputs)
    pairs = [(data, mask) for data, mask in ((first, second), (second, first)) if not view.is_constant(data)]
    return [Step(view.index(node), data, mask=mask_levels(view, mask)) for data, mask in pairs]
