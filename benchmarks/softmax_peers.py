"""What `softmax.py` times outside ONNX Runtime where it is installed: Softmax of PyTorch, OpenVINO and LiteRT."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from common import Array
from softmax_contestants import BOUND, CODE, Contestant, Data, Running, Shape, int8_softmax, softmax

TORCH, OPENVINO = "PyTorch float", "OpenVINO float"
LITERT_INT8, LITERT_FLOAT = "LiteRT int8", "LiteRT float (XNNPACK)"


@dataclass(frozen=True)
class Peer:
    """A runtime to compare with.

    Parameters
    ----------
    package, module : str
        Name on PyPI, and what is imported.
    contestants : callable
        Makes its contestants on a shape.
    """

    package: str
    module: str
    contestants: Callable[[Shape, Data], list[Contestant]]


def _torch(shape: Shape, data: Data) -> list[Contestant]:
    import torch

    @contextmanager
    def opened(_way: str, threads: int) -> Iterator[Running]:
        torch.set_num_threads(threads)
        x = torch.from_numpy(data.floats.copy())
        y = torch.empty_like(x)
        with torch.inference_mode():
            call = partial(torch.softmax, x, -1, out=y)
            yield Running(call, lambda: call().numpy())

    return [Contestant(TORCH, (BOUND,), opened, partial(softmax, data.floats), 1e-6)]


def _openvino(shape: Shape, data: Data) -> list[Contestant]:
    import openvino
    from openvino import opset13

    core = openvino.Core()
    logits = opset13.parameter(list(shape.dims), np.float32)
    model = openvino.Model([opset13.softmax(logits, -1)], [logits], "softmax")

    @contextmanager
    def opened(_way: str, threads: int) -> Iterator[Running]:
        config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", config).create_infer_request()
        x, y = data.floats.copy(), np.empty(shape.dims, np.float32)
        request.set_input_tensor(0, openvino.Tensor(x, shared_memory=True))
        request.set_output_tensor(0, openvino.Tensor(y, shared_memory=True))
        yield Running(request.infer, lambda: _after(request.infer, y))

    return [Contestant(OPENVINO, (BOUND,), opened, partial(softmax, data.floats), 1e-6)]


def _litert(shape: Shape, data: Data) -> list[Contestant]:
    from ai_edge_litert.interpreter import Interpreter

    def contestant(name: str, x: Array, expected: Callable[[], Array], tolerance: float) -> Contestant:
        content = _flatbuffer(shape, x.dtype == np.int8)

        @contextmanager
        def opened(_way: str, threads: int) -> Iterator[Running]:
            with _quiet_stderr():  # where each interpreter announces its delegate
                interpreter = Interpreter(model_content=content, num_threads=threads)
                interpreter.allocate_tensors()
            source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
            interpreter.set_tensor(source["index"], x)
            invoke = interpreter.invoke
            yield Running(invoke, lambda: _after(invoke, lambda: interpreter.get_tensor(target["index"])))

        return Contestant(name, (BOUND,), opened, expected, tolerance)

    return [
        contestant(LITERT_FLOAT, data.floats, partial(softmax, data.floats), 1e-6),
        contestant(LITERT_INT8, data.codes, partial(int8_softmax, data.codes), 1),
    ]


PEERS = (
    Peer("torch", "torch", _torch),
    Peer("openvino", "openvino", _openvino),
    Peer("ai-edge-litert", "ai_edge_litert", _litert),
)


def _after(call: Callable[[], object], result: Any) -> Array:
    """What is in the output after a call: an array, or what gives it."""
    call()
    array: Array = result() if callable(result) else result
    return array


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _flatbuffer(shape: Shape, quantised: bool) -> bytes:
    """A TFLite model of one Softmax: float32, or int8 with output codes of size 2^-8 and zero point -128."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, scale: float, zero_point: int) -> Any:
        result = schema.TensorT()
        result.name, result.shape, result.buffer = name, list(shape.dims), 0
        result.type = schema.TensorType.INT8 if quantised else schema.TensorType.FLOAT32
        if quantised:
            result.quantization = schema.QuantizationParametersT()
            result.quantization.scale, result.quantization.zeroPoint = [scale], [zero_point]
        return result

    node, code = schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SOFTMAX
    code.version = 2 if quantised else 1
    node.opcodeIndex, node.inputs, node.outputs = 0, [0], [1]
    node.builtinOptionsType, node.builtinOptions = schema.BuiltinOptions.SoftmaxOptions, schema.SoftmaxOptionsT()
    node.builtinOptions.beta = 1.0
    graph, model = schema.SubGraphT(), schema.ModelT()
    graph.tensors = [tensor("logits", CODE, 0), tensor("probabilities", 1 / 256, -128)]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [node]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
