"""The part of a model that some of its tensors depend on."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from hccs_onnx.graph.names import count_uses


def prefix(
    model: onnx.ModelProto, outputs: Sequence[str], given: Sequence[onnx.ValueInfoProto] = ()
) -> onnx.ModelProto:
    """A model of the nodes that `outputs` need, with these as its outputs; onnxruntime works out their types.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed; external data need not be loaded.
    outputs : sequence of str
        Tensors of the main graph.
    given : sequence of onnx.ValueInfoProto
        Tensors that need not be computed: further inputs.

    Returns
    -------
    onnx.ModelProto
        With all inputs of `model`, so that the same feeds fit, and only the initializers that are read.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float x) => (float y) { z = Neg (x) y = Abs (z) }'
    >>> [node.op_type for node in prefix(onnx.parser.parse_model(text), ["z"]).graph.node]
    ['Neg']
    """
    graph = model.graph
    read, wanted = _needed(graph, outputs, {value.name for value in given})
    result = onnx.ModelProto(ir_version=model.ir_version)
    result.opset_import.extend(model.opset_import)
    result.functions.extend(model.functions)
    result.graph.name = graph.name
    result.graph.node.extend(graph.node[index] for index in sorted(wanted))
    constants = {tensor.name for tensor in graph.initializer} - read
    result.graph.input.extend(value for value in (*graph.input, *given) if value.name not in constants)
    result.graph.initializer.extend(tensor for tensor in graph.initializer if tensor.name in read)
    result.graph.sparse_initializer.extend(tensor for tensor in graph.sparse_initializer if tensor.values.name in read)
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(outputs))
    return result


def crossing(model: onnx.ModelProto, border: str) -> list[str]:
    """Tensors from which a model can go on without the nodes that make `border`: what these make and others read.

    Parameters
    ----------
    model : onnx.ModelProto
        Not changed.
    border : str
        Tensor of the main graph.

    Returns
    -------
    list of str
        `border` too; nothing that depends on no input of the model, which is quickly made again.

    Examples
    --------
    >>> graph = "g (float x) => (float y) { a = Neg (x) b = Abs (a) y = Add (a, b) }"
    >>> crossing(onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> ' + graph), "b")
    ['a', 'b']
    """
    graph = model.graph
    _, inside = _needed(graph, [border], set())
    read = count_uses((node for index, node in enumerate(graph.node) if index not in inside), [])
    variable = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    names = []
    for index, node in enumerate(graph.node):  # in topological order
        if not variable.isdisjoint(count_uses([node], [])):
            variable.update(node.output)
            names += [name for name in node.output if name and index in inside and (read[name] or name == border)]
    return names


def _needed(graph: onnx.GraphProto, outputs: Sequence[str], given: set[str]) -> tuple[set[str], set[int]]:
    """Tensors that `outputs` need, themselves too, and positions of the nodes that make them."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name not in given}
    wanted: set[int] = set()
    read: set[str] = set()
    pending = list(outputs)
    while pending:
        name = pending.pop()
        if name in read or name == "":
            continue
        read.add(name)
        index = makers.get(name)
        if index is not None and index not in wanted:
            wanted.add(index)
            pending += count_uses([graph.node[index]], [])
    return read, wanted
