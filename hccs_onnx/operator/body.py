"""The FunctionProto body of ``hccs::HCCS`` in standard ONNX operators.

A model that carries it runs on any ONNX runtime with nothing installed. The body is generated for one numerics profile
(output type and reciprocal) and one opset; everything else is read from the node's attributes at run time.

How it stays exact, whatever the runtime: gap codes and scores are small integers, exact in float32; row sums and the
products with the reciprocal are exact in float64 (below 2^53); divisions of integers are done on int64, once a row. Row
parameters are gathered by a running count along the head axis, so no shape has to be known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from hccs_onnx.operator.schema import ATTRIBUTES, DOMAIN, ELEMENT_TYPES, OP_TYPE
from hccs_onnx.params import OutputType, Reciprocal

MIN_OPSET = 12  # Constant's value_ints, by which list attributes become tensors
_FLOAT, _DOUBLE, _INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def function_body(output: OutputType, reciprocal: Reciprocal, opset: int) -> FunctionProto:
    """The body of ``hccs::HCCS`` for one numerics profile.

    Parameters
    ----------
    output : {'float', 'uint8', 'int16'}
        Output type; ``float`` takes float32 logits, the others int8.
    reciprocal : {'norm', 'div', 'clb'}
        How the row sum is inverted. Makes no difference to ``float``.
    opset : int
        Version of the default domain in the model that will carry it, >= 12.

    Returns
    -------
    onnx.FunctionProto
        Deterministic: equal arguments give equal bytes.

    Raises
    ------
    ValueError
        If `opset` is below 12.

    Examples
    --------
    >>> function_body("float", "norm", 17).name
    'HCCS'
    """
    if opset < MIN_OPSET:
        raise ValueError(f"the HCCS function body needs opset >= {MIN_OPSET}, not {opset}")
    graph = _Builder(opset)
    scores, total = _float_scores(graph) if output == "float" else _integer_scores(graph)
    if output == "float":
        y = _float_probabilities(graph, scores, total)
    else:
        y = _integer_probabilities(graph, scores, total, output, reciprocal)
    if opset >= 15:
        graph.op("CastLike", y, "y_zero_point", into="Y")
    else:
        graph.op("Cast", y, to=ELEMENT_TYPES[output], into="Y")
    return helper.make_function(
        DOMAIN,
        OP_TYPE,
        ["X", "y_zero_point"],
        ["Y"],
        graph.nodes,
        [helper.make_opsetid("", opset)],
        attributes=list(ATTRIBUTES),
        doc_string=f"hccs-onnx body, output {output}, reciprocal {reciprocal}",
    )


class _Builder:
    """Collects nodes; every `op` returns the name of its output."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[NodeProto] = []

    def op(self, op_type: str, *inputs: str, into: str | None = None, **attributes: Any) -> str:
        output = into or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def constant(self, value: object, dtype: type[np.generic]) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, dtype), "value")
        return self.op("Constant", value=tensor)

    def attribute(self, name: str, field: str, kind: int) -> str:
        """The node's attribute `name` as a tensor."""
        output = self.op("Constant")
        self.nodes[-1].attribute.append(onnx.AttributeProto(name=field, ref_attr_name=name, type=kind))  # type: ignore[arg-type]
        return output

    def cast(self, x: str, to: int) -> str:
        return self.op("Cast", x, to=to)

    def reduce(self, op_type: str, x: str, axes_are_input_since: int) -> str:
        """Reduction along the last axis, which is kept with size 1."""
        if self.opset >= axes_are_input_since:
            return self.op(op_type, x, self.constant([-1], np.int64), keepdims=1)
        return self.op(op_type, x, axes=[-1], keepdims=1)

    def row_maximum(self, x: str) -> str:
        return self.reduce("ReduceMax", x, 18)

    def row_sum(self, x: str) -> str:
        return self.reduce("ReduceSum", x, 13)

    def floats(self, value: float) -> str:
        return self.constant(value, np.float32)

    def ints(self, value: int) -> str:
        return self.constant(value, np.int64)


class _RowParameters:
    """Hands out per-head attributes as float32 tensors with one value a row, shape (..., 1)."""

    def __init__(self, graph: _Builder, row_like: str, *, with_scale: bool) -> None:
        self.graph = graph
        axis = graph.attribute("head_axis", "value_int", onnx.AttributeProto.INT)
        lists = {name: graph.attribute(name, "value_ints", onnx.AttributeProto.INTS) for name in ("B", "S", "Dmax")}
        if with_scale:
            lists["scale"] = graph.attribute("scale", "value_floats", onnx.AttributeProto.FLOATS)
        one = graph.ints(1)
        sizes = {name: graph.op("Size", values) for name, values in lists.items()}
        entries = sizes["B"]
        for name in list(sizes)[1:]:
            entries = graph.op("Mul", entries, sizes[name])
        # Any axis will do where all lists have one entry; the last one exists whatever the rank.
        axis = graph.op("Where", graph.op("Equal", entries, one), graph.ints(-1), axis)
        ones = graph.op("Where", graph.op("Equal", row_like, row_like), one, one)  # also where the maximum is NaN
        self._position = graph.op("CumSum", ones, axis, exclusive=1)
        self._lists = lists
        self._sizes = sizes

    def __call__(self, name: str) -> str:
        values = self._lists[name]
        index = self.graph.op("Mod", self._position, self._sizes[name])
        if name != "scale":
            values = self.graph.cast(values, _FLOAT)
        return self.graph.op("Gather", values, index, axis=0)


