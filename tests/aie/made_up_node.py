"""A model of HCCS nodes alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.schema import DOMAIN, VERSION, make_node
from hccs_onnx.params import HccsParams, HeadParams


def save_model(
    path: Path, output: str = "uint8", names: Sequence[str] = ("attention",), heads: int = 1, head_axis: int = -3
) -> None:
    """Masked HCCS nodes of these names, batch size and row length symbolic, all reading x; their outputs y_0, y_1..."""
    params = HccsParams(tuple(HeadParams(16259 + i, 127, 127) for i in range(heads)), head_axis=head_axis, masked=True)
    code = TensorProto.FLOAT if output == "float" else TensorProto.INT8
    x = helper.make_tensor_value_info("x", code, ["batch", 12, "n", "n"])
    zero = numpy_helper.from_array(np.zeros((), output + "32" * (output == "float")), "zero")
    outputs = [f"y_{index}" for index in range(len(names))]
    nodes = [make_node(params, "x", "zero", y, name=name) for y, name in zip(outputs, names, strict=True)]
    ys = [helper.make_tensor_value_info(y, zero.data_type, None) for y in outputs]
    graph = helper.make_graph(nodes, "g", [x], ys, [zero])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, VERSION)]
    body = function_body(output, "norm", 17)  # type: ignore[arg-type]
    onnx.save(helper.make_model(graph, opset_imports=imports, functions=[body], ir_version=8), path)
