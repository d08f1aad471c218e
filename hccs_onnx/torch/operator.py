"""HCCS as an operator of torch's own, ``hccs::softmax``, and what exporters make of it.

Exporters see one operator and write one node ``hccs::HCCS`` with all that it needs as attributes, some of which are not
the node's; `hccs_onnx.torch.export` puts that right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hccs_onnx.errors import ModelError
from hccs_onnx.operator.schema import DOMAIN, OP_TYPE, VERSION
from hccs_onnx.params import HccsParams, HeadParams, LogitQuantizer, OutputType

QUALIFIED = "hccs::softmax"
NOT_PER_HEAD = "logits cannot be quantised per head"
_SCHEMA = (
    "(Tensor x, int[] B, int[] S, int[] Dmax, float[] scale, int[] zero_point, int head_axis, str reciprocal,"
    " int masked, float mask_gap, str output) -> Tensor"
)

_ATTRIBUTES = {
    **dict.fromkeys(("B", "S", "Dmax"), "ints"), "scale": "floats", "zero_point": "ints", "head_axis": "int",
    "reciprocal": "string", "masked": "int", "mask_gap": "float", "output": "string",
}  # fmt: skip
"""What follows `x` in the schema, as kinds of ONNX attributes."""


@torch.library.custom_op(QUALIFIED, mutates_args=(), schema=_SCHEMA)
def _softmax(
    x: Tensor,
    B: Sequence[int],
    S: Sequence[int],
    Dmax: Sequence[int],
    scale: Sequence[float],
    zero_point: Sequence[int],
    head_axis: int,
    reciprocal: str,
    masked: int,
    mask_gap: float,
    output: str,
) -> Tensor:
    from hccs_onnx.torch.module import HCCSSoftmax

    heads = tuple(HeadParams(*values) for values in zip(B, S, Dmax, scale, strict=True))
    params: Any = HccsParams(heads, head_axis, reciprocal, bool(masked), mask_gap)  # type: ignore[arg-type]
    quantizer = LogitQuantizer(tuple(scale), tuple(zero_point)) if output != "float" else None
    module = HCCSSoftmax(params, output=output, quantizer=quantizer).to(x.device)  # type: ignore[arg-type]
    with torch.no_grad():
        return module(x)


@_softmax.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def is_per_head(quantizer: LogitQuantizer) -> bool:
    """Whether heads differ.

    Examples
    --------
    >>> is_per_head(LogitQuantizer((0.5, 0.5), (3, 3)))
    False
    """
    return len({*zip(quantizer.scale, quantizer.zero_point, strict=True)}) > 1


def hccs_softmax(x: Tensor, output: OutputType, params: HccsParams, quantizer: LogitQuantizer | None) -> Tensor:
    """Probabilities by the operator, without gradients.

    Parameters
    ----------
    x : Tensor of float32
        Logits.
    output, params, quantizer
        As `HCCSSoftmax` has them.

    Raises
    ------
    ModelError
        If heads have quantisers of their own, and an axis is not theirs alone.
    """
    if quantizer is not None and is_per_head(quantizer):
        axis, heads = params.head_axis, len(quantizer.scale)
        if not -x.dim() <= axis < x.dim() or x.shape[axis] != heads:  # QuantizeLinear has one scale an index
            found, needs = f"logits {tuple(map(int, x.shape))}, head_axis {axis}", f"{heads} there"
            remedy = 'Calibrate with scale_granularity="tensor", or give heads an axis of their own'
            raise ModelError("HCCSSoftmax", NOT_PER_HEAD, found=found, needs=needs, remedy=remedy)
    columns = ([getattr(head, name) for head in params.heads] for name in ("B", "S", "Dmax", "scale"))
    zero_point = [0] if quantizer is None else list(quantizer.zero_point)
    profile = params.head_axis, params.reciprocal, int(params.masked), params.mask_gap, output
    result: Tensor = torch.ops.hccs.softmax(x, *columns, zero_point, *profile)
    return result


def torchscript_symbolic(g: Any, x: Any, *arguments: Any) -> Any:
    """Node for the TorchScript exporter."""
    from torch.onnx import symbolic_helper

    named = {}
    for (name, kind), argument in zip(_ATTRIBUTES.items(), arguments, strict=True):
        constant = symbolic_helper._get_const(argument, {"ints": "is", "floats": "fs"}.get(kind, kind[0]), name)
        named[f"{name}_{kind[0]}"] = constant
    return g.op(f"{DOMAIN}::{OP_TYPE}", x, **named).setType(x.type())


def dynamo_translation() -> dict[Any, Any]:
    """Table for the dynamo exporter."""
    from onnx.defs import OpSchema
    from onnxscript.values import Op, Opset

    schema = OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        inputs=[OpSchema.FormalParameter("X", "T")],
        outputs=[OpSchema.FormalParameter("Y", "T")],
        type_constraints=[("T", ["tensor(float)"], "")],
        attributes=[
            OpSchema.Attribute(name, getattr(OpSchema.AttrType, kind.upper()), "") for name, kind in _ATTRIBUTES.items()
        ],
    )
    node = Op(Opset(DOMAIN, VERSION), OP_TYPE, schema)

    def translate(x: Any, *arguments: Any) -> Any:
        return node(x, **dict(zip(_ATTRIBUTES, arguments, strict=True)))

    return {torch.ops.hccs.softmax.default: translate}
