"""Small models with attention in the ways in which exporters write it, as `onnx.parser` text with random weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

from hccs_onnx.params import HeadParams

LOWEST = -3.4028234663852886e38  # torch.finfo(float32).min
RAW, LOGITS, PROBABILITIES = "raw", "logits", "probabilities"
"""Tensors of every attention: the query-key product, what Softmax reads, what it makes."""

ONNX_TYPES = {"float": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


@dataclass(frozen=True)
class Attention:
    """One attention: inputs `x` (and `mask`, `memory`), output `y`.

    Parameters
    ----------
    layout : str
        ``heads`` (batch, head, n, d); ``folded`` (batch*head, n, d) as torch's nn.MultiheadAttention folds it, from x
        of shape (n, batch, e); ``single`` (batch, n, e) without heads; ``flat`` (n, e); ``windows``
        (batch, w, head, n, d).
    projection : str
        ``separate`` or ``split`` (one product, Split) or ``stacked`` (one product, Gather).
    scale : str or None
        ``mul`` or ``div`` of the logits, ``query``, ``query_key``, ``computed`` (from the shape, on the logits).
    factor : float or None
        What logits are multiplied with, default 1/sqrt(d).
    mask : str or None
        ``causal`` (constant), ``computed`` ((1 - mask) * fill), ``chosen`` (Where(mask, 0, fill) added), ``where``
        (Where(mask, logits, fill)), ``where_reversed``, ``bias`` (constant, finite), ``input`` (float, added).
    fill : float
        What masks.
    dropout, identity, cast, guard : bool
        What stands behind Softmax; `cast`: float32 Softmax in a model of `dtype`.
    cross : bool
        Keys and values come from the input `memory`.
    known_shapes : bool
        False: shape inference does not get beyond the input.
    """

    layout: str = "heads"
    projection: str = "separate"
    scale: str | None = "div"
    factor: float | None = None
    mask: str | None = None
    fill: float = -1e4
    dropout: bool = False
    identity: bool = False
    cast: bool = False
    guard: bool = False
    cross: bool = False
    opset: int = 17
    ir_version: int = 8
    heads: int = 3
    size: int = 4
    batch: int | str = "batch"
    length: int | str = "n"
    known_shapes: bool = True
    dtype: str = "float"

    @property
    def width(self) -> int:
        """Size of a token."""
        return self.heads * self.size

    @property
    def logit_factor(self) -> float:
        """What the product is multiplied with."""
        if self.scale is None:
            return 1.0
        return float(np.float32(self.size**-0.5 if self.factor is None else self.factor))

    def model(self) -> onnx.ModelProto:
        """The model."""
        writer = _Writer(self)
        writer.write()
        inputs = [f"{self.dtype}[{writer.x_shape}] x"]
        if self.cross:
            inputs.append(f"{self.dtype}[{writer.memory_shape}] memory")
        if self.mask in ("computed", "chosen", "where", "where_reversed"):
            inputs.append(f"int64[{self.batch}, {'m' if self.cross else self.length}] mask")
        if self.mask == "input":
            inputs.append(f"{self.dtype}[{self.batch}, 1, 1, {'m' if self.cross else self.length}] mask")
        output = f"{self.dtype}[{writer.x_shape}] y"
        text = f"attention ({', '.join(inputs)}) => ({output}) {{ {' '.join(writer.lines)} }}"
        return build(text, writer.initializers, opset=self.opset, ir_version=self.ir_version)

    def feed(self, batch: int = 2, length: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
        """Inputs; the mask hides the last positions of every second sample."""
        rng = np.random.default_rng(seed)
        batch = self.batch if isinstance(self.batch, int) else batch
        length = self.length if isinstance(self.length, int) else length
        keys = length + 2 if self.cross else length
        shape = {
            "folded": (length, batch, self.width),
            "flat": (length, self.width),
            "windows": (batch, 2, length, self.width),
        }
        dtype = helper.tensor_dtype_to_np_dtype(ONNX_TYPES[self.dtype])
        feed = {"x": rng.normal(size=shape.get(self.layout, (batch, length, self.width))).astype(dtype)}
        if self.cross:
            feed["memory"] = rng.normal(size=(batch, keys, self.width)).astype(dtype)
        mask = np.ones((batch, keys), np.int64)
        mask[::2, keys - 2 :] = 0
        if self.mask == "input":
            feed["mask"] = np.where(mask == 1, 0, self.fill).astype(dtype).reshape(batch, 1, 1, keys)
        elif self.mask not in (None, "causal", "bias"):
            feed["mask"] = mask
        return feed


class _Writer:
    """Lines of the graph, and its weights."""

    def __init__(self, variant: Attention) -> None:
        self.v = variant
        self.lines: list[str] = []
        self.initializers: dict[str, np.ndarray | TensorProto] = {}
        self._rng = np.random.default_rng(7)
        v = variant
        shapes = {
            "folded": f"{v.length}, {v.batch}, {v.width}",
            "flat": f"{v.length}, {v.width}",
            "windows": f"{v.batch}, 2, {v.length}, {v.width}",
        }
        self.x_shape = shapes.get(v.layout, f"{v.batch}, {v.length}, {v.width}")
        self.memory_shape = f"{v.batch}, m, {v.width}"

    def add(self, line: str) -> None:
        self.lines.append(line)

    def constant(self, name: str, value: object, dtype: Any = None) -> str:
        if dtype is None and self.v.dtype == "bfloat16":
            array = np.asarray(value, np.float32)
            self.initializers[name] = helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, array.reshape(-1))
        else:
            kind = helper.tensor_dtype_to_np_dtype(ONNX_TYPES[self.v.dtype]) if dtype is None else dtype
            self.initializers[name] = np.asarray(value).astype(kind)
        return name

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, self._rng.normal(size=shape) * 1.6 * self.v.width**-0.5)

    def axes(self, op: str, output: str, data: str, axes: list[int]) -> None:
        """Squeeze or Unsqueeze, whose axes became an input."""
        if self.v.opset < 13:
            self.add(f"{output} = {op} <axes = {axes}> ({data})")
        else:
            self.constant(f"{output}_axes", axes, np.int64)
            self.add(f"{output} = {op} ({data}, {output}_axes)")

    def write(self) -> None:
        self.project()
        self.scale_projected()
        self.add("raw = MatMul (q, k)")
        name = self.scale_logits("raw")
        name = self.mask(name)
        if self.v.cast:
            self.add(f"logits = Cast <to = 1> ({name})")
        else:
            self.lines[-1] = self.lines[-1].replace(f"{name} =", "logits =", 1)
            if name == "raw":  # keep both names
                self.lines[-1] = "raw = MatMul (q, k)"
                self.add("logits = Identity (raw)")
        self.add("probabilities = Softmax <axis = -1> (logits)")
        self.behind("probabilities")
        self.join()

    def project(self) -> None:
        v, e = self.v, self.v.width
        x = "x"
        if not v.known_shapes:  # no shape inference follows a computed number of dimensions
            self.constant("all", [True] * 3, bool)
            self.add("x_shape = Shape (x) any_shape = Compress (x_shape, all) tokens = Reshape (x, any_shape)")
            x = "tokens"
        if v.projection == "separate":
            source = "memory" if v.cross else x
            for name, data in (("q", x), ("k", source), ("v", source)):
                self.weight(f"w_{name}", e, e)
                self.add(f"{name}_flat = MatMul ({data}, w_{name})")
        else:
            self.weight("w_qkv", e, 3 * e)
            self.add(f"qkv = MatMul ({x}, w_qkv)")
        if v.projection == "stacked":
            self.constant("stack", [0, 0, 3, v.heads, v.size], np.int64)
            self.add("qkv_stacked = Reshape (qkv, stack) qkv_moved = Transpose <perm = [2, 0, 3, 1, 4]> (qkv_stacked)")
            for index, name in enumerate("qkv"):
                self.constant(f"index_{name}", index, np.int64)
                output = "k_upright" if name == "k" else name
                self.add(f"{output} = Gather <axis = 0> (qkv_moved, index_{name})")
            self.add("k = Transpose <perm = [0, 1, 3, 2]> (k_upright)")
            return
        if v.projection == "split":
            if v.opset < 13:
                self.add(f"q_flat, k_flat, v_flat = Split <axis = -1, split = [{e}, {e}, {e}]> (qkv)")
            else:
                self.constant("sizes", [e, e, e], np.int64)
                self.add("q_flat, k_flat, v_flat = Split <axis = -1> (qkv, sizes)")
        split, upright, turned = {
            "heads": ([0, 0, v.heads, v.size], [0, 2, 1, 3], [0, 2, 3, 1]),
            "folded": (self.folded_shape(), [1, 0, 2], [1, 2, 0]),
            "windows": ([0, 0, 0, v.heads, v.size], [0, 1, 3, 2, 4], [0, 1, 3, 4, 2]),
            "single": (None, None, [0, 2, 1]),
            "flat": (None, None, [1, 0]),
        }[v.layout]
        if split is not None:
            self.constant("split", split, np.int64)
        for name in "qkv":
            data = f"{name}_flat"
            if split is not None:
                self.add(f"{name}_split = Reshape ({data}, split)")
                data = f"{name}_split"
            order = turned if name == "k" else upright
            self.add(
                f"{name} = Identity ({data})" if order is None else f"{name} = Transpose <perm = {order}> ({data})"
            )

    def folded_shape(self) -> list[int]:
        if isinstance(self.v.batch, int):
            return [-1, self.v.batch * self.v.heads, self.v.size]
        return [0, -1, self.v.size]

    def scale_projected(self) -> None:
        v = self.v
        if v.scale not in ("query", "query_key"):
            return
        both = v.scale == "query_key"
        self.constant("factor", v.logit_factor**0.5 if both else v.logit_factor)
        for name in "qk" if both else "q":
            self.lines = [line.replace(f"{name} =", f"{name}_unscaled =") for line in self.lines]
            self.add(f"{name} = Mul ({name}_unscaled, factor)")

    def scale_logits(self, name: str) -> str:
        v = self.v
        if v.scale == "mul":
            self.constant("factor", v.logit_factor)
            self.add(f"scaled = Mul ({name}, factor)")
        elif v.scale == "div":
            self.constant("divisor", 1 / v.logit_factor)
            self.add(f"scaled = Div ({name}, divisor)")
        elif v.scale == "computed":
            self.constant("last", [-1], np.int64)
            self.add("q_shape = Shape (q) size = Gather (q_shape, last)")
            self.add(f"float_size = Cast <to = {ONNX_TYPES[v.dtype]}> (size) divisor = Sqrt (float_size)")
            self.add(f"scaled = Div ({name}, divisor)")
        else:
            return name
        return "scaled"

    def mask(self, name: str) -> str:
        v = self.v
        if v.mask is None:
            return name
        if v.mask == "causal":
            n = int(v.length)
            self.constant("addend", np.where(np.tri(n, dtype=bool), 0, v.fill))
        elif v.mask == "bias":
            n = int(v.length)
            self.constant("addend", self._rng.normal(size=(v.heads, n, n)))
        elif v.mask == "input":
            self.add("addend = Identity (mask)")
        else:
            self.axes("Unsqueeze", "mask_4d", "mask", [1, 2])
            if v.layout == "windows":
                self.axes("Unsqueeze", "mask_5d", "mask_4d", [1])
            wide = "mask_5d" if v.layout == "windows" else "mask_4d"
            if v.mask == "computed":
                self.constant("one", 1)
                self.constant("fill", v.fill)
                self.add(f"mask_float = Cast <to = {ONNX_TYPES[v.dtype]}> ({wide}) hidden = Sub (one, mask_float)")
                self.add("addend = Mul (hidden, fill)")
            else:
                self.constant("fill", v.fill)
                self.add(f"keep = Cast <to = 9> ({wide})")
        if v.mask == "where":
            self.add(f"masked = Where (keep, {name}, fill)")
        elif v.mask == "where_reversed":
            self.add(f"hide = Not (keep) masked = Where (hide, fill, {name})")
        else:
            if v.mask == "chosen":
                self.constant("zero", 0)
                self.add("addend = Where (keep, zero, fill)")
            self.add(f"masked = Add ({name}, addend)")
        return "masked"

    def behind(self, name: str) -> None:
        v = self.v
        if v.guard:
            self.constant("nan_fill", 0)
            self.add(f"is_nan = IsNaN ({name}) guarded = Where (is_nan, nan_fill, {name})")
            name = "guarded"
        if v.cast:
            self.add(f"narrow = Cast <to = {ONNX_TYPES[v.dtype]}> ({name})")
            name = "narrow"
        if v.dropout:
            if v.opset < 12:
                self.add(f"dropped = Dropout <ratio = 0.25> ({name})")
            else:
                self.constant("ratio", 0.25, np.float32)
                self.add(f"dropped = Dropout ({name}, ratio)")
            name = "dropped"
        if v.identity:
            self.add(f"same = Identity ({name})")
            name = "same"
        self.add(f"context = MatMul ({name}, v)")

    def join(self) -> None:
        v = self.v
        self.weight("w_out", v.width, v.width)
        order, shape = {
            "heads": ([0, 2, 1, 3], [0, 0, v.width]),
            "folded": ([1, 0, 2], [0, -1, v.width]),
            "windows": ([0, 1, 3, 2, 4], [0, 0, 0, v.width]),
        }.get(v.layout, (None, None))
        name = "context"
        if order is not None:
            self.constant("join", shape, np.int64)
            self.add(f"moved = Transpose <perm = {order}> (context) joined = Reshape (moved, join)")
            name = "joined"
        self.add(f"y = MatMul ({name}, w_out)")


def name_of(value: object) -> str | None:
    """Name of a test parameter: the options of a variant that are not the default."""
    if not isinstance(value, Attention):
        return None
    changed = {k: v for k, v in vars(value).items() if v != getattr(Attention, k)}
    return " ".join(f"{k}={v}" for k, v in changed.items()) or "default"


def build(
    text: str,
    initializers: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    domains: str = "",
    functions: str = "",
) -> onnx.ModelProto:
    """A model from the text of its graph; nodes are named after operator and first output.

    Parameters
    ----------
    text : str
        ``name (inputs) => (outputs) { nodes }``.
    initializers : mapping of str to array or TensorProto
        Weights.
    opset, ir_version : int
        Versions.
    domains, functions : str
        More opset imports (``, "f": 1``), text of model-local functions.
    """
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]>'
    model = parser.parse_model(f"{header} {text} {functions}")
    for name, value in (initializers or {}).items():
        tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        model.graph.initializer.append(tensor)
    for node in model.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    return model


def tapped(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """A copy with tensors as further outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy."""
    return tapped(model)


def nodes(model: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    """Nodes of the main graph of one type."""
    return [node for node in model.graph.node if node.op_type == op_type]


def op_types(model: onnx.ModelProto) -> list[str]:
    """Operators of the main graph, in order."""
    return [node.op_type for node in model.graph.node]


def names(field: Iterable[Any]) -> list[str]:
    """Names of the entries of a repeated field."""
    return [entry.name for entry in field]


def head_params(count: int, clip_range: float = 3.0) -> tuple[HeadParams, ...]:
    """Parameters that differ from head to head, all legal."""
    heads = []
    for index in range(count):
        clip = 40 + 20 * index
        slope = 30 + 7 * index
        heads.append(HeadParams(slope * clip + 50 + index, slope, clip, (clip_range + index / 4) / clip))
    return tuple(heads)
