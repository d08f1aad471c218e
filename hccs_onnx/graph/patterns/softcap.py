"""The cap that some decoders put on logits: Tanh between a division and a multiplication."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.view import GraphView


def match(view: GraphView, node: gs.Node) -> list[Step]:
    """A step over Tanh, which is kept; scales on either side are `logit_scale`'s."""
    return [Step(view.index(node), node.inputs[0].name, bends=True)] if node.op == "Tanh" else []
