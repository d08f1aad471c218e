"""The ONNX graph of an attention block in the form that aie4ml accepts.

Batch 1, rank 2, one HCCS a head behind projections of its own, the heads side by side into the output projection;
QuantizeLinear and DequantizeLinear with three inputs, powers of two and zero point 0 around every activation. The graph
carries the function body of HCCS, so onnxruntime runs it too, and computes the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from hccs_onnx._version import __version__
from hccs_onnx.aie.aie4ml_block import AttentionBlock
from hccs_onnx.aie.aie4ml_quantize import Layer, QuantizedBlock
from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.schema import DOMAIN, VERSION, make_node
from hccs_onnx.params import PROBABILITY_UNIT, HccsParams, OutputType
from hccs_onnx.reference import Array

INPUT, OUTPUT = "x", "y"
"""Names of the graph's input and output, floats."""

_LANGUAGE: dict[OutputType, tuple[int, int]] = {"uint8": (17, 8), "int16": (21, 10)}  # opset and IR version


def layer_name(layer: str, head: int | None = None) -> str:
    """Name of a node that LayerDirectives can name.

    Examples
    --------
    >>> layer_name("query", 3), layer_name("output")
    ('head3_query', 'output')
    """
    return layer if head is None else f"head{head}_{layer}"


def build_graph(block: AttentionBlock, integers: QuantizedBlock, name: str) -> onnx.ModelProto:
    """The graph of a block.

    Parameters
    ----------
    block : AttentionBlock
        For its parameters and sizes.
    integers : QuantizedBlock
        Its layers.
    name : str
        Name of the graph, which aie4ml calls its project.

    Returns
    -------
    onnx.ModelProto
        One float input `INPUT` of shape (row, in), one float output `OUTPUT` of shape (row, out); all shapes given.

    Examples
    --------
    >>> build_graph(block, quantize(block), "layer0").graph.input[0].name  # doctest: +SKIP
    'x'
    """
    cut = block.cut
    opset, ir_version = _LANGUAGE[cut.output]
    graph = _Graph()
    x = graph.pair(INPUT, integers.x_fraction, "x")
    contexts = []
    for index, layers in enumerate(integers.heads):
        query = graph.layer(x, layers.query, integers.x_fraction, layer_name("query", index))
        key = graph.layer(x, layers.key, integers.x_fraction, layer_name("key", index))
        value = graph.layer(x, layers.value, integers.x_fraction, layer_name("value", index))
        turned = graph.add("Transpose", [key], layer_name("key_turned", index), perm=[1, 0])
        logits = graph.add("MatMul", [query, turned], layer_name("logits", index))
        codes = graph.quantized(logits, 0, layer_name("codes", index))
        heads = cut.params.heads
        params = HccsParams((heads[index % len(heads)],), reciprocal=cut.params.reciprocal)
        zero = graph.constant(f"zero_{cut.output}", np.zeros((), cut.output))
        scores = layer_name("hccs", index)
        graph.nodes.append(make_node(params, codes, zero, scores, scores))
        unit = graph.constant("probability_unit", np.float32(PROBABILITY_UNIT[cut.output]))
        weights = graph.add("DequantizeLinear", [scores, unit, zero], layer_name("probabilities", index))
        context = graph.add("MatMul", [weights, value], layer_name("context", index))
        contexts.append(graph.pair(context, integers.context_fraction, context))
    joined = contexts[0] if len(contexts) == 1 else graph.add("Concat", contexts, "joined", axis=1)
    graph.layer(joined, integers.output, integers.context_fraction, layer_name("output"), result=OUTPUT)
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, [block.rows, width])
        for end, width in ((INPUT, block.x.shape[-1]), (OUTPUT, block.y.shape[-1]))
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, ends[:1], ends[1:], list(graph.constants.values())),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[function_body(cut.output, cut.params.reciprocal, opset)],
        ir_version=ir_version,
        producer_name="hccs-onnx",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    return shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


@dataclass
class _Graph:
    """Nodes and constants under construction. Every tensor is called like the node that makes it."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def constant(self, name: str, value: Array | np.generic) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def quantized(self, tensor: str, fraction: int, name: str) -> str:
        """int8 codes of a tensor."""
        return self.add("QuantizeLinear", [tensor, *self._unit(fraction, "int8")], name)

    def pair(self, tensor: str, fraction: int, stem: str, result: str | None = None) -> str:
        """A tensor rounded to int8 codes."""
        codes = self.quantized(tensor, fraction, f"{stem}_codes")
        return self.add("DequantizeLinear", [codes, *self._unit(fraction, "int8")], result or f"{stem}_rounded")

    def layer(self, x: str, layer: Layer, x_fraction: int, name: str, result: str | None = None) -> str:
        """A projection, its results rounded."""
        unit = x_fraction + layer.weight_fraction
        weight = self._parameter(f"{name}_weight", layer.weight, layer.weight_fraction)
        bias = self._parameter(f"{name}_bias", layer.bias, unit)
        product = self.add("MatMul", [x, weight], name)
        return self.pair(self.add("Add", [product, bias], f"{name}_sum"), layer.fraction, f"{name}_sum", result)

    def _parameter(self, name: str, codes: Array, fraction: int) -> str:
        stored = self.constant(f"{name}_codes", codes)
        return self.add("DequantizeLinear", [stored, *self._unit(fraction, codes.dtype.name)], name)

    def _unit(self, fraction: int, dtype: str) -> list[str]:
        scale = self.constant(f"unit_{fraction}", np.float32(2.0**-fraction))
        return [scale, self.constant(f"zero_{dtype}", np.zeros((), dtype))]
