"""One-node models of ``hccs::HCCS`` for tests of the native library, and what they must compute."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper

from hccs_onnx.errors import HccsError
from hccs_onnx.operator.evaluate import evaluate
from hccs_onnx.operator.schema import read_attributes
from hccs_onnx.reference import hccs

Array = np.ndarray[Any, Any]

DTYPES: dict[str, tuple[type[np.generic], type[np.generic]]] = {
    "uint8": (np.int8, np.uint8),
    "int16": (np.int8, np.int16),
    "float": (np.float32, np.float32),
}
OUTPUTS = tuple(DTYPES)
RECIPROCALS = ("norm", "div", "clb")
ELEMENTS = {
    "uint8": (TensorProto.INT8, TensorProto.UINT8),
    "int16": (TensorProto.INT8, TensorProto.INT16),
    "float": (TensorProto.FLOAT, TensorProto.FLOAT),
}
WORDING = re.compile(r"node '.*': .+ \(.*, needs .+\)\. .+\.", re.DOTALL)
"""How the library words an error."""

TWO_HEADS: dict[str, Any] = {"B": [300, 2000], "S": [2, 100], "Dmax": [100, 20], "scale": [0.1, 0.05]}


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


def stacked_model(scales: Sequence[float]) -> bytes:
    """Float HCCS nodes, each fed by the one before; each has the parameters of TWO_HEADS but for one of `scales`."""
    nodes = [
        helper.make_node(
            "HCCS",
            [f"v{i}" if i else "X", "zero"],
            [f"v{i + 1}" if i + 1 < len(scales) else "Y"],
            name=f"sm{i}",
            domain="hccs",
            **{**TWO_HEADS, "scale": [scale]},
        )
        for i, scale in enumerate(scales)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["b", "h", "q", "k"])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [helper.make_tensor("zero", TensorProto.FLOAT, [], [0])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hccs", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def logits(output: str, shape: Sequence[int], seed: int = 0) -> Array:
    """Random logits with some masked positions."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 30 if output != "float" else 4, shape)
    hidden = random.random(shape) < 0.2
    if output == "float":
        return np.where(hidden, -1e4, x).astype(np.float32)
    return np.where(hidden, -128, np.clip(np.rint(x), -127, 127)).astype(np.int8)


def expected(output: str, x: Array, **attributes: Any) -> Array:
    """What the reference computes for a node with `attributes`."""
    arguments = {**attributes, "masked": bool(attributes.get("masked", 0))}
    return hccs(x, DTYPES[output][1], **arguments)


def assert_same_bits(actual: Array, wanted: Array, what: str = "") -> None:
    """Type, shape, values, positions of NaN, and no negative zero."""
    assert actual.dtype == wanted.dtype
    np.testing.assert_array_equal(actual, wanted, what, strict=True)
    if actual.dtype == np.float32:
        assert not np.signbit(actual[actual == 0]).any()


def model_of(
    node: NodeProto, x_type: int, zero_point: TensorProto, y_type: int, shape: Sequence[int | str | None] | None
) -> bytes:
    """A model of one node, right or wrong, with inputs X and zero and output Y; X is declared with `shape`."""
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("X", x_type, shape)],
        [helper.make_tensor_value_info("Y", y_type, None)],
        [zero_point],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hccs", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def node_of(attributes: Iterable[AttributeProto], name: str = "sm") -> NodeProto:
    """An HCCS node with exactly these attributes."""
    node = helper.make_node("HCCS", ["X", "zero"], ["Y"], name=name, domain="hccs")
    node.attribute.extend(attributes)
    return node


def attribute_of(name: str, kind: AttributeProto.AttributeType, value: Any) -> AttributeProto:
    """An attribute of any type, lists may be empty."""
    attribute = AttributeProto(name=name, type=kind)
    field = {"FLOAT": "f", "INT": "i", "STRING": "s"}.get(AttributeProto.AttributeType.Name(kind))
    if field is not None:
        setattr(attribute, field, value)
    else:
        getattr(attribute, AttributeProto.AttributeType.Name(kind).lower()).extend(value)
    return attribute


def reference_result(node: NodeProto, x: Array, output: str) -> Array | None:
    """What the Python implementation computes for a node; None where it refuses."""
    try:
        return evaluate(x, np.zeros((), DTYPES[output][1]), read_attributes(node), "node")
    except HccsError:
        return None
