"""The product of probabilities and values."""

from __future__ import annotations

from hccs_onnx.graph.patterns.base import NoMatch
from hccs_onnx.graph.patterns.nan_guard import guards
from hccs_onnx.graph.patterns.passthrough import hands_on
from hccs_onnx.graph.patterns.quantize_pair import pair_behind
from hccs_onnx.graph.view import GraphView


def match(view: GraphView, probabilities: str) -> NoMatch | None:
    """None if some MatMul sums values over the rows of `probabilities`, else where these go instead."""
    pending, seen, ends = [probabilities], set(), []
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in view.outputs:
            ends.append("a model output")
        for node in view.consumers(name):
            if node.op == "MatMul" and node.inputs[0].name == name:
                if not view.is_constant(node.inputs[1].name):
                    return None
                ends.append(f"MatMul '{view.label(node)}' with constant values")
            elif (hands_on(view, node) and node.inputs[0].name == name) or guards(view, node, name):
                pending.append(node.outputs[0].name)
            elif (pair := pair_behind(view, node)) is not None:
                pending.append(pair.output)
            else:
                ends.append(f"{node.op} '{view.label(node)}'")
    return NoMatch(f"probabilities go to {', '.join(ends) or 'nothing'}, not to a product with values")
