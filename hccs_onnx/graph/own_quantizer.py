"""The quantiser of the logits that a QDQ model has itself, seen from the Softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from hccs_onnx.graph.patterns import passthrough
from hccs_onnx.graph.patterns.base import Step
from hccs_onnx.graph.quantisation import codes_of
from hccs_onnx.graph.view import GraphView

_ZERO = {"int8": 0, "uint8": 128}
"""What is taken off codes of a type to make them int8."""


@dataclass(frozen=True)
class OwnQuantizer:
    """A pair of QuantizeLinear and DequantizeLinear with one 8-bit scale that says which codes logits have.

    Parameters
    ----------
    scale : float
        Size of a code, nats: scales between the pair and the Softmax are part of it.
    zero_point : int
        Code of logit 0 as int8, -128..127; 128 less than that of a uint8 pair.
    symmetric : bool
        Whether code -128 is spare: int8 with zero point 0, for which quantisers use -127..127.
    node : int
        Position of the DequantizeLinear.
    mask : float
        Nats that every masking addend behind it takes off at least; inf if there is none.
    masked_before : bool
        Whether logits may be masked before they get there.
    """

    scale: float
    zero_point: int
    symmetric: bool = False
    node: int = -1
    mask: float = math.inf
    masked_before: bool = False


@dataclass(frozen=True)
class OwnQuantizers:
    """What a model says about codes of one Softmax's logits.

    Parameters
    ----------
    pairs : tuple of OwnQuantizer
        Pairs that only constant scales and masks follow, that nearest to the Softmax first.
    problem : str
        Why there are no more.
    """

    pairs: tuple[OwnQuantizer, ...]
    problem: str


NOTHING_QUANTISED = OwnQuantizers((), "no QuantizeLinear and DequantizeLinear lie between product and Softmax")


def own_quantizers(view: GraphView, steps: tuple[Step, ...]) -> OwnQuantizers:
    """What the steps from the Softmax back to the product (the nearest first) say about codes.

    Examples
    --------
    >>> own_quantizers(view, steps).pairs  # doctest: +SKIP
    (OwnQuantizer(scale=0.148, zero_point=3, symmetric=False, node=41, mask=10000.0, masked_before=False),)
    """
    pairs: list[OwnQuantizer] = []
    factor, mask = 1.0, math.inf  # of the steps nearer to the Softmax
    for number, step in enumerate(steps):
        if step.node < 0:
            return OwnQuantizers(tuple(pairs), "what lies in the graph around the body is not looked into")
        node = view.nodes[step.node]
        if step.reader is not None:
            codes = codes_of(view, node)
            if codes is None:
                return OwnQuantizers(tuple(pairs), f"'{view.label(node)}' has more scales than one")
            if codes.dtype not in _ZERO:
                return OwnQuantizers(tuple(pairs), f"'{view.label(node)}' has codes of type {codes.dtype}")
            zero_point = codes.zero_point - _ZERO[codes.dtype]
            masked_before = any(before.mask is not None and before.mask.masks for before in steps[number:])
            symmetric = codes.dtype == "int8" and zero_point == 0
            pairs.append(OwnQuantizer(codes.scale * factor, zero_point, symmetric, step.node, mask, masked_before))
        elif step.factor is not None:
            factor *= step.factor
        elif not _keeps(view, step, node):
            problem = f"behind {node.op} '{view.label(node)}' logits may lie elsewhere than before"
            return OwnQuantizers(tuple(pairs), problem)
        elif step.mask is not None:
            mask = min(mask, step.mask.magnitude)
    return OwnQuantizers(tuple(pairs), NOTHING_QUANTISED.problem)


def _keeps(view: GraphView, step: Step, node: gs.Node) -> bool:
    """Whether each logit behind a step is masked or what it was before."""
    if step.mask is not None:
        return step.mask.magnitude > 0
    return node.op == "Transpose" or passthrough.hands_on(view, node)
