"""Removing what nothing reads any more."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

import onnx

from hccs_onnx.graph.names import count_uses


def without_dead(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], loose: list[str]) -> list[onnx.NodeProto]:
    """Leave out the nodes and initializers that only made what dropped nodes read (`loose`), and so on upwards."""
    count = count_uses(nodes, graph.output)
    makers = {name: index for index, node in enumerate(nodes) for name in node.output}
    dead_nodes: set[int] = set()
    dead: set[str] = set()
    while loose:
        name = loose.pop()
        if name == "" or count[name] or name in dead:
            continue
        dead.add(name)
        maker = makers.get(name)
        if maker is not None and not any(count[output] for output in nodes[maker].output):
            dead_nodes.add(maker)
            count.subtract(nodes[maker].input)
            loose += nodes[maker].input
    # Before IR version 4 initializers are inputs as well; without one the input would have to be fed.
    dead -= {value.name for value in graph.input}
    keep_entries(graph.initializer, [tensor.name not in dead for tensor in graph.initializer])
    return [node for index, node in enumerate(nodes) if index not in dead_nodes]


def keep_entries(field: MutableSequence[Any], wanted: list[bool]) -> None:
    """Delete the entries of a repeated field that are not wanted, without copying the others."""
    for position in reversed([index for index, keep in enumerate(wanted) if not keep]):
        del field[position]
