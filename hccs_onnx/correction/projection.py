"""Finding the projection behind an attention: from the probabilities over the values to the first constant weight."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from hccs_onnx.correction.weights import Step, Weight, find_weight
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.patterns.base import NoMatch
from hccs_onnx.graph.patterns.nan_guard import zeroes_some
from hccs_onnx.graph.patterns.passthrough import hands_on
from hccs_onnx.graph.view import GraphView

_STEPS = 24  # nodes between probabilities and projection
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "QuantizeLinear", "DequantizeLinear")
_LOOKS = ("Shape", "Size", "IsNaN")  # read no value that reaches the projection
_PRODUCTS = ("MatMul", "Einsum")


@dataclass(frozen=True)
class Projection:
    """The linear layer behind the heads of one attention: output = x @ weight + bias.

    Parameters
    ----------
    label : str
        What to call it in a message.
    x : str
        Tensor that it reads: the concatenated heads.
    output : str
        Tensor that it makes, bias included.
    weight : Weight
        Shape (input, output).
    bias : Weight or None
        Shape (output,); None if it has none that can be changed.
    """

    label: str
    x: str
    output: str
    weight: Weight
    bias: Weight | None


def find_projection(view: GraphView, item: AttentionSoftmax) -> Projection | NoMatch:
    """The output projection of an attention, or the reason why it cannot be corrected.

    Parameters
    ----------
    view : GraphView
        The model in which `item` was found.
    item : AttentionSoftmax
        One that is rewritten.

    Examples
    --------
    >>> find_projection(view, find_attention(model)[0]).label  # doctest: +SKIP
    "MatMul 'attention/output/dense/MatMul'"
    """
    if item.place:
        return NoMatch("lies in a body, of which nothing can be observed")
    node = _first_projection(view, item.probabilities)
    if isinstance(node, NoMatch):
        return node
    label = f"{node.op} '{view.label(node)}'"
    if node.op == "Gemm" and (node.attrs.get("transA", 0) or node.attrs.get("alpha", 1.0) != 1.0):
        return NoMatch(f"{label} has transA or an alpha")
    weight = find_weight(view, node.inputs[1].name, node)
    if isinstance(weight, NoMatch):
        return NoMatch(f"weight of {label}: {weight.reason}")
    if node.op == "Gemm" and node.attrs.get("transB", 0):
        weight = Weight(weight.tensor, weight.stored, (*weight.steps, Step(order=(1, 0))))
    if weight.value.ndim != 2:
        return NoMatch(f"weight of {label} is not a matrix")
    x = node.inputs[0].name
    if view.float_dtype(x) == "bfloat16":
        return NoMatch(f"{label} is computed in bfloat16, which onnxruntime hands out to nobody")
    bias, output = _bias(view, node, weight.value.shape[1])
    return Projection(label, x, output, weight, bias)


def _first_projection(view: GraphView, probabilities: str) -> gs.Node | NoMatch:
    """The first node with constant weights behind the product with values."""
    name, summed = probabilities, False
    for _ in range(_STEPS):
        readers = [node for node in view.consumers(name) if not _looks(node, name)]
        if len(readers) != 1:
            what = "the heads" if summed else "probabilities"
            return NoMatch(f"{what} go to {len(readers)} nodes")
        node = readers[0]
        if not view.holds(node):
            return NoMatch(f"{node.op} '{view.label(node)}' lies in a body")
        others = [tensor.name for tensor in node.inputs if tensor.name != name]
        fixed = any(view.is_constant(other) for other in others)
        if node.op in ("MatMul", "Gemm") and summed and fixed:
            if node.inputs[0].name != name:
                return NoMatch(f"{node.op} '{view.label(node)}' has its weight on the left")
            return node
        if node.op in _PRODUCTS and not summed and not fixed:
            summed = True
        elif not (node.op in _MOVES or hands_on(view, node) or zeroes_some(view, node, name)):
            behind = "the product with values" if summed else "the probabilities"
            return NoMatch(f"{node.op} '{view.label(node)}' is behind {behind}, no projection")
        name = node.outputs[0].name
    return NoMatch("no projection near")


def _looks(node: gs.Node, name: str) -> bool:
    return node.op in _LOOKS or (node.op == "CastLike" and bool(node.inputs[0].name != name))


def _bias(view: GraphView, node: gs.Node, size: int) -> tuple[Weight | None, str]:
    """The bias of a projection, and the tensor that holds its whole output."""
    output = str(node.outputs[0].name)
    if node.op == "Gemm":
        if len(node.inputs) < 3 or not node.inputs[2].name or node.attrs.get("beta", 1.0) != 1.0:
            return None, output
        return _vector(find_weight(view, node.inputs[2].name, node), size), output
    reader = _only_reader(view, output)
    while reader is not None and reader.op in ("QuantizeLinear", "DequantizeLinear"):
        reader = _only_reader(view, reader.outputs[0].name)
    if reader is None or reader.op != "Add":
        return None, output
    for tensor in reader.inputs:
        if view.is_constant(tensor.name):
            return _vector(find_weight(view, tensor.name, reader), size), str(reader.outputs[0].name)
    return None, output


def _vector(found: Weight | NoMatch, size: int) -> Weight | None:
    """A weight with one element for each output."""
    if isinstance(found, NoMatch) or found.value.size != size or found.value.shape[-1] != size:
        return None
    return found


def _only_reader(view: GraphView, name: str) -> gs.Node | None:
    readers = view.consumers(name)
    return readers[0] if view.uses(name) == 1 and readers else None
