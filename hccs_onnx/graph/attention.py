"""Finding the Softmax nodes that belong to attention, anchored on Softmax and walking both ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from hccs_onnx.errors import ModelError
from hccs_onnx.graph import heads
from hccs_onnx.graph.functions import written_for_others
from hccs_onnx.graph.fused import is_fused, why_whole
from hccs_onnx.graph.mask_levels import MASKS, MaskLevels
from hccs_onnx.graph.memo import once_per_view
from hccs_onnx.graph.names import all_nodes, is_default_domain
from hccs_onnx.graph.own_quantizer import NOTHING_QUANTISED, OwnQuantizers, own_quantizers
from hccs_onnx.graph.patterns import LOGIT_STEPS, nan_guard, query_key, transposed, value_product
from hccs_onnx.graph.patterns.base import NoMatch, Step
from hccs_onnx.graph.patterns.nan_guard import NanGuard
from hccs_onnx.graph.patterns.quantize_pair import QuantizePair, pair_behind
from hccs_onnx.graph.patterns.query_key import QueryKeyProduct
from hccs_onnx.graph.scopes import Place
from hccs_onnx.graph.view import Dim, GraphView
from hccs_onnx.params import DEFAULT_MASK_GAP

_STEPS = 16  # nodes between product and Softmax
_LOGIT_TYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class AttentionSoftmax:
    """A Softmax node, and what is known about the attention it belongs to - or why it is left alone.

    Parameters
    ----------
    node : str
        Node name, or its output's where it has none.
    index : int
        Position in the node list of its graph; -1 for one that is not a node of a graph.
    logits : str
        Tensor that the Softmax reads, in nats.
    probabilities : str
        Tensor that its replacement makes: the Softmax output, or that of the NaN guard behind it.
    softmax : str
        The Softmax output.
    reason : str or None
        Why it is left alone; None if it is to be rewritten.
    attention_like : bool
        For one that is left alone: whether it looks like attention all the same (it sums values, or weighs products of
        queries and keys, or cannot be looked into).
    dtype : str
        Element type of the logits.
    heads : int or None
        Number of heads; None if the graph does not tell.
    head_axis : int
        Axis of the logits along which heads lie.
    folded : bool
        Whether other axes may be folded into that axis, as in (batch*heads, query, key).
    axis_length : int, str or None
        Row length: fixed, the name of a dynamic axis, or not known.
    masked : bool
        Whether positions can be masked.
    mask_gap : float
        Nats behind the row's maximum beyond which a key counts as masked: less than usual where masks take off little.
    self_attention : bool
        Whether queries and keys come from one tensor, so that a masked key is a padded query.
    scales : tuple of Step
        Constant scales that the replacement can absorb.
    guard : NanGuard or None
        Guard that the replacement makes superfluous.
    requantized : QuantizePair or None
        Quantisation of the probabilities, which integer output makes superfluous.
    own_quantizers : OwnQuantizers
        Quantisers of the logits that the model has itself.
    place : Place
        The graph that it lies in; empty for the main graph.
    """

    node: str
    index: int
    logits: str
    probabilities: str
    softmax: str
    reason: str | None = None
    attention_like: bool = False
    dtype: str = "float32"
    heads: int | None = None
    head_axis: int = -3
    folded: bool = False
    axis_length: Dim = None
    masked: bool = False
    mask_gap: float = DEFAULT_MASK_GAP
    self_attention: bool = False
    scales: tuple[Step, ...] = ()
    guard: NanGuard | None = None
    requantized: QuantizePair | None = None
    own_quantizers: OwnQuantizers = NOTHING_QUANTISED
    place: Place = ()

    @property
    def factor(self) -> float:
        """Product of the absorbable scales: what logits are multiplied with between the product and the Softmax."""
        factor = 1.0
        for step in self.scales:
            factor *= step.factor or 1.0
        return factor


def find_attention(model: onnx.ModelProto, folder: Path = Path()) -> list[AttentionSoftmax]:
    """Every Softmax of a model, in node order: those of attention first judged by structure, never by name.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where external data lies.

    Returns
    -------
    list of AttentionSoftmax
        Also those that are not attention, with the reason; also those in bodies of If, Loop and Scan, in functions and
        inside fused operators; and LogSoftmax nodes.

    Raises
    ------
    ModelError
        If the graph cannot be imported.

    Examples
    --------
    >>> [item.heads for item in find_attention(onnx.load("encoder.onnx"))]  # doctest: +SKIP
    [12, 12, 12, 12, 12, 12]
    """
    try:
        if not any(_is_softmax(node) for node in _all_nodes(model)):
            return [*_hidden(model, folder), *_logarithms(model)]
        found = [
            _judge(view, node)
            for view in GraphView(model, folder).views()
            for node in view.nodes
            if node.op == "Softmax" and not node.domain
        ]
        return [*found, *_in_functions(model), *_hidden(model, folder), *_logarithms(model)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        # Nodes with too few inputs, cycles, names that are no text: what ONNX forbids can break any assumption.
        problem = f"graph is not valid: {type(error).__name__} {error}"
        raise ModelError(f"graph '{model.graph.name}'", problem, remedy="Run onnx.checker on it") from error


def _judge(view: GraphView, softmax: gs.Node) -> AttentionSoftmax:
    logits, probabilities = softmax.inputs[0].name, softmax.outputs[0].name
    index = view.index(softmax)
    dims = view.dims(logits)
    guard = nan_guard.match(view, softmax)
    if guard is not None:
        probabilities = guard.output
    length = dims[-1] if dims else None

    path = _walk(view, logits, _STEPS)
    elsewhere = value_product.match(view, probabilities)
    dtype = view.float_dtype(logits)
    reason = _axis_problem(view, softmax, dims)
    if reason is None and isinstance(path, NoMatch):
        reason = path.reason
    if reason is None and elsewhere is not None:
        reason = elsewhere.reason
    if reason is None and dtype not in _LOGIT_TYPES:
        reason = f"logits are of type {dtype or 'unknown'}, not float32, float16 or bfloat16"
    if reason is not None or isinstance(path, NoMatch) or dtype is None:
        similar = elsewhere is None or not isinstance(path, NoMatch)
        return AttentionSoftmax(
            view.label(softmax),
            index,
            logits,
            probabilities,
            softmax.outputs[0].name,
            reason,
            attention_like=similar,
            axis_length=length,
            place=view.place,
        )
    steps, product = path
    scales = _absorbable(view, softmax, steps, product)
    if scales and scales[0].reader is not None and scales[0] == steps[0]:  # rounded for the Softmax alone: better not
        logits = scales[0].data
    moved = any(step.moves_heads for step in steps)
    count = heads.count_heads(
        view, logits, product.query, product.head_axis, moved=moved, reshaped=any(step.reshapes for step in steps)
    )
    return AttentionSoftmax(
        node=view.label(softmax),
        index=index,
        logits=logits,
        probabilities=probabilities,
        softmax=softmax.outputs[0].name,
        dtype=dtype,
        heads=count,
        folded=dims is None or len(dims) < 4,
        axis_length=length,
        masked=any(step.mask is not None and step.mask.masks for step in steps),
        mask_gap=_mask_gap(steps),
        self_attention=not moved and heads.self_attention(view, product.query, product.key),
        scales=scales,
        guard=guard,
        requantized=_requantized(view, probabilities),
        own_quantizers=own_quantizers(view, steps),
        place=view.place,
    )


def _axis_problem(view: GraphView, softmax: gs.Node, dims: tuple[Dim, ...] | None) -> str | None:
    """Why the Softmax does not run along the last axis."""
    axis = softmax.attrs.get("axis", -1 if view.opset >= 13 else 1)
    if axis == -1:
        return None
    if dims is None:
        return f"axis is {axis} of logits of unknown rank, which may not be the last"
    if axis != len(dims) - 1:
        return f"axis {axis} is not the last of rank {len(dims)}"
    return None


@once_per_view
def _walk(
    view: GraphView, logits: str, steps_left: int, axis: int = -1
) -> tuple[tuple[Step, ...], QueryKeyProduct] | NoMatch:
    """Steps from the Softmax back to the query-key product, the nearest first; `axis` is where rows run along."""
    node = view.producer(logits)
    if node is not None and steps_left:
        steps = next((found for pattern in LOGIT_STEPS if (found := pattern(view, node))), [])
        order = transposed.permutation(view, node)
        if order is not None:
            axis = transposed.axis_before(order, axis) or axis
        elif axis != -1 and node.op == "Reshape":
            steps = []
        failure: NoMatch | None = None
        for step in steps:  # of two addends either may be the logits
            rest = _walk(view, step.data, steps_left - 1, axis)
            if not isinstance(rest, NoMatch):
                return (step, *rest[0]), rest[1]
            failure = failure or rest
        if failure is not None:
            return failure
    product = query_key.match(view, node, axis)
    return product if isinstance(product, NoMatch) else ((), product)


def _absorbable(
    view: GraphView, softmax: gs.Node, steps: tuple[Step, ...], product: QueryKeyProduct
) -> tuple[Step, ...]:
    """Scales that can be dropped because nothing between them and the Softmax depends on them."""
    absorbed: list[Step] = []
    total = 1.0
    user = softmax
    masks: list[MaskLevels] = []  # of the steps nearer to the Softmax
    wide = True  # in half precision, there or nearer to the Softmax, a product without its scale could overflow
    for step in (*steps, None):  # None: the product, with the scales before it
        index = product.node if step is None else step.node
        if index < 0:  # in a graph around this one, which is not touched
            return tuple(absorbed)
        node = view.nodes[index]
        if not view.only_used_by(node.outputs[0].name, user) or (step is not None and step.bends):
            return tuple(absorbed)
        wide = wide and view.float_dtype(node.outputs[0].name) == "float32"
        for scale in [scale for scale in product.scales if scale.node >= 0] if step is None else (step,):
            wide = wide and view.float_dtype(view.nodes[scale.node].outputs[0].name) == "float32"
            if wide and scale.factor is not None and all(mask.survives(total * scale.factor) for mask in masks):
                absorbed.append(scale)
                total *= scale.factor
            elif scale.reader is not None:  # a pair that stays needs its scale
                return tuple(absorbed)
        if step is not None and step.mask is not None:
            masks.append(step.mask)
        user = node if step is None or step.reader is None else view.nodes[step.reader]
    return tuple(absorbed)


def _mask_gap(steps: tuple[Step, ...]) -> float:
    """Half of what the weakest mask takes off, in nats, if that is less than usual: far from logits and from masks."""
    gap, factor = DEFAULT_MASK_GAP, 1.0  # of the scales nearer to the Softmax
    for step in steps:
        if step.bends:
            break
        taken = 0.0 if step.mask is None else step.mask.magnitude * factor
        if taken >= MASKS:
            gap = min(gap, taken / 2)
        factor *= step.factor or 1.0
    return gap


def _requantized(view: GraphView, probabilities: str) -> QuantizePair | None:
    """The quantisation that the probabilities go through, if they go nowhere else."""
    readers = view.consumers(probabilities)
    if view.uses(probabilities) != 1 or not readers or not view.holds(readers[0]):
        return None
    return pair_behind(view, readers[0])


def _in_functions(model: onnx.ModelProto) -> Iterator[AttentionSoftmax]:
    """Softmax nodes in functions: those left when calls were put in place of, or are yet to be."""
    for function in model.functions:
        why = ", which is written for other operator versions than the model" * written_for_others(function, model)
        for node in all_nodes(function.node):
            if _is_softmax(node):
                yield AttentionSoftmax(
                    node.name or node.output[0],
                    -1,
                    node.input[0],
                    node.output[0],
                    node.output[0],
                    f"lies in function {function.domain}::{function.name}{why}",
                    attention_like=True,
                )


def _hidden(model: onnx.ModelProto, folder: Path) -> Iterator[AttentionSoftmax]:
    """Operators that hold a Softmax and were not taken apart."""
    reasons = why_whole(model, folder)
    for node in _all_nodes(model):
        if is_fused(node) and node.output:
            domain = "ai.onnx" if is_default_domain(node.domain) else node.domain
            why = reasons.get(node.output[0], "it lies in a function")
            yield AttentionSoftmax(
                node.name or node.output[0],
                -1,
                node.input[0] if node.input else "",
                node.output[0],
                node.output[0],
                f"is {domain}.{node.op_type}, which hides its Softmax: {why}",
                attention_like=True,
            )


def _logarithms(model: onnx.ModelProto) -> Iterator[AttentionSoftmax]:
    """LogSoftmax nodes: users look for them, too."""
    for node in _all_nodes(model):
        if node.op_type == "LogSoftmax" and is_default_domain(node.domain) and node.input and node.output:
            reason = "is LogSoftmax, which makes logarithms of probabilities; HCCS makes probabilities"
            name, y = node.name or node.output[0], node.output[0]
            yield AttentionSoftmax(name, -1, node.input[0], y, y, reason)


def _is_softmax(node: onnx.NodeProto) -> bool:
    return node.op_type == "Softmax" and is_default_domain(node.domain)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from all_nodes(model.graph.node)
    for function in model.functions:
        yield from all_nodes(function.node)
