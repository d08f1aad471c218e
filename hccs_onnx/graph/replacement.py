"""What takes a Softmax node's place: HCCS on floats, or on codes between QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.names import NameGenerator
from hccs_onnx.operator.schema import ELEMENT_TYPES, make_node
from hccs_onnx.params import PROBABILITY_UNIT, HccsParams, LogitQuantizer, OutputType
from hccs_onnx.reference import Array

PER_AXIS_OPSET = 13  # QuantizeLinear with a scale for each index of an axis
INT16_OPSET = 21  # DequantizeLinear of int16
_HALF = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


@dataclass
class Replacer:
    """Makes the nodes that replace Softmax nodes of one model, and the constants that they share.

    Parameters
    ----------
    output : {'float', 'uint8', 'int16'}
        What HCCS puts out.
    opset : int
        Of the model.
    names : NameGenerator
        For new tensors.
    """

    output: OutputType
    opset: int
    names: NameGenerator
    constants: list[TensorProto] = field(default_factory=list)
    _shared: dict[str, str] = field(default_factory=dict)

    def nodes(
        self,
        softmax: NodeProto,
        item: AttentionSoftmax,
        probabilities: str,
        params: HccsParams,
        quantizer: LogitQuantizer | None,
    ) -> list[NodeProto]:
        """Nodes from the Softmax's input to the probabilities.

        Parameters
        ----------
        softmax : onnx.NodeProto
            The node that is replaced; its name and documentation go over to HCCS.
        item : AttentionSoftmax
            What was found of it.
        probabilities : str
            Tensor to make.
        params : HccsParams
            For logits in nats.
        quantizer : LogitQuantizer or None
            For logits in nats; None for float output.
        """
        made: list[NodeProto] = []
        x = softmax.input[0]
        if item.dtype != "float32":
            x = self._add(made, "Cast", [x], f"{item.probabilities}_logits", to=TensorProto.FLOAT)
        last = probabilities if item.dtype == "float32" else self.names.fresh(f"{item.probabilities}_float")
        zero = self._constant("hccs_y_zero_point", helper.make_tensor("", ELEMENT_TYPES[self.output], [], [0]))
        params = params.in_units_of(item.factor)
        if quantizer is None:
            made.append(make_node(params, x, zero, last, softmax.name))
        else:
            heads = tuple(replace(head, scale=1.0) for head in params.heads)  # codes are the unit
            codes = self._quantize(made, x, item, quantizer.in_units_of(item.factor))
            y = self.names.fresh(f"{item.probabilities}_hccs")  # ONNX Runtime's quantiser takes names like p_quantized
            made.append(make_node(replace(params, heads=heads), codes, zero, y, softmax.name))
            self._dequantize(made, y, zero, last)
        if item.dtype != "float32":
            made.append(helper.make_node("Cast", [last], [probabilities], to=_HALF[item.dtype]))
        for node in made:
            if softmax.name and not node.name:
                node.name = f"{softmax.name}/{node.output[0]}"
            if hasattr(node, "metadata_props"):
                node.metadata_props.extend(softmax.metadata_props)
            node.doc_string = softmax.doc_string
        return made

    def _quantize(self, made: list[NodeProto], x: str, item: AttentionSoftmax, quantizer: LogitQuantizer) -> str:
        per_head = len(quantizer.scale) > 1
        scale, zero_point = np.array(quantizer.scale, np.float32), np.array(quantizer.zero_point, np.int8)
        stem = f"{item.probabilities}_codes"
        inputs = [
            x,
            self._own(f"{stem}_scale", scale if per_head else scale[0]),
            self._own(f"{stem}_zero_point", zero_point if per_head else zero_point[0]),
        ]
        if per_head:
            return self._add(made, "QuantizeLinear", inputs, stem, axis=item.head_axis)
        return self._add(made, "QuantizeLinear", inputs, stem)

    def _dequantize(self, made: list[NodeProto], y: str, zero: str, result: str) -> None:
        unit = np.array(PROBABILITY_UNIT[self.output], np.float32)
        shared = self._constant("hccs_probability_unit", numpy_helper.from_array(unit))
        if self.output == "uint8" or self.opset >= INT16_OPSET:
            made.append(helper.make_node("DequantizeLinear", [y, shared, zero], [result]))
        else:
            wide = self._add(made, "Cast", [y], f"{y}_float", to=TensorProto.FLOAT)
            made.append(helper.make_node("Mul", [wide, shared], [result]))

    def _add(self, made: list[NodeProto], op: str, inputs: list[str], wanted: str, **attributes: Any) -> str:
        name = self.names.fresh(wanted)
        made.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def _constant(self, wanted: str, tensor: onnx.TensorProto) -> str:
        """A constant that all nodes share."""
        if wanted not in self._shared:
            tensor.name = self._shared[wanted] = self.names.fresh(wanted)
            self.constants.append(tensor)
        return self._shared[wanted]

    def _own(self, wanted: str, value: Array) -> str:
        name = self.names.fresh(wanted)
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
