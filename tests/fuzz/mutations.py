"""Damage done to models: to their bytes, and to what the bytes mean."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto

SIZES = (0, 1, 2, 3, -1, -2, 127, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
VERSIONS = (-1, 0, 1, 6, 7, 9, 10, 11, 12, 13, 15, 17, 18, 21, 22, 23, 24, 26, 99, 2**31, 2**62)
NAMES = ("", " ", "x\ny", "\0", "../x", "/", "\u202e", "\x1b[2J", "a" * 300, "ai.onnx", "é")
FUSED = (
    "Attention", "BatchNormalization", "Cast", "Concat", "Constant", "ConstantOfShape", "DequantizeLinear", "Div",
    "Dropout", "Einsum", "Exp", "Expand", "Gather", "Gemm", "Identity", "If", "IsNaN", "LayerNormalization", "Loop",
    "MatMul", "Mul", "QuantizeLinear", "Range", "ReduceMax", "ReduceSum", "Reshape", "Resize", "Scan", "Shape",
    "SkipLayerNormalization", "Slice", "Softmax", "Split", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
    "MultiHeadAttention", "GroupQueryAttention", "QAttention", "QLinearSoftmax", "PackedAttention", "HCCS",
)  # fmt: skip
DOMAINS = ("", "ai.onnx", "com.microsoft", "hccs", "f")

Random = random.Random


def damaged(data: bytes, rng: Random) -> bytes:
    """One to eight mutations of a model file, half of the time of its bytes and else of the message in it."""
    if rng.random() < 0.3:
        return _bytes_damaged(data, rng)
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(MUTATIONS)(model, rng)
    data = model.SerializeToString()
    return _bytes_damaged(data, rng) if rng.random() < 0.1 else data


def _bytes_damaged(data: bytes, rng: Random) -> bytes:
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        start = rng.randrange(len(content) + 1)
        length = min(rng.choice((1, 1, 2, 8, 64)), len(content) - start)
        how = rng.randrange(7)
        if how < 2 and length:
            content[start] ^= 1 << rng.randrange(8)
        elif how == 2:
            del content[start : start + length]
        elif how == 3:
            content[start:start] = content[start : start + length]
        elif how == 4:
            content[start : start + length] = rng.randbytes(length)
        elif how == 5:
            other = rng.randrange(len(content) + 1)
            content[start : start + length] = content[other : other + length]
        elif rng.random() < 0.2:
            del content[start:]
    return bytes(content)


def _graphs(model: onnx.ModelProto) -> list[Any]:
    """Graph, subgraphs of one level, and functions: whatever has nodes."""
    inner = [attribute.g for node in model.graph.node for attribute in node.attribute if attribute.HasField("g")]
    return [model.graph, *inner, *model.functions]


def _nodes(model: onnx.ModelProto, rng: Random) -> Any:
    return rng.choice([graph for graph in _graphs(model) if graph.node] or [model.graph]).node


def _node(model: onnx.ModelProto, rng: Random) -> onnx.NodeProto:
    nodes = _nodes(model, rng)
    if not nodes:
        return onnx.NodeProto()
    if rng.random() < 0.4:  # near what is looked at
        near = [at for at, node in enumerate(nodes) if node.op_type in ("Softmax", "HCCS", "Attention")]
        if near:
            return nodes[max(0, min(len(nodes) - 1, rng.choice(near) + rng.randrange(-8, 6)))]
    return rng.choice(nodes)


def _name(model: onnx.ModelProto, rng: Random) -> str:
    """Mostly the name of a tensor that there is."""
    if rng.random() < 0.1:
        return rng.choice(NAMES)
    node = _node(model, rng)
    return rng.choice([*node.input, *node.output] or [""])


def _drop_node(model: onnx.ModelProto, rng: Random) -> None:
    nodes = _nodes(model, rng)
    if nodes:
        del nodes[rng.randrange(len(nodes))]


def _double_node(model: onnx.ModelProto, rng: Random) -> None:
    nodes = _nodes(model, rng)
    nodes.append(_copy(_node(model, rng)))


def _swap_nodes(model: onnx.ModelProto, rng: Random) -> None:
    one, other = _node(model, rng), _node(model, rng)
    copies = _copy(one), _copy(other)
    one.CopyFrom(copies[1])
    other.CopyFrom(copies[0])


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    """Taken before anything changes: one node may lie in a branch of the other, and protobuf would crash."""
    result = onnx.NodeProto()
    result.CopyFrom(node)
    return result


def _rename_input(model: onnx.ModelProto, rng: Random) -> None:
    node = _node(model, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = _name(model, rng)


def _rename_output(model: onnx.ModelProto, rng: Random) -> None:
    node = _node(model, rng)
    if node.output:
        node.output[rng.randrange(len(node.output))] = _name(model, rng)


def _more_or_fewer_names(model: onnx.ModelProto, rng: Random) -> None:
    node = _node(model, rng)
    field = rng.choice((node.input, node.output))
    if field and rng.random() < 0.6:
        del field[rng.randrange(len(field)) if rng.random() < 0.7 else 0 :]
    else:
        field.append(_name(model, rng))


def _other_operator(model: onnx.ModelProto, rng: Random) -> None:
    node = _node(model, rng)
    node.op_type = rng.choice(FUSED)
    if rng.random() < 0.3:
        node.domain = rng.choice(DOMAINS)


def _other_node_name(model: onnx.ModelProto, rng: Random) -> None:
    _node(model, rng).name = rng.choice((*NAMES, _node(model, rng).name))


def _attribute(model: onnx.ModelProto, rng: Random) -> AttributeProto:
    """An attribute, mostly one that is there, of any node."""
    for _ in range(20):
        node = _node(model, rng)
        if node.attribute:
            return rng.choice(node.attribute)
    return node.attribute.add(name=rng.choice(("axis", "perm", "to", "axes", "value", "equation")))


def _attribute_value(model: onnx.ModelProto, rng: Random) -> None:
    attribute = _attribute(model, rng)
    how = rng.randrange(8)
    if how == 0:
        attribute.i = rng.choice(SIZES)
    elif how == 1:
        attribute.f = rng.choice((0.0, float("nan"), float("inf"), -1e38))
    elif how == 2:
        attribute.s = rng.choice((b"", b"\xff", b"ij,jk->ik", b"a" * 1000))
    elif how == 3:
        attribute.ints.append(rng.choice(SIZES))
    elif how == 4:
        del attribute.ints[rng.randrange(len(attribute.ints) + 1) :]
    elif how == 5:
        attribute.t.CopyFrom(_tensor(model, rng))
    elif how == 6:
        attribute.ref_attr_name = rng.choice(NAMES)
    else:
        attribute.floats.append(1.0)


def _attribute_type(model: onnx.ModelProto, rng: Random) -> None:
    _attribute(model, rng).type = rng.choice(AttributeProto.AttributeType.values())


def _attribute_name(model: onnx.ModelProto, rng: Random) -> None:
    _attribute(model, rng).name = rng.choice((*NAMES, _attribute(model, rng).name))


def _drop_attribute(model: onnx.ModelProto, rng: Random) -> None:
    node = _node(model, rng)
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def _tensor(model: onnx.ModelProto, rng: Random) -> TensorProto:
    constants = [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    tensors = [*model.graph.initializer, *constants]
    small = [tensor for tensor in tensors if len(tensor.dims) < 2]
    return rng.choice((small if rng.random() < 0.6 else tensors) or [TensorProto()])


def _tensor_dims(model: onnx.ModelProto, rng: Random) -> None:
    dims = _tensor(model, rng).dims
    if dims and rng.random() < 0.6:
        dims[rng.randrange(len(dims))] = rng.choice(SIZES)
    else:
        dims.append(rng.choice(SIZES))


def _tensor_type(model: onnx.ModelProto, rng: Random) -> None:
    _tensor(model, rng).data_type = rng.randrange(-1, 30)


def _tensor_data(model: onnx.ModelProto, rng: Random) -> None:
    tensor = _tensor(model, rng)
    how = rng.randrange(5)
    if how == 0:
        tensor.raw_data = tensor.raw_data[:-1]
    elif how == 1:
        tensor.raw_data = rng.randbytes(len(tensor.raw_data))
    elif how == 2:
        tensor.int64_data.append(rng.choice(SIZES))
    elif how == 3:
        tensor.ClearField("raw_data")
    else:
        tensor.name = _name(model, rng)


def _tensor_external(model: onnx.ModelProto, rng: Random) -> None:
    tensor = _tensor(model, rng)
    tensor.data_location = TensorProto.EXTERNAL
    values: Sequence[str] = ("w.bin", "../w.bin", "/etc/passwd", "", ".", "-1", "1e9", "0", "16", str(2**70), "\0", "é")
    for key in ("location", "offset", "length", "checksum"):
        if rng.random() < 0.7:
            tensor.external_data.add(key=key, value=rng.choice(values))


def _drop_tensor(model: onnx.ModelProto, rng: Random) -> None:
    tensors = model.graph.initializer
    if tensors:
        del tensors[rng.randrange(len(tensors))]


def _double_tensor(model: onnx.ModelProto, rng: Random) -> None:
    if model.graph.initializer:
        model.graph.initializer.append(rng.choice(model.graph.initializer))


def _value_type(model: onnx.ModelProto, rng: Random) -> None:
    graph = model.graph
    value = rng.choice([*graph.input, *graph.output, *graph.value_info] or [graph.input.add()])
    tensor = value.type.tensor_type
    how = rng.randrange(6)
    if how == 0:
        tensor.elem_type = rng.randrange(-1, 30)
    elif how == 1:
        tensor.ClearField("shape")
    elif how == 2:
        tensor.shape.dim.add(dim_value=rng.choice(SIZES))
    elif how == 3 and tensor.shape.dim:
        tensor.shape.dim[0].dim_value = rng.choice(SIZES)
    elif how == 4:
        value.type.ClearField("tensor_type")
    else:
        value.name = _name(model, rng)


def _version(model: onnx.ModelProto, rng: Random) -> None:
    if rng.random() < 0.3:
        model.ir_version = rng.choice(VERSIONS)
    elif model.opset_import:
        rng.choice(model.opset_import).version = rng.choice(VERSIONS)
    if rng.random() < 0.2:
        model.opset_import.add(domain=rng.choice(DOMAINS), version=rng.choice(VERSIONS))


def _node_into_function(model: onnx.ModelProto, rng: Random) -> None:
    """A call of a function that may call itself."""
    node = _copy(_node(model, rng))
    name = rng.choice(("one", "two"))
    call = onnx.NodeProto(op_type=rng.choice(("one", "two")), domain="f", input=node.input, output=node.output)
    function = model.functions.add(name=name, domain="f", input=node.input, output=node.output)
    function.opset_import.extend([*model.opset_import, onnx.helper.make_opsetid("f", 1)])
    function.node.extend([node, call][: rng.choice((1, 2))])
    _node(model, rng).CopyFrom(call)


def _node_into_branch(model: onnx.ModelProto, rng: Random) -> None:
    node, inner = _node(model, rng), onnx.GraphProto(name="branch")
    inner.node.add().CopyFrom(node)
    inner.output.extend(onnx.ValueInfoProto(name=name) for name in node.output)
    other = onnx.NodeProto(op_type=rng.choice(("If", "Loop", "Scan")), input=[_name(model, rng)], output=node.output)
    for name in ("then_branch", "else_branch", "body"):
        other.attribute.add(name=name, type=AttributeProto.GRAPH).g.CopyFrom(inner)
    node.CopyFrom(other)


MUTATIONS: Sequence[Callable[[onnx.ModelProto, Random], None]] = (
    _drop_node, _double_node, _swap_nodes, _rename_input, _rename_input, _rename_output, _more_or_fewer_names,
    _other_operator, _other_node_name, _attribute_value, _attribute_value, _attribute_type, _attribute_name,
    _drop_attribute, _tensor_dims, _tensor_type, _tensor_data, _tensor_external, _drop_tensor, _double_tensor,
    _value_type, _version, _node_into_function, _node_into_branch,
)  # fmt: skip
