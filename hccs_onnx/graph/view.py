"""A read-only view of a graph: who makes and uses a tensor, its shape, and constants where they are small.

Navigation is onnx-graphsurgeon's, on a skeleton of the model without weights; the model itself is never changed by it,
so nothing that graphsurgeon does not keep (metadata, quantisation annotations, order) is lost.
"""

from __future__ import annotations

import logging
import math
from collections import ChainMap
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, numpy_helper
from onnx_graphsurgeon.logger import G_LOGGER

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.external import with_external_data
from hccs_onnx.graph.names import is_default_domain
from hccs_onnx.graph.scopes import Place, scopes
from hccs_onnx.graph.shapes import infer_shapes, skeleton
from hccs_onnx.reference import Array

Dim = int | str | None
logger = logging.getLogger(__name__)

DEFAULTS_IR_VERSION = 4  # from which initializers that are listed as inputs are defaults; before, all were listed
LOADABLE = 1 << 24  # elements; larger constants are not looked into


class GraphView:
    """Producers, consumers, shapes and small constants of a model's main graph; `views` has those of the bodies in it.

    A body sees the tensors of the graphs around it. Only its own nodes have a position.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where external data lies.

    Raises
    ------
    ModelError
        If the graph cannot be imported.

    Examples
    --------
    >>> from onnx import parser
    >>> model = parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[2,n] x) => (y) {y = Softmax (x)}')
    >>> view = GraphView(model, Path("."))
    >>> view.dims("y"), view.producer("y").op
    ((2, 'n'), 'Softmax')
    """

    def __init__(self, model: onnx.ModelProto, folder: Path) -> None:
        self.opset = next((entry.version for entry in model.opset_import if is_default_domain(entry.domain)), 0)
        self.place: Place = ()
        self.float_type = _only_float_type(model)
        self._defaults = _defaults(model)
        self._model = model
        self._folder = folder
        try:
            with G_LOGGER.suppress(G_LOGGER.CRITICAL + 1):  # it logs to stdout
                graph = gs.import_onnx(infer_shapes(skeleton(model, folder)))
        except Exception as error:  # graphsurgeon has no error class of its own
            problem = f"graph cannot be imported: {error}"
            raise ModelError(f"graph '{model.graph.name}'", problem, remedy="Run onnx.checker on it") from error
        self._initializers: ChainMap[str, TensorProto] = ChainMap()
        self._tensors: ChainMap[str, gs.Tensor] = ChainMap()
        self._enter(graph, model.graph)

    def _enter(self, graph: gs.Graph, proto: onnx.GraphProto) -> None:
        """Make `graph` the one that is viewed, inside the one viewed before."""
        self.nodes: list[gs.Node] = list(graph.nodes)
        self.outputs = {tensor.name for tensor in graph.outputs}
        self._initializers = self._initializers.new_child({tensor.name: tensor for tensor in proto.initializer})
        self._tensors = self._tensors.new_child(graph.tensors())
        self._index = {id(node): index for index, node in enumerate(self.nodes)}
        self._varying: set[str] = set()  # tensors that were found not to be constant

    def views(self) -> Iterator[GraphView]:
        """The view of the main graph, then one of each body, to any depth, each after that of the graph around it."""
        views: dict[Place, GraphView] = {}
        for place, proto in scopes(self._model):
            if place:
                outer = views[place[:-1]]
                view = copy(outer)
                view.place = place
                view._enter(outer.nodes[place[-1].node].attrs[place[-1].attribute], proto)
                views[place] = view
            else:
                views[place] = self
            yield views[place]

    def label(self, node: gs.Node) -> str:
        """What to call a node in a message: its name, or its output's if it has one, on one line."""
        return " ".join((node.name or "".join(tensor.name for tensor in node.outputs[:1])).split())

    def index(self, node: gs.Node) -> int:
        """Position of a node in the graph's node list; -1 for a node of a graph around it."""
        return self._index.get(id(node), -1)

    def producer(self, name: str) -> gs.Node | None:
        """Node that makes a tensor; None for inputs and initializers."""
        tensor = self._tensors.get(name)
        return tensor.inputs[0] if tensor is not None and tensor.inputs else None

    def consumers(self, name: str) -> list[gs.Node]:
        """Nodes that read a tensor, each once, those in bodies as well."""
        tensor = self._tensors.get(name)
        nodes = {id(node): node for node in (tensor.outputs if tensor is not None else [])}
        return list(nodes.values())

    def holds(self, node: gs.Node) -> bool:
        """Whether a node lies in this very graph, and so has a position: neither in a body nor in a graph around it."""
        return id(node) in self._index

    def uses(self, name: str) -> int:
        """How often a tensor is read, in bodies too, or is an output of the graph."""
        tensor = self._tensors.get(name)
        return (len(tensor.outputs) if tensor is not None else 0) + (name in self.outputs)

    def only_used_by(self, name: str, node: gs.Node) -> bool:
        """Whether `node` alone reads the tensor, once, and it is not an output of the graph."""
        tensor = self._tensors.get(name)
        return tensor is not None and name not in self.outputs and [id(n) for n in tensor.outputs] == [id(node)]

    def dims(self, name: str) -> tuple[Dim, ...] | None:
        """Shape, with names for dynamic axes; None where even the rank is not known."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.shape is None:
            return None
        return tuple(dim if dim != "" else None for dim in tensor.shape)

    def dtype(self, name: str) -> str | None:
        """Element type as NumPy spells it, ``bfloat16`` as such; None where it is not known."""
        tensor = self._tensors.get(name)
        dtype = None if tensor is None else tensor.dtype
        if dtype is None or dtype == 0:
            return None
        if isinstance(dtype, int):
            return str(TensorProto.DataType.Name(dtype)).lower()
        return str(np.dtype(dtype).name)

    def float_dtype(self, name: str) -> str | None:
        """`dtype`, or where it is not known the one floating-point type of the weights: a good guess."""
        return self.dtype(name) or self.float_type

    def is_constant(self, name: str) -> bool:
        """Whether a tensor depends on no model input (initializers, Constant nodes, and what is computed from them)."""
        pending, seen = [name], set()
        while pending:
            current = pending.pop()
            if current in seen or current == "":
                continue
            seen.add(current)
            if current in self._initializers or isinstance(self._tensors.get(current), gs.Constant):
                continue
            node = self.producer(current)
            # An input of the model, more than a constant's few steps, or bodies, which may read anything.
            if current in self._varying or node is None or len(seen) > 64 or holds_graphs(node):
                self._varying.add(name)
                return False
            pending += [tensor.name for tensor in node.inputs]
        return True

    def constant(self, name: str) -> Array | None:
        """Value of a constant, through Identity and Cast; None if it is not one, or too large to look into."""
        name = self._before_casts(name)
        initializer = self._initializers.get(name)
        if initializer is not None:
            if math.prod(initializer.dims) > LOADABLE:
                return None
            try:
                return numpy_helper.to_array(with_external_data(initializer, self._folder))
            except (OSError, ValueError) as error:
                logger.info("initializer '%s' cannot be read: %s", name, error)
                return None
        tensor = self._tensors.get(name)
        if isinstance(tensor, gs.Constant):
            with suppress(ValueError):  # a sparse initializer, of which the skeleton has no values
                return np.asarray(tensor.values)
            return None
        node = self.producer(name)
        if node is None:
            return None
        if node.op == "Constant":
            value = next(iter(node.attrs.values()), None)  # value, or one of value_float, value_ints, ...
            with G_LOGGER.suppress(G_LOGGER.CRITICAL + 1):  # it logs to stdout
                return None if value is None else np.asarray(getattr(value, "values", value))
        return None

    def may_be_fed(self, name: str) -> bool:
        """Whether the value of a constant is only the default of a model input."""
        return self._before_casts(name) in self._defaults

    def _before_casts(self, name: str) -> str:
        """The tensor that Identity and Cast make another of, however many there are; casts that truncate are none."""
        seen: set[str] = set()
        while name not in seen and name not in self._initializers:
            seen.add(name)
            node = self.producer(name)
            if node is None or node.op not in ("Identity", "Cast", "CastLike"):
                break
            before = node.inputs[0].name
            if self._is_float(before) is True and self._is_float(name) is False:
                break
            name = before
        return name

    def _is_float(self, name: str) -> bool | None:
        dtype = self.dtype(name)
        return None if dtype is None else "float" in dtype

    def scalar(self, name: str) -> float | None:
        """Value of a constant with one element."""
        dims = self.dims(name)
        if dims is not None and any(isinstance(dim, int) and dim != 1 for dim in dims):
            return None
        value = self.constant(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def holds_graphs(node: gs.Node) -> bool:
    """Whether a node has bodies, as If, Loop and Scan have."""
    return any(isinstance(value, gs.Graph) for value in node.attrs.values())


def _defaults(model: onnx.ModelProto) -> set[str]:
    """Initializers that are only defaults of inputs."""
    if model.ir_version < DEFAULTS_IR_VERSION:
        return set()
    return {value.name for value in model.graph.input} & {tensor.name for tensor in model.graph.initializer}


def _only_float_type(model: onnx.ModelProto) -> str | None:
    """The one floating-point type of the weights."""
    floats: dict[int, str] = {
        TensorProto.FLOAT: "float32",
        TensorProto.FLOAT16: "float16",
        TensorProto.BFLOAT16: "bfloat16",
    }
    types = {floats[tensor.data_type] for tensor in model.graph.initializer if tensor.data_type in floats}
    return types.pop() if len(types) == 1 else None