def _score(graph: _Builder, rows: _RowParameters, codes: str, hidden: str) -> tuple[str, str]:
    """Float32 scores of float32 gap codes, and their float64 row sums; exact, NaN passes through."""
    limit = rows("Dmax")
    clipped = graph.op("Where", graph.op("Greater", codes, limit), limit, codes)  # Min drops NaN in onnxruntime 1.17
    score = graph.op("Sub", rows("B"), graph.op("Mul", rows("S"), clipped))
    score = graph.op("Where", hidden, graph.floats(0), score)
    return score, graph.row_sum(graph.cast(score, _DOUBLE))


def _float_scores(graph: _Builder) -> tuple[str, str]:
    maximum = graph.row_maximum("X")
    rows = _RowParameters(graph, maximum, with_scale=True)
    # In a row of -inf alone the maximum is replaced by 0: every gap is then inf, and hidden.
    dead = graph.op("Equal", maximum, graph.floats(-np.inf))
    maximum = graph.op("Where", dead, graph.floats(0), maximum)
    delta = graph.op("Sub", maximum, "X")
    codes = graph.op("Round", graph.op("Div", delta, rows("scale")))
    masked = graph.op("Equal", graph.attribute("masked", "value_int", onnx.AttributeProto.INT), graph.ints(1))
    mask_gap = graph.attribute("mask_gap", "value_float", onnx.AttributeProto.FLOAT)
    limit = graph.op("Where", masked, mask_gap, graph.floats(np.inf))
    limit = graph.op("Where", dead, graph.floats(0), limit)
    return _score(graph, rows, codes, graph.op("Greater", delta, limit))


def _float_probabilities(graph: _Builder, scores: str, total: str) -> str:
    total = graph.cast(total, _FLOAT)
    total = graph.op("Where", graph.op("Equal", total, graph.floats(0)), graph.floats(1), total)
    # A float64 quotient of float32 values rounds to the float32 quotient. As Div(1, x) in float32, followed by Mul,
    # ONNX Runtime would fuse it into one division, which rounds differently.
    quotient = graph.op("Div", graph.constant(1, np.float64), graph.cast(total, _DOUBLE))
    return graph.op("Mul", scores, graph.cast(quotient, _FLOAT))


def _integer_scores(graph: _Builder) -> tuple[str, str]:
    x = graph.cast("X", _FLOAT)
    maximum = graph.row_maximum(x)
    rows = _RowParameters(graph, maximum, with_scale=False)
    masked = graph.op("Equal", graph.attribute("masked", "value_int", onnx.AttributeProto.INT), graph.ints(1))
    lowest = graph.op("Where", masked, graph.floats(-127), graph.floats(-128))
    return _score(graph, rows, graph.op("Sub", maximum, x), graph.op("Less", x, lowest))


def _integer_probabilities(graph: _Builder, scores: str, total: str, output: OutputType, reciprocal: Reciprocal) -> str:
    """``min(cap, floor((s*rho + half) / 2^shift))`` as float64 integers."""
    total = graph.cast(total, _INT64)
    total = graph.op("Where", graph.op("Equal", total, graph.ints(0)), graph.ints(1), total)
    rho, half, shifted = _reciprocal(graph, total, output, reciprocal)
    y = graph.op("Mul", graph.cast(scores, _DOUBLE), graph.cast(rho, _DOUBLE))
    if half is not None:
        y = graph.op("Add", y, graph.cast(half, _DOUBLE))
    if shifted is not None:
        y = graph.op("Div", y, graph.cast(shifted, _DOUBLE))
    y = graph.op("Min", y, graph.constant(255 if output == "uint8" else 32767, np.float64))
    return graph.cast(y, _INT64)  # truncates, which is floor for what is never negative


def _reciprocal(
    graph: _Builder, total: str, output: OutputType, reciprocal: Reciprocal
) -> tuple[str, str | None, str | None]:
    """Int64 row tensors (rho, half, 2^shift); None for half = 0 and shift = 0."""

    def capped(numerator: str, denominator: str) -> str:
        rho = graph.op("Div", numerator, denominator)
        cap = graph.ints(32767)
        return graph.op("Where", graph.op("Greater", rho, cap), cap, rho)

    if reciprocal == "norm":
        power = _power_of_two_below(graph, total)
        rho = capped(graph.op("Mul", power, graph.ints(1 << 15)), total)
        if output == "uint8":
            return rho, graph.op("Mul", power, graph.ints(64)), graph.op("Mul", power, graph.ints(128))
        return rho, graph.op("Div", power, graph.ints(2)), power
    divisor = total if reciprocal == "div" else _power_of_two_below(graph, total)
    if output == "uint8":
        return capped(graph.ints(255 << 15), divisor), None, graph.ints(1 << 15)
    return graph.op("Div", graph.ints(32767), divisor), None, None


def _power_of_two_below(graph: _Builder, total: str) -> str:
    """Largest power of two <= total, exactly: a float logarithm that is off by one at most, then put right."""
    logarithm = graph.op("Log", graph.cast(total, _FLOAT))
    exponent = graph.op("Floor", graph.op("Mul", logarithm, graph.floats(1 / np.log(2))))
    table = graph.constant([1 << k for k in range(62)], np.int64)
    power = graph.op("Gather", table, graph.cast(exponent, _INT64), axis=0)
    half, double = graph.op("Div", power, graph.ints(2)), graph.op("Mul", power, graph.ints(2))
    power = graph.op("Where", graph.op("Greater", double, total), power, double)
    return graph.op("Where", graph.op("Greater", power, total), half, power)
