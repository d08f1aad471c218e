"""One-node models of ``hccs::HCCS`` for tests of the native library, and what they must compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from hccs_onnx.reference import hccs

DTYPES = {"uint8": (np.int8, np.uint8), "int16": (np.int8, np.int16), "float": (np.float32, np.float32)}
ELEMENTS = {
    "uint8": (TensorProto.INT8, TensorProto.UINT8),
    "int16": (TensorProto.INT8, TensorProto.INT16),
    "float": (TensorProto.FLOAT, TensorProto.FLOAT),
}
TWO_HEADS = {"B": [300, 2000], "S": [2, 100], "Dmax": [100, 20], "scale": [0.1, 0.05]}


def one_node_model(
    output: str, shape: Sequence[int | str] | None, *, opset: int = 17, name: str = "sm", **attributes: Any
) -> bytes:
    """A model whose only node is an HCCS node with exactly `attributes`; `shape` None leaves the rank open."""
    x, y = ELEMENTS[output]
    node = helper.make_node("HCCS", ["X", "zero"], ["Y"], name=name, domain="hccs", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("X", x, shape)],
        [helper.make_tensor_value_info("Y", y, None)],
        [helper.make_tensor("zero", y, [], [0])],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("hccs", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def chained_model(output: str, shape: Sequence[int | str | None] | None, **attributes: Any) -> bytes:
    """The node with a Cast to float behind it, so that the type of its own output has to be inferred."""
    x, y = ELEMENTS[output]
    nodes = [
        helper.make_node("HCCS", ["X", "zero"], ["P"], name="sm", domain="hccs", **attributes),
        helper.make_node("Cast", ["P"], ["Y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", x, shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [helper.make_tensor("zero", y, [], [0])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hccs", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def logits(output: str, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Random logits with some masked positions."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 30 if output != "float" else 4, shape)
    hidden = random.random(shape) < 0.2
    if output == "float":
        return np.where(hidden, -1e4, x).astype(np.float32)
    return np.where(hidden, -128, np.clip(np.rint(x), -127, 127)).astype(np.int8)


def expected(output: str, x: np.ndarray, **attributes: Any) -> np.ndarray:
    """What the reference computes for a node with `attributes`."""
    arguments = {**attributes, "masked": bool(attributes.get("masked", 0))}
    return hccs(x, DTYPES[output][1], **arguments)
