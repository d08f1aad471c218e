"""What `softmax.py` times inside ONNX Runtime: one-node models of Softmax, its int8 chain, Identity and HCCS."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from common import SEED, Array
from onnx import TensorProto, helper

import hccs_onnx

RUN, BOUND = "run", "bound"  # ways to call: plain session.run, or everything bound once
CODE = 1 / 16  # size of a logit code
CLIP_CODES = 53  # the data-free clip range of 3.3 nats in codes

SOFTMAX, FUSED, UNFUSED = "Softmax float", "int8 chain, fused", "int8 chain, not fused"
IDENTITIES = {"int8": "Identity int8", "int16": "Identity int16", "float32": "Identity float"}


@dataclass(frozen=True)
class Shape:
    """Logits of one attention: its name and dimensions."""

    name: str
    dims: tuple[int, int, int, int]

    @property
    def label(self) -> str:
        """Where it is short: ``[1,12,128,128]``."""
        return "[" + ",".join(map(str, self.dims)) + "]"

    @property
    def title(self) -> str:
        """For tables: ``BERT-base 128 tokens [1,12,128,128]``."""
        return f"{self.name} {self.label}"

    @property
    def keys(self) -> int:
        """Length of a row."""
        return self.dims[-1]


class Data:
    """Logits of one shape, as codes and as float, with all keys visible or the last quarter of them masked."""

    def __init__(self, shape: Shape) -> None:
        floats = np.random.default_rng(SEED).normal(0, 2, shape.dims).astype(np.float32)
        hidden = np.arange(shape.keys) >= shape.keys - shape.keys // 4
        self.codes = np.clip(np.rint(floats / CODE), -127, 127).astype(np.int8)
        self.floats = floats
        self.masked_codes = np.where(hidden, np.int8(-128), self.codes)
        self.masked_floats = np.where(hidden, np.float32(-1e4), floats)


class Running(NamedTuple):
    """An opened contestant: the call to time, and the output of one more call."""

    call: Callable[[], object]
    output: Callable[[], Array]


@dataclass(frozen=True)
class Contestant:
    """Something to time on one shape.

    Parameters
    ----------
    name : str
        As tables show it.
    ways : tuple of str
        Ways in which it can be called: `RUN`, `BOUND`.
    open : callable
        From way and number of threads to a context within which it is ready, with threads of its own.
    expected : callable
        What it must compute.
    tolerance : float
        Largest deviation from that; 0 asks for the same bits.
    """

    name: str
    ways: tuple[str, ...]
    open: Callable[[str, int], AbstractContextManager[Running]]
    expected: Callable[[], Array]
    tolerance: float = 0.0

    def check(self, output: Array) -> str | None:
        """What is wrong with an output, if anything is."""
        expected = self.expected()
        if output.shape != expected.shape or output.dtype != expected.dtype:
            return f"gave {output.dtype} {output.shape}, needs {expected.dtype} {expected.shape}"
        if self.tolerance:
            worst = float(np.abs(output.astype(np.float64) - expected).max())
            return None if worst <= self.tolerance else f"is off by {worst:.3g}, may be by {self.tolerance:.3g}"
        differing = int((output != expected).sum())
        return f"differs from the reference in {differing} of {output.size} places" if differing else None


@dataclass(frozen=True)
class Model:
    """A model of one operator or chain, and how to make its session."""

    proto: bytes
    custom: bool = False
    config: dict[str, str] = field(default_factory=dict)

    def session(self, threads: int, optimised: Path | None = None) -> ort.InferenceSession:
        """A session; `optimised` is where to write the graph that it runs."""
        options = hccs_onnx.session_options() if self.custom else ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        for key, value in self.config.items():
            options.add_session_config_entry(key, value)
        if optimised:
            options.optimized_model_filepath = str(optimised)
        return ort.InferenceSession(self.proto, options, providers=["CPUExecutionProvider"])

    def operators(self) -> str:
        """Operators of the optimised graph, that is what runs."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimised.onnx"
            self.session(1, path)
            return ", ".join(node.op_type for node in onnx.load(path).graph.node)


