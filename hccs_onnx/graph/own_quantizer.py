"""The quantiser of the logits that a QDQ model has itself, seen from the Softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns import passthrough
from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.quantisation import codes_of
from hccs_onnx.graph.view import GraphView


@dataclass(frozen=True)
class OwnQuantizer:
    """A pair of QuantizeLinear and DequantizeLinear with one 8-bit scale that says which codes logits have.

    Parameters
    ----------
    scale : float
        Size of a code, nats: scales between the pair and the Softmax are part of it.
    zero_point : int
        Code of logit 0 as int8, -128..127; 128 less than that of a uint8 pair.
    lowest : int
        Lowest code that it uses for logits: -127 for an int8 pair with zero point 0, which quantisers keep symmetric.

    Examples
    --------
    >>> OwnQuantizer(scale=0.05, zero_point=-16, lowest=-128).range
    12.75
    """

    scale: float
    zero_point: int
    lowest: int

    @property
    def range(self) -> float:
        """Nats from the lowest int8 code to the highest."""
        return 255 * self.scale


@dataclass(frozen=True)
class OwnQuantizers:
    """What a model says about codes of one Softmax's logits.

    Parameters
    ----------
    pairs : tuple of OwnQuantizer
        Usable pairs, that nearest to the Softmax first.
    problem : str
        Why there are no more.
    mask : float
        Nats that every masking addend between product and Softmax takes off at least; inf if there is none, 0 if it
        cannot be told.
    """

    pairs: tuple[OwnQuantizer, ...] = ()
    problem: str = "no QuantizeLinear and DequantizeLinear lie between product and Softmax"
    mask: float = math.inf


def own_quantizers(view: GraphView, steps: tuple[Step, ...]) -> OwnQuantizers:
    """Pairs among the steps from the Softmax back to the product that only constant scales and masks follow.

    Parameters
    ----------
    view : GraphView
        The graph of the Softmax.
    steps : tuple of Step
        From the Softmax back, the nearest first.

    Examples
    --------
    >>> own_quantizers(view, steps).pairs  # doctest: +SKIP
    (OwnQuantizer(scale=0.148, zero_point=3, lowest=-128),)
    """
    mask = min((step.mask.magnitude for step in steps if step.mask is not None and step.mask.masks), default=math.inf)
    pairs: list[OwnQuantizer] = []
    problem = OwnQuantizers.problem
    factor = 1.0  # of the steps nearer to the Softmax
    for step in steps:
        if step.node < 0:
            problem = "what lies in the graph around the body is not looked into"
            break
        node = view.nodes[step.node]
        if step.reader is not None:
            pair = _pair(view, node, factor)
            if isinstance(pair, str):
                problem = pair
            else:
                pairs.append(pair)
        elif step.factor is not None:
            factor *= step.factor
        elif not _keeps(view, step, node):
            problem = f"behind {node.op} '{view.label(node)}' logits may lie elsewhere than before"
            break
    return OwnQuantizers(tuple(pairs), problem, mask)


def _keeps(view: GraphView, step: Step, node: gs.Node) -> bool:
    """Whether each logit behind a step is masked or what it was before."""
    if step.mask is not None:
        return step.mask.magnitude > 0
    return node.op == "Transpose" or passthrough.hands_on(view, node)


def _pair(view: GraphView, dequantize: gs.Node, factor: float) -> OwnQuantizer | str:
    """The pair that ends with a node, or why its codes cannot be those of the logits."""
    codes = codes_of(view, dequantize)
    if codes is None:
        return f"'{view.label(dequantize)}' has more scales than one"
    if codes.dtype not in ("int8", "uint8"):
        return f"'{view.label(dequantize)}' has codes of type {codes.dtype}"
    if codes.dtype == "uint8":
        return OwnQuantizer(codes.scale * factor, codes.zero_point - 128, -128)
    return OwnQuantizer(codes.scale * factor, codes.zero_point, -128 if codes.zero_point else -127)
