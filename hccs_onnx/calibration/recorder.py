"""Watching tensors inside bodies, which cannot be outputs of the model: a Python operator hands them on when made.

The operator's output is read by nothing; onnxruntime runs it all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from hccs_onnx.graph.names import NameGenerator
from hccs_onnx.graph.scopes import Place, graph_at
from hccs_onnx.reference import Array

if TYPE_CHECKING:
    import onnxruntime as ort

_DOMAIN, _OP = "hccs_recorder", "Record"

Taker = Callable[[str, Array], None]
_taker: list[Taker] = []
_failures: list[Exception] = []


def record(model: onnx.ModelProto, tensors: Sequence[tuple[Place, str]]) -> onnx.ModelProto:
    """`model` (changed in place) with an operator behind each tensor that hands it on as float32.

    Parameters
    ----------
    model : onnx.ModelProto
        Names are unique in it.
    tensors : sequence of (Place, str)
        The graph in which a tensor is read or made, and its name.
    """
    names = NameGenerator(model.graph)
    for place, name in sorted(
        dict.fromkeys(tensors), key=lambda tensor: -len(tensor[0])
    ):  # added nodes move outer places
        graph = graph_at(model, place)
        makers = [index for index, node in enumerate(graph.node) if name in node.output]
        position = makers[0] + 1 if makers else 0  # what comes from outside is there from the start
        x, z = names.fresh(f"{name}/float"), names.fresh(f"{name}/recorded")
        added = [
            helper.make_node("Cast", [name], [x], to=TensorProto.FLOAT),
            helper.make_node(_OP, [x], [z], domain=_DOMAIN, tensor=name),
        ]
        nodes = [*graph.node[:position], *added, *graph.node[position:]]
        data = [node.SerializeToString() for node in nodes]
        del graph.node[:]
        graph.node.extend(onnx.NodeProto.FromString(item) for item in data)
    if tensors:
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return model


@contextmanager
def recording(take: Taker) -> Iterator[None]:
    """While the block runs, hand recorded tensors to `take`; what that raises is raised at the end of the block."""
    _taker.append(take)
    _failures.clear()
    try:
        yield
    finally:
        _taker.pop()
    if _failures:
        raise _failures[0]


def recording_options() -> ort.SessionOptions:
    """Options of a session that records."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.register_custom_ops_library(register())
    return options


@cache
def register() -> str:
    """Define the operator, once a process; returns the library to register."""
    import onnxruntime_extensions as extensions

    types = extensions.PyCustomOpDef

    @extensions.onnx_op(  # type: ignore[untyped-decorator, unused-ignore]
        op_type=f"{_DOMAIN}::{_OP}",
        inputs=[types.dt_float],
        outputs=[types.dt_float],
        attrs={"tensor": types.dt_string},
    )
    def taken(x: Array, tensor: str) -> Array:
        try:  # an exception that leaves a Python operator would end the process
            if _taker and not _failures:
                _taker[-1](tensor, x)
        except Exception as error:
            _failures.append(error)
        return np.zeros((), np.float32)

    return str(extensions.get_library_path())