@dataclass(frozen=True)
class OrtContestants:
    """The contestants inside ONNX Runtime on one shape, and their models."""

    contestants: list[Contestant]
    models: dict[str, Model]


def ort_contestants(shape: Shape, data: Data) -> OrtContestants:
    """All of them, float Softmax first."""
    contestants, models = [], {}

    def add(name: str, model: Model, x: Array, expected: Callable[[], Array], tolerance: float = 0.0) -> None:
        models[name] = model
        opener = partial(_opened, model, x.copy())  # a copy, so that caches favour none
        contestants.append(Contestant(name, (RUN, BOUND), opener, expected, tolerance))

    add(SOFTMAX, _softmax(shape), data.floats, partial(softmax, data.floats), 1e-6)
    codes = partial(int8_softmax, data.codes)
    add(FUSED, _chain(shape), data.codes, codes, 1)
    add(UNFUSED, _chain(shape, {"session.disable_quant_qdq": "1"}), data.codes, codes, 1)
    for x in (data.codes, data.codes.astype(np.int16), data.floats):
        add(IDENTITIES[str(x.dtype)], _identity(shape, x.dtype), x, partial(np.copy, x))
    for form in forms(shape):
        x = form.logits(data)
        add(form.name, form.model(shape), x, partial(form.reference, x))
    return OrtContestants(contestants, models)


@dataclass(frozen=True)
class Form:
    """One form of HCCS with a parameter set for every head."""

    output: np.dtype[Any]
    parameters: dict[str, Any]
    reciprocal: str
    masked: bool

    @property
    def name(self) -> str:
        """As tables show it: ``HCCS uint8 norm, masked``."""
        return hccs_name(str(self.output), self.reciprocal, self.masked)

    def logits(self, data: Data) -> Array:
        """Its input."""
        if self.output == np.float32:
            return data.masked_floats if self.masked else data.floats
        return data.masked_codes if self.masked else data.codes

    def reference(self, x: Array) -> Array:
        """What the definition gives."""
        return hccs_onnx.hccs(x, self.output, **self.parameters, reciprocal=self.reciprocal, masked=self.masked)

    def model(self, shape: Shape) -> Model:
        """A model of one HCCS node."""
        kind = helper.np_dtype_to_tensor_dtype(self.output)
        x = TensorProto.FLOAT if self.output == np.float32 else TensorProto.INT8
        attributes = {**self.parameters, "reciprocal": self.reciprocal, "masked": int(self.masked)}
        node = helper.make_node("HCCS", ["X", "zero"], ["Y"], domain="hccs", **attributes)
        return Model(_serialised(shape, [node], x, kind, [helper.make_tensor("zero", kind, [], [0])]), custom=True)


def hccs_name(output: str, reciprocal: str = "norm", masked: bool = False) -> str:
    """Name of a form of HCCS in results."""
    kind = "HCCS float" if output == "float32" else f"HCCS {output} {reciprocal}"
    return kind + (", masked" if masked else "")


