"""``hccs::HCCS`` for aie4ml: the handler that its ONNX front end lacks.

aie4ml 0.2.1 has no entry points, so a program registers the handler before it reads a model::

    from hccs_onnx.aie import aie4ml_plugin

    aie4ml_plugin.register()
    aie4ml.from_onnx("block.onnx", config, output_dir="firmware").write()

A node becomes aie4ml's own HCCS Softmax; the firmware is the same as with its ``LayerDirectives``. What its kernels
cannot compute, and what aie4ml would drop or compute wrongly without a word, is refused.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from hccs_onnx.errors import CodegenError
from hccs_onnx.operator.schema import DOMAIN, OP_TYPE, read_attributes
from hccs_onnx.params import HccsParams, OutputType

VERSION = "0.2.1"
"""Version of aie4ml whose front end this was written for and tested with."""

RECIPROCAL_SHIFT = 15  # every other inv_shift overflows at some legal row sum
_FRACTION: dict[OutputType, int] = {"uint8": 8, "int16": 15}  # bits of the probabilities, fixed by aie4ml's kernels
_OUTPUTS: dict[str, OutputType] = {"uint8": "uint8", "int16": "int16"}
_HEAD_BY_HEAD = "Write one node a head, as python -m hccs_onnx codegen --flow aie4ml does"
_IN_INTEGERS = "Rewrite the model with --to uint8 or int16, --reciprocal div or clb and --profile paper"


def import_aie4ml(module: str = "aie4ml") -> ModuleType:
    """A module of the installed aie4ml, or an error that says how to get it.

    Parameters
    ----------
    module : str
        Dotted name.

    Raises
    ------
    CodegenError
        If aie4ml is not installed, lacks its ONNX front end, or is another version than `VERSION`.

    Examples
    --------
    >>> import_aie4ml().from_onnx  # doctest: +SKIP
    <function from_onnx at ...>
    """
    remedy = f"Install it: pip install 'hccs-onnx[aie4ml]', which takes aie4ml {VERSION}"
    try:
        found = metadata.version("aie4ml")
        loaded = importlib.import_module(module)
    except ImportError as error:  # PackageNotFoundError is one
        raise CodegenError("aie4ml", f"cannot be imported: {error}", remedy=remedy) from error
    if found != VERSION:
        raise CodegenError("aie4ml", "is another version", found=found, needs=VERSION, remedy=remedy)
    return loaded


def register() -> None:
    """Teach aie4ml's ONNX front end ``hccs::HCCS``; does nothing the second time.

    Raises
    ------
    CodegenError
        If aie4ml cannot be used, or already has a handler for HCCS that is not this one.

    Examples
    --------
    >>> register()  # doctest: +SKIP
    """
    registry = import_aie4ml("aie4ml.frontends.onnx.registry")
    present = registry.ONNX_HANDLERS.get(OP_TYPE)
    if present is None:
        registry.onnx_handler(OP_TYPE)(_lower)
    elif present is not _lower:
        problem = f"already has a handler for {OP_TYPE}, of {present.__module__}"
        raise CodegenError("aie4ml", problem, remedy="Leave out one of the two")


def _lower(ctx: Any, node: onnx.NodeProto, name: str, directives: dict[str, Any]) -> None:
    """Put an HCCS node into aie4ml's graph. `ctx` is its OnnxImportContext."""
    subject = f"node '{name}'"
    if node.domain != DOMAIN:  # aie4ml looks at the operator's name alone
        raise CodegenError(subject, f"is {OP_TYPE} of another domain", found=node.domain, needs=DOMAIN)
    if "hccs" in directives or "approximation" in directives:
        problem = "has HCCS parameters in LayerDirectives too"
        raise CodegenError(subject, problem, remedy="Leave them to the node's attributes")
    params = read_attributes(node)
    output = _output_type(ctx, node, subject)
    codes = _codes(ctx, node.input[0], subject)
    _check_producer(codes.producer, subject)
    source = ctx.canonical_source(node.input[0], name)
    shape = ctx.output_shape(node.input[0], name)
    _check_params(params, output, shape[-1], subject)
    head = params.heads[0]
    precision = _precision(output)
    y = node.output[0]
    ctx.shape_of.setdefault(y, shape)
    ctx.emit(
        "softmax",
        name,
        inputs=[source],
        outputs=[(y, shape, precision)],
        roles=["lhs"],
        metadata={
            "axis": len(shape) - 1,
            "layer_class": "Softmax",
            "source_class": OP_TYPE,
            "source_layer": name,
        },
        directives={
            **directives,
            "approximation": "hccs",
            "hccs": {
                "B": head.B,
                "S": head.S,
                "Dmax": head.Dmax,
                "inv_shift": RECIPROCAL_SHIFT,
                "use_clb": params.reciprocal == "clb",
            },
        },
    )
    ctx.q_aliases[y] = ("tensor", ctx.value_tensors[y], precision, shape)  # the codes that DequantizeLinear reads


