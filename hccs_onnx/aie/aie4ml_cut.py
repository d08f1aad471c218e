"""Where an attention block begins and ends in a rewritten model: the tensors to cut the graph at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from hccs_onnx.aie.nodes import named_nodes
from hccs_onnx.errors import CodegenError
from hccs_onnx.graph.heads import projected
from hccs_onnx.graph.patterns import LOGIT_STEPS, query_key
from hccs_onnx.graph.patterns.base import NoMatch, Step
from hccs_onnx.graph.patterns.passthrough import hands_on
from hccs_onnx.graph.view import GraphView
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.params import HccsParams, LogitQuantizer, OutputType

REWRITE = "Rewrite the original model with --data DATA --profile paper --to uint8 (or int16) --reciprocal clb (or div)"
_STEPS = 16  # nodes between product and HCCS
_LINEAR = ("MatMul", "Gemm")
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
_OUTPUTS: dict[str | None, OutputType] = {"uint8": "uint8", "int16": "int16"}


@dataclass(frozen=True)
class BlockCut:
    """An attention block of a rewritten model, by the names of its tensors.

    Parameters
    ----------
    node : str
        The HCCS node.
    source : str
        What queries, keys and values are projections of.
    query, key, value : str
        Operands of the two products; keys transposed, as the product reads them.
    product : str
        Queries times keys.
    logits : str
        What is quantised: the product, behind scales and mask.
    codes, probabilities : str
        What HCCS reads and puts out.
    context : str
        Probabilities times values.
    result : str
        Output of the projection behind it.
    masked : bool
        Whether something is added to, or chosen between, on the way from product to logits.
    factor : float
        What the logits are multiplied with on that way.
    quantizer : LogitQuantizer
        How logits become codes.
    params : HccsParams
        Attributes of the node.
    output : {'uint8', 'int16'}
        Its output type.
    """

    node: str
    source: str
    query: str
    key: str
    value: str
    product: str
    logits: str
    codes: str
    probabilities: str
    context: str
    result: str
    masked: bool
    factor: float
    quantizer: LogitQuantizer
    params: HccsParams
    output: OutputType


def find_cuts(model: onnx.ModelProto, path: Path, nodes: Sequence[str] = ()) -> list[BlockCut]:
    """The attention blocks around a model's HCCS nodes, in their order.

    Parameters
    ----------
    model : onnx.ModelProto
        A rewritten model; external data need not be loaded.
    path : pathlib.Path
        Where it was read from.
    nodes : sequence of str
        Only the blocks of HCCS nodes of these names.

    Raises
    ------
    CodegenError
        If there is no such node, or one is not surrounded by an attention block that can be cut out.

    Examples
    --------
    >>> find_cuts(model, Path("encoder.onnx"))[0].source  # doctest: +SKIP
    'layer_norm'
    """
    present = named_nodes(model)
    if not present:
        raise CodegenError(str(path), "holds no HCCS node", remedy=REWRITE)
    unknown = [name for name in nodes if name not in present]
    if unknown:
        needs = f"one of {', '.join(present)}"
        raise CodegenError("--node", f"'{unknown[0]}' is no HCCS node of {path}", needs=needs)
    view = GraphView(model, path.parent)
    return [_cut(view, proto, name) for name, proto in present.items() if not nodes or name in nodes]


def _cut(view: GraphView, proto: onnx.NodeProto, name: str) -> BlockCut:
    subject = f"node '{name}'"
    codes, zero_point, output = proto.input[0], proto.input[1], proto.output[0]
    output_type = _OUTPUTS.get(view.dtype(zero_point))
    quantize = view.producer(codes)
    if output_type is None or quantize is None or quantize.op != "QuantizeLinear":
        raise CodegenError(subject, "computes on floats, aie4ml on integers", remedy=REWRITE)
    logits = quantize.inputs[0].name
    path = _to_product(view, logits, _STEPS)
    if isinstance(path, NoMatch):
        raise CodegenError(subject, f"is not in an attention block: {path.reason}", remedy="Choose another with --node")
    steps, product = path
    if any(step.bends for step in steps):
        raise CodegenError(subject, "logits go through a softcap, which aie4ml cannot compute", remedy="Leave it out")
    if view.nodes[product.node].op != "MatMul":
        raise CodegenError(subject, "queries and keys meet in an Einsum", remedy="Export the model with MatMul")
    context, value = _context(view, output, subject)
    source = _source(view, (product.query, product.key, value), subject)
    return BlockCut(
        node=name,
        source=source,
        query=product.query,
        key=product.key,
        value=value,
        product=view.nodes[product.node].outputs[0].name,
        logits=logits,
        codes=codes,
        probabilities=output,
        context=context,
        result=_result(view, context, subject),
        masked=any(step.mask is not None for step in steps),
        factor=float(np.prod([step.factor or 1.0 for step in steps])),
        quantizer=_quantizer(view, quantize, subject),
        params=read_attributes(proto),
        output=output_type,
    )


def _to_product(
    view: GraphView, logits: str, steps_left: int
) -> tuple[tuple[Step, ...], query_key.QueryKeyProduct] | NoMatch:
    """Steps from the logits back to the product of queries and keys."""
    node = view.producer(logits)
    if node is not None and steps_left:
        steps = next((found for pattern in LOGIT_STEPS if (found := pattern(view, node))), [])
        for step in steps:  # of two addends either may be the logits
            rest = _to_product(view, step.data, steps_left - 1)
            if not isinstance(rest, NoMatch):
                return (step, *rest[0]), rest[1]
    product = query_key.match(view, node)
    return product if isinstance(product, NoMatch) else ((), product)


def _quantizer(view: GraphView, quantize: gs.Node, subject: str) -> LogitQuantizer:
    scale = view.constant(quantize.inputs[1].name)
    zero = view.constant(quantize.inputs[2].name) if len(quantize.inputs) > 2 else np.zeros((), np.int8)
    if scale is None or zero is None:
        raise CodegenError(subject, "logits are quantised by numbers that are not constant", remedy=REWRITE)
    zeros = np.broadcast_to(zero.reshape(-1), scale.reshape(-1).shape)
    return LogitQuantizer(tuple(map(float, scale.reshape(-1))), tuple(map(int, zeros)))


def _context(view: GraphView, output: str, subject: str) -> tuple[str, str]:
    """Product of probabilities and values, and the values."""
    name = output
    for _ in range(_STEPS):
        node = _only_reader(view, name)
        if node is None:
            break
        if node.op == "MatMul" and node.inputs[0].name == name:
            return str(node.outputs[0].name), str(node.inputs[1].name)
        scaled = node.op == "Mul" and any(view.is_constant(tensor.name) for tensor in node.inputs)
        if not (node.op in ("DequantizeLinear", "Cast") or scaled or hands_on(view, node)):
            break
        name = node.outputs[0].name
    problem = "probabilities do not go to one product with values alone"
    raise CodegenError(subject, problem, remedy="Choose another with --node")


def _source(view: GraphView, operands: tuple[str, str, str], subject: str) -> str:
    """What queries, keys and values are projections of."""
    sources = {projected(view, operand) for operand in operands}
    source = next(iter(sources))
    if len(sources) > 1 or source is None:
        problem = "queries, keys and values are not projections of one tensor"
        remedy = "Choose another with --node: this flow takes self-attention without a cache"
        raise CodegenError(subject, problem, remedy=remedy)
    return source


def _result(view: GraphView, context: str, subject: str) -> str:
    """Output of the projection: the last tensor that is a linear function of the context alone."""
    name, projects = context, False
    for _ in range(_STEPS):
        node = _only_reader(view, name)
        if node is None:
            break
        constant = all(view.is_constant(tensor.name) for tensor in node.inputs if tensor.name != name)
        linear = node.op in _LINEAR and constant and node.inputs[0].name == name
        moves = not projects and (node.op in _MOVES or hands_on(view, node))
        if not (moves or linear or (node.op == "Add" and constant)) or (linear and projects):
            break
        projects = projects or linear
        name = node.outputs[0].name
    if not projects:
        problem = "no projection follows the product with values"
        raise CodegenError(subject, problem, remedy="Choose another with --node: aie4ml's block ends in a projection")
    return name


def _only_reader(view: GraphView, name: str) -> gs.Node | None:
    """The one node that reads a tensor's values; None where there are more, or it is a model output."""
    readers = [node for node in view.consumers(name) if node.op != "Shape"]
    if name in view.outputs or len(readers) != 1 or not view.holds(readers[0]):
        return None
    return readers[0]