def forms(shape: Shape) -> list[Form]:
    """The forms of HCCS that are timed."""
    heads, keys = shape.dims[1], shape.keys
    norm = _parameters(heads, 6785)  # B - 127*53 is 0.008*B
    div_uint8 = _parameters(heads, max(32767 // keys, 300))  # 256 is the least that is legal when masked
    div_int16 = _parameters(heads, 32767 // keys)
    floats = {**_parameters(heads, 16259, clip=127), "scale": [3.3 / 127] * heads}
    uint8, int16, float32 = np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.float32)
    return [
        Form(uint8, norm, "norm", False),
        Form(uint8, norm, "norm", True),
        Form(uint8, div_uint8, "div", False),
        Form(uint8, div_uint8, "div", True),
        Form(int16, norm, "norm", False),
        Form(int16, div_int16, "div", False),
        Form(float32, floats, "norm", False),
        Form(float32, floats, "norm", True),
    ]


def run_copies(model: Model, x: Array) -> bool:
    """Whether plain ``session.run`` copies outputs into arrays of NumPy's own, instead of handing over its buffers."""
    y = model.session(1).run(["Y"], {"X": x})[0]
    return bool(y.flags.owndata)


def softmax(x: Array) -> Array:
    """Softmax along the last axis, float32."""
    powers = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    result: Array = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result


def int8_softmax(codes: Array) -> Array:
    """Softmax of int8 codes as int8 codes of size 2^-8, zero point -128."""
    y = np.rint(softmax(codes.astype(np.float32) * np.float32(CODE)) * 256) - 128
    result: Array = np.minimum(y, 127).astype(np.int8)
    return result


def _parameters(heads: int, offset: int, clip: int = CLIP_CODES) -> dict[str, list[int]]:
    """Offset, slope, clip distance of each head; the clip distance differs a little from head to head."""
    clip = min(clip, offset)
    slope = min(127, offset // clip)
    return {"B": [offset] * heads, "S": [slope] * heads, "Dmax": [max(1, clip - head % 4) for head in range(heads)]}


def _softmax(shape: Shape) -> Model:
    node = helper.make_node("Softmax", ["X"], ["Y"], axis=-1)
    return Model(_serialised(shape, [node], TensorProto.FLOAT, TensorProto.FLOAT))


def _identity(shape: Shape, dtype: np.dtype[Any]) -> Model:
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    return Model(_serialised(shape, [helper.make_node("Identity", ["X"], ["Y"])], kind, kind))


def _chain(shape: Shape, config: dict[str, str] | None = None) -> Model:
    constants = [
        helper.make_tensor("code", TensorProto.FLOAT, [], [CODE]),
        helper.make_tensor("zero", TensorProto.INT8, [], [0]),
        helper.make_tensor("step", TensorProto.FLOAT, [], [1 / 256]),
        helper.make_tensor("lowest", TensorProto.INT8, [], [-128]),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["X", "code", "zero"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        helper.make_node("QuantizeLinear", ["probabilities", "step", "lowest"], ["Y"]),
    ]
    return Model(_serialised(shape, nodes, TensorProto.INT8, TensorProto.INT8, constants), config=config or {})


def _serialised(
    shape: Shape, nodes: list[onnx.NodeProto], x: int, y: int, constants: list[onnx.TensorProto] | None = None
) -> bytes:
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "softmax", [tensor("X", x, shape.dims)], [tensor("Y", y, shape.dims)], constants or []
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hccs", 1)]
    proto: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return proto


@contextmanager
def _opened(model: Model, x: Array, way: str, threads: int) -> Iterator[Running]:
    session = model.session(threads)
    if way == RUN:
        call = partial(session.run, ["Y"], {"X": x})
        yield Running(call, lambda: np.asarray(call()[0]))
        return
    binding = session.io_binding()
    source = ort.OrtValue.ortvalue_from_numpy(x)
    result = ort.OrtValue.ortvalue_from_shape_and_type(x.shape, _output_type(session))
    binding.bind_ortvalue_input("X", source)
    binding.bind_ortvalue_output("Y", result)
    bound_call = partial(session.run_with_iobinding, binding)

    def output() -> Array:
        bound_call()
        return np.asarray(result.numpy())

    yield Running(bound_call, output)


def _output_type(session: ort.InferenceSession) -> Any:
    names = {"tensor(float)": np.float32}
    kind = session.get_outputs()[0].type
    return names.get(kind) or np.dtype(kind.removeprefix("tensor(").removesuffix(")")).type


def read_shapes(path: Path) -> list[Shape]:
    """Shapes of a file: a name, batch, heads, queries and keys a line, comments after #.

    Raises
    ------
    SystemExit
        If it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{path}: cannot be read ({error})") from None
    shapes: list[Shape] = []
    for number, line in enumerate(lines, 1):
        name, *sizes = (part.strip() for part in line.split("#")[0].split(","))
        if not name and not sizes:
            continue
        if len(sizes) != 4 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise SystemExit(f"{path}:{number}: needs a name, batch, heads, queries and keys ({line!r})")
        batch, heads, queries, keys = map(int, sizes)
        shape = Shape(name, (batch, heads, queries, keys))
        if shape.label in (other.label for other in shapes):
            raise SystemExit(f"{path}:{number}: {shape.label} is there twice")
        shapes.append(shape)
    if not shapes:
        raise SystemExit(f"{path}: has no shapes")
    return shapes