def _output_type(ctx: Any, node: onnx.NodeProto, subject: str) -> OutputType:
    zero_point = ctx.initializers.get(node.input[1]) if len(node.input) > 1 else None
    if zero_point is None:
        raise CodegenError(subject, "y_zero_point is not an initializer", remedy="Make it one: it tells the type of Y")
    dtype = np.asarray(zero_point).dtype.name
    if dtype not in _OUTPUTS:
        raise CodegenError(subject, "puts out floats", found=dtype, needs="uint8 or int16", remedy=_IN_INTEGERS)
    return _OUTPUTS[dtype]


def _codes(ctx: Any, x: str, subject: str) -> Any:
    """The tensor whose int8 codes the node reads, bound to the name `x`."""
    alias = ctx.q_aliases.get(x)
    if alias is None:
        problem = "logits are not made by QuantizeLinear"
        raise CodegenError(subject, problem, remedy=_IN_INTEGERS)
    kind, reference, intent, shape = alias
    if (intent.width, intent.signed) != (8, True):
        found = f"{'int' if intent.signed else 'uint'}{intent.width}"
        raise CodegenError(subject, "logits have the wrong type", found=found, needs="int8", remedy=_IN_INTEGERS)
    if kind == "initializer":
        raise CodegenError(subject, "logits are constant", remedy="Fold the node")
    tensor = reference if kind == "tensor" else ctx.graph_input_tensor(reference, shape, intent)
    ctx.bind(x, tensor)
    return tensor


def _check_producer(producer: Any, subject: str) -> None:
    """Refuse what aie4ml would lower without a word to something else: an added constant, too fine a scale."""
    added = False
    while producer is not None and producer.op_type in ("scale", "transpose", "add"):
        constants = [tensor for tensor in producer.inputs if tensor.is_parameter]
        if producer.op_type == "add" and not constants:
            return  # two activations, which aie4ml has a kernel for
        added = added or producer.op_type == "add"
        producer = next(tensor for tensor in producer.inputs if not tensor.is_parameter).producer
    if producer is None or producer.op_type != "matmul":
        return  # a Dense layer has a bias of its own
    if added:
        problem = "a constant, mask or bias, is added to the logits, which aie4ml would drop"
        raise CodegenError(
            subject, problem, remedy="Leave it out where nothing is masked; aie4ml has no masked Softmax"
        )
    precisions = [tensor.precision for tensor in (*producer.inputs, *producer.outputs)]
    if any(not hasattr(precision, "frac") for precision in precisions):
        return  # aie4ml itself asks for what is missing
    *operands, logits = (precision.frac for precision in precisions)
    finest = sum(operands)
    if logits > finest:
        problem = f"logits are quantised finer than the product '{producer.name}' is, which aie4ml computes wrongly"
        remedy = f"Quantise logits with 2^-{finest} or a larger scale, or queries and keys with smaller ones"
        raise CodegenError(subject, problem, found=f"2^-{logits}", needs=f">= 2^-{finest}", remedy=remedy)


def _check_params(params: HccsParams, output: OutputType, n: int, subject: str) -> None:
    if len(set(params.heads)) > 1:
        problem = "has several heads, and aie4ml one set of parameters a Softmax"
        raise CodegenError(subject, problem, found=len(params.heads), needs=1, remedy=_HEAD_BY_HEAD)
    reasons = params.violations(output, profile="paper", n=n)
    if reasons:
        remedy = "Calibrate and rewrite with --profile paper, for rows of this length and where nothing is masked"
        raise CodegenError(subject, f"aie4ml's kernels cannot compute it: {reasons[0]}", remedy=remedy)


def _precision(output: OutputType) -> Any:
    """aie4ml's QuantIntent of probabilities, as its DequantizeLinear expects it."""
    types = import_aie4ml("aie4ml.aie_types")
    return types.QuantIntent(
        width=8 if output == "uint8" else 16,
        frac=_FRACTION[output],
        signed=output == "int16",
        rounding=types.RoundingMode.RND_CONV,
        saturation=types.SaturationMode.SAT,
    )
