"""How many heads a product of queries and keys has, from shapes or from the reshape that made them."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from hccs_onnx.graph.view import Dim, GraphView

_ELEMENTWISE = ("Mul", "Div", "Add", "Sub", "Cast", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear")
_PROJECTIONS = ("MatMul", "Gemm", "MatMulInteger")
_OTHER_AXES = (*_PROJECTIONS, "Gather", "Squeeze", "Unsqueeze")  # behind them axes count differently
_FIRST_INPUT = (
    "Reshape", "Transpose", "Identity", "Cast", "Unsqueeze", "Squeeze", "Split", "Slice", "Gather", "QuantizeLinear",
    "DequantizeLinear", "Expand",
)  # fmt: skip
_DEPTH = 24


def count_heads(
    view: GraphView, logits: str, query: str, head_axis: int = -3, *, moved: bool = False, reshaped: bool = False
) -> int | None:
    """Number of heads of attention.

    Parameters
    ----------
    view : GraphView
        The model.
    logits : str
        Input of the Softmax.
    query : str
        Queries of the query-key product.
    head_axis : int
        Axis of the queries that becomes the third last of the logits.
    moved, reshaped : bool
        Whether a Transpose of these axes, or a Reshape, lies between product and Softmax, so that the axes of the
        queries do not tell those of the logits.

    Returns
    -------
    int or None
        For logits (..., head, query, key) the size of that axis. For logits (batch*heads, query, key) the heads that a
        reshape of the queries made, 1 if none did. 1 below rank 3, and where another axis may lie in the heads' place,
        as in (batch, query, head, key). None if it cannot be told.

    Examples
    --------
    >>> count_heads(view, "logits", "q")  # doctest: +SKIP
    12
    """
    dims = view.dims(logits) or partial_dims(view, query)
    if dims is None:
        return None
    if len(dims) < 3:
        return 1
    if moved:
        return dims[-3] if isinstance(dims[-3], int) else None
    if len(dims) == 3:
        split = _split_heads(view, query, axis=0, folded=True)
        if split and (not isinstance(dims[0], int) or dims[0] % split == 0):
            return split
        return None if _is_reshaped(view, query) else 1
    if isinstance(dims[-3], int):
        return dims[-3]
    if reshaped:  # (batch*heads, query, key) to (batch, head, query, key); (batch, query*head, key) has no heads there
        return _split_heads(view, query, axis=0, folded=True) or 1
    made = partial_dims(view, query)
    if made is not None and len(made) >= -head_axis:
        size = made[head_axis]
        if isinstance(size, int):
            return size
    return _split_heads(view, query, axis=4 + head_axis, folded=False) if len(dims) == 4 else None


def self_attention(view: GraphView, query: str, key: str) -> bool:
    """Whether queries and keys are projections of one tensor, so that row i and key i are one position."""
    sources = {projected(view, query), projected(view, key)}
    return len(sources) == 1 and None not in sources


def partial_dims(view: GraphView, name: str, depth: int = _DEPTH) -> tuple[Dim, ...] | None:
    """Shape of a tensor where shape inference gave up, followed through reshapes and transposes."""
    known = view.dims(name)
    node = view.producer(name)
    if node is None or depth == 0 or (known is not None and all(isinstance(dim, int) for dim in known)):
        return known
    if node.op == "Reshape":
        return _reshape_target(view, node.inputs[1].name) or known
    if node.op == "Transpose":
        dims = partial_dims(view, node.inputs[0].name, depth - 1)
        order = node.attrs.get("perm")
        if dims is None or order is None or len(order) != len(dims):
            return known
        return tuple(dims[axis] for axis in order)
    if node.op in _ELEMENTWISE:
        data = next((t.name for t in node.inputs if not view.is_constant(t.name)), node.inputs[0].name)
        return partial_dims(view, data, depth - 1) or known
    return known


def _reshape_target(view: GraphView, shape: str) -> tuple[Dim, ...] | None:
    """What is constant in the shape input of a Reshape."""
    value = view.constant(shape)
    if value is not None:
        return tuple(int(dim) if dim > 0 else None for dim in value)
    node = view.producer(shape)
    if node is None or node.op != "Concat":
        return None
    dims: list[Dim] = []
    for part in node.inputs:
        piece = view.constant(part.name)
        if piece is not None:
            dims += [int(dim) if dim > 0 else None for dim in piece.reshape(-1)]
        elif view.dims(part.name) == (1,) or _is_one_number(view, part.name):
            dims.append(None)
        else:
            return None
    return tuple(dims)


def _is_one_number(view: GraphView, name: str) -> bool:
    node = view.producer(name)
    return node is not None and node.op == "Unsqueeze" and view.dims(node.inputs[0].name) in ((), None)


def _is_reshaped(view: GraphView, name: str) -> bool:
    """Whether a Reshape lies between a tensor and the projection that it comes from."""
    for _ in range(_DEPTH):
        node = view.producer(name)
        if node is None or node.op in _PROJECTIONS:
            return False
        if node.op == "Reshape":
            return True
        name = _data_input(view, node)
    return False


def _split_heads(view: GraphView, query: str, axis: int, folded: bool) -> int | None:
    """Heads that the reshapes made which the queries went through.

    Parameters
    ----------
    view : GraphView
        The model.
    query : str
        The queries.
    axis : int
        Axis of the queries that holds the heads.
    folded : bool
        Whether the batch is in that axis as well, outermost.
    """
    name = query
    for _ in range(_DEPTH):
        node = view.producer(name)
        source = _data_input(view, node) if node is not None else ""
        if node is None or source == "" or node.op in _OTHER_AXES:
            return None
        if node.op == "Transpose":
            axis = node.attrs["perm"][axis] if "perm" in node.attrs else -1 - axis
        elif node.op == "Reshape":
            before = partial_dims(view, source)
            after = _reshape_target(view, node.inputs[1].name) or view.dims(name)
            width = _width(view, source)
            if after is None:
                return None
            narrow = after[-1]
            if width is not None and isinstance(narrow, int) and axis == len(after) - 2 and width > narrow > 0:
                return width // narrow if width % narrow == 0 else None  # (..., E) to (..., [batch*]heads, d)
            if not folded or before is None or len(before) != len(after) + 1:
                return None
            if isinstance(before[axis], int) and before[axis] == after[axis] != 1:
                return None  # it is not (batch, heads) that is folded
            axis, folded = axis + 1, False
        name = source
    return None


def _width(view: GraphView, name: str) -> int | None:
    """Size of the last axis, also where only the weights of a projection tell."""
    for _ in range(_DEPTH):
        dims = view.dims(name)
        if dims and isinstance(dims[-1], int):
            return dims[-1]
        node = view.producer(name)
        if node is None or node.op not in (*_ELEMENTWISE, "MatMul"):
            return None
        for tensor in node.inputs:
            dims = view.dims(tensor.name) if view.is_constant(tensor.name) else None
            if dims and isinstance(dims[-1], int) and dims[-1] > 1:
                return dims[-1]
        name = _data_input(view, node)
    return None


def _data_input(view: GraphView, node: gs.Node) -> str:
    """The one input of a linear or moving node that is not constant, or an empty name."""
    if node.op in _FIRST_INPUT:
        return str(node.inputs[0].name)
    if node.op == "MatMulInteger" and view.is_constant(node.inputs[1].name):
        return str(node.inputs[0].name)
    if node.op in ("Mul", "Div", "Add", "MatMul", "Gemm"):
        data = [tensor.name for tensor in node.inputs if not view.is_constant(tensor.name)]
        if len(data) > 1:  # a computed scale or bias
            data = [name for name in data if (dims := view.dims(name)) is None or len(dims) > 1]
        if len(data) == 1:
            return str(data[0])
    return ""


def projected(view: GraphView, name: str) -> str | None:
    """The tensor that queries, keys or values are a linear projection of; None if they are none."""
    for _ in range(2 * _DEPTH):
        node = view.producer(name)
        name = _data_input(view, node) if node is not None else ""
        if node is None or name == "":
            return None
        if node.op in _PROJECTIONS:
            return name
    return None
