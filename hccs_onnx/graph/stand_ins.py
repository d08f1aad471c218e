"""Standard operators with the shapes of others that shape inference does not know: onnxruntime's, two of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import NodeProto, TensorProto, helper

_LIKE_FIRST = {
    "BiasGelu": (0,),
    "FastGelu": (0,),
    "Gelu": (0,),
    "QLinearSoftmax": (0,),
    "QuickGelu": (0,),
    "RotaryEmbedding": (0,),
    "SimplifiedLayerNormalization": (0,),
    "SkipLayerNormalization": (0, 3),
    "SkipSimplifiedLayerNormalization": (0, 3),
}
"""Outputs that have shape and type of the first input, by operator."""

_ML_FLOATS = ("Normalizer", "Scaler")  # floats in the shape of the input
_OWN, _ML = "com.microsoft", "ai.onnx.ml"
_STRAY = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization")  # also written without a domain


def with_stand_ins(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` itself, or a copy with other nodes in place of those that shape inference does not know.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[n,4] x) => (y)'
    >>> model = onnx.parser.parse_model(text + "{ y = com.microsoft.FastGelu (x) }")
    >>> with_stand_ins(model).graph.node[0].op_type
    'Identity'
    """
    replaced = {index: nodes for index, node in enumerate(model.graph.node) if (nodes := _stand_ins(node))}
    if not replaced:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for index, node in enumerate(model.graph.node):
        result.graph.node.extend(replaced.get(index, [node]))
    return result


def _stand_ins(node: NodeProto) -> list[NodeProto]:
    if node.domain == _ML and node.op_type in _ML_FLOATS and node.input and node.output:
        return [helper.make_node("Cast", [node.input[0]], [node.output[0]], to=TensorProto.FLOAT)]
    if not node.input or not node.output or not (node.domain == _OWN or (not node.domain and node.op_type in _STRAY)):
        return []
    if node.op_type in _LIKE_FIRST:
        present = [node.output[at] for at in _LIKE_FIRST[node.op_type] if at < len(node.output) and node.output[at]]
        return [helper.make_node("Identity", [node.input[0]], [name]) for name in present]
    return _RULES[node.op_type](node) if node.op_type in _RULES else []


def _embedding(node: NodeProto) -> list[NodeProto]:
    """Rows of the word embedding, and one number for each sample: the length of its mask."""
    if len(node.input) < 3:
        return []
    rows = _name(node, "rows")
    to_float = helper.make_node("Cast", [rows], [node.output[0]], to=TensorProto.FLOAT)
    same = helper.make_node("Identity", [rows], [node.output[0]])
    quantized = node.op_type == "QEmbedLayerNormalization"
    nodes = [helper.make_node("Gather", [node.input[2], node.input[0]], [rows]), to_float if quantized else same]
    if len(node.output) > 1 and node.output[1]:
        nodes += [
            _first(node),
            helper.make_node("Gather", [node.input[0], _name(node, "first")], [node.output[1]], axis=1),
        ]
    return nodes


def _attention(node: NodeProto) -> list[NodeProto]:
    """A part of the product with the stacked weights: a third, unless the attributes tell other widths."""
    if len(node.input) < 2:
        return []
    sizes = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "qkv_hidden_sizes"), [])
    product = helper.make_node("MatMul", [node.input[0], node.input[1]], [_name(node, "product")])
    if len(sizes) == 3:
        inputs = [_name(node, part) for part in ("product", "start", "end", "axis")]
        constants = [_ints(node, "start", 0), _ints(node, "end", sizes[2]), _ints(node, "axis", 2)]
        return [product, *constants, helper.make_node("Slice", inputs, [node.output[0]])]
    return [
        product,
        _ints(node, "shape", 0, 0, 3, -1),
        helper.make_node("Reshape", [_name(node, "product"), _name(node, "shape")], [_name(node, "thirds")]),
        _first(node),
        helper.make_node("Gather", [_name(node, "thirds"), _name(node, "first")], [node.output[0]], axis=2),
    ]


def _multi_head(node: NodeProto) -> list[NodeProto]:
    """Attention without heads, where queries, keys and values come apart."""
    if len(node.input) < 3 or not all(node.input[:3]):
        return []
    query, key, value = node.input[:3]
    return [
        helper.make_node("Transpose", [key], [_name(node, "turned")], perm=[0, 2, 1]),
        helper.make_node("MatMul", [query, _name(node, "turned")], [_name(node, "product")]),
        helper.make_node("MatMul", [_name(node, "product"), value], [node.output[0]]),
    ]


def _grouped_query(node: NodeProto) -> list[NodeProto]:
    """The queries, where they come apart from keys and values."""
    apart = len(node.input) > 1 and node.input[1]
    return [helper.make_node("Identity", [node.input[0]], [node.output[0]])] if apart else []


def _product(node: NodeProto) -> list[NodeProto]:
    """The product as Einsum, which need not know how many axes there are."""
    given = {attribute.name: attribute.i for attribute in node.attribute}
    if len(node.input) != 2 or given.get("transBatchA") or given.get("transBatchB"):
        return []
    first = "...ki" if given.get("transA") else "...ik"
    second = "...jk" if given.get("transB") else "...kj"
    return [helper.make_node("Einsum", node.input, [node.output[0]], equation=f"{first},{second}->...ij")]


def _name(node: NodeProto, part: str) -> str:
    return f"stand-in of {node.output[0]}: {part}"


def _first(node: NodeProto) -> NodeProto:
    """Index of the first element, a scalar, with which Gather drops an axis."""
    tensor = helper.make_tensor("first", TensorProto.INT64, [], [0])
    return helper.make_node("Constant", [], [_name(node, "first")], value=tensor)


def _ints(node: NodeProto, part: str, *values: int) -> NodeProto:
    tensor = helper.make_tensor(part, TensorProto.INT64, [len(values)], values)
    return helper.make_node("Constant", [], [_name(node, part)], value=tensor)


_RULES: dict[str, Callable[[NodeProto], list[NodeProto]]] = {
    "Attention": _attention,
    "EmbedLayerNormalization": _embedding,
    "FusedMatMul": _product,
    "GroupQueryAttention": _grouped_query,
    "MultiHeadAttention": _multi_head,
    "QEmbedLayerNormalization": _embedding,
}
