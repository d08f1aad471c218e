"""Names, types and attributes of ``hccs::HCCS``, and its nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from hccs_onnx.errors import ParameterError
from hccs_onnx.params import DEFAULT_MASK_GAP, HccsParams, HeadParams, OutputType

DOMAIN = "hccs"
OP_TYPE = "HCCS"
VERSION = 1

ELEMENT_TYPES: dict[OutputType, int] = {
    "float": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
}
"""ONNX element type of `y_zero_point`, and so of Y, for each output type."""

ATTRIBUTES: dict[str, Any] = {
    "B": None,
    "S": None,
    "Dmax": None,
    "scale": (1.0,),
    "head_axis": -3,
    "reciprocal": "norm",
    "masked": 0,
    "mask_gap": DEFAULT_MASK_GAP,
}
"""Attribute names with their defaults; None where there is none. Nodes written by this project carry all of them."""


def op_schema() -> onnx.defs.OpSchema:
    """The operator's schema, for documentation and for ``onnx.defs.register_schema``.

    Returns
    -------
    onnx.defs.OpSchema
        Schema of ``hccs::HCCS`` version 1.

    Examples
    --------
    >>> sorted(op_schema().attributes)
    ['B', 'Dmax', 'S', 'head_axis', 'mask_gap', 'masked', 'reciprocal', 'scale']
    """
    schema = onnx.defs.OpSchema
    kind = schema.AttrType
    required = [
        schema.Attribute("B", kind.INTS, "Offset: score of the row maximum, 1..32767."),
        schema.Attribute("S", kind.INTS, "Slope: score lost per gap code, 0..127."),
        schema.Attribute("Dmax", kind.INTS, "Clip distance in gap codes, 1..127; B - S*Dmax >= 0."),
    ]
    optional = {
        "scale": "Size of a gap code in the units of X, > 0. Read for float X only.",
        "head_axis": "Axis of heads, not the last; the head is the index mod their number, so they may lie in the "
        "batch axis. Not looked at when all lists have one entry.",
        "reciprocal": "How the row sum is inverted: norm, div or clb. Integer Y only.",
        "masked": "1: code -128 (int8 X) or a gap above mask_gap (float X) has probability 0.",
        "mask_gap": "Gap above which a logit counts as masked, in the units of X. Float X only.",
    }
    return schema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        doc="Head-calibrated clipped-linear Softmax along the last axis: score B - S*min(gap, Dmax) over its row sum.",
        inputs=[
            schema.FormalParameter("X", "T1", "Codes (int8) or logits (float), rank >= 1."),
            schema.FormalParameter("y_zero_point", "T2", "A zero scalar; its type is the type of Y."),
        ],
        outputs=[schema.FormalParameter("Y", "T2", "Probabilities, shape of X; uint8 counts 2^-8, int16 2^-15.")],
        type_constraints=[
            ("T1", ["tensor(int8)", "tensor(float)"], "Type of the logits."),
            ("T2", ["tensor(uint8)", "tensor(int16)", "tensor(float)"], "uint8 or int16 for codes, float for logits."),
        ],
        attributes=[
            *required,
            *(schema.Attribute(k, helper.make_attribute(k, ATTRIBUTES[k]), doc) for k, doc in optional.items()),
        ],
    )


def make_node(params: HccsParams, x: str, y_zero_point: str, y: str, name: str = "") -> onnx.NodeProto:
    """An ``hccs::HCCS`` node that carries `params`.

    Lists in which all heads agree are written with one entry.

    Parameters
    ----------
    params : HccsParams
        Attributes; not checked.
    x, y_zero_point, y : str
        Tensor names.
    name : str
        Node name.

    Examples
    --------
    >>> from hccs_onnx.params import DATA_FREE
    >>> node = make_node(HccsParams((DATA_FREE,) * 12), "logits", "zero", "probabilities")
    >>> list(node.attribute[0].ints)
    [16259]
    """
    same = len(set(params.heads)) == 1
    heads = params.heads[:1] if same else params.heads
    return helper.make_node(
        OP_TYPE,
        [x, y_zero_point],
        [y],
        name=name,
        domain=DOMAIN,
        B=[head.B for head in heads],
        S=[head.S for head in heads],
        Dmax=[head.Dmax for head in heads],
        scale=[float(np.float32(head.scale)) for head in heads],
        head_axis=params.head_axis,
        reciprocal=params.reciprocal,
        masked=int(params.masked),
        mask_gap=float(np.float32(params.mask_gap)),
    )


def is_hccs(node: onnx.NodeProto) -> bool:
    """Whether `node` is an ``hccs::HCCS`` node."""
    return node.op_type == OP_TYPE and node.domain == DOMAIN


def read_attributes(node: onnx.NodeProto) -> HccsParams:
    """The parameters that an ``hccs::HCCS`` node carries.

    Raises
    ------
    ParameterError
        If an attribute is missing or lists have lengths that do not fit.

    Examples
    --------
    >>> from hccs_onnx.params import DATA_FREE
    >>> read_attributes(make_node(HccsParams((DATA_FREE,)), "x", "z", "y")).heads[0].B
    16259
    """
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return params_from(given, f"node '{node.name}'")


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "B": ("a list of integers", lambda value: _is_list_of(Integral, value)),
    "S": ("a list of integers", lambda value: _is_list_of(Integral, value)),
    "Dmax": ("a list of integers", lambda value: _is_list_of(Integral, value)),
    "scale": ("a list of floats", lambda value: _is_list_of(Real, value)),
    "head_axis": ("an integer", lambda value: isinstance(value, Integral)),
    "reciprocal": ("a string", lambda value: isinstance(value, (str, bytes))),
    "masked": ("an integer", lambda value: isinstance(value, Integral)),
    "mask_gap": ("a float", lambda value: isinstance(value, Real)),
}


def params_from(attributes: Mapping[str, Any], subject: str = OP_TYPE) -> HccsParams:
    """`HccsParams` from attribute values, defaults filled in.

    Raises
    ------
    ParameterError
        If B, S or Dmax is missing, an attribute has the wrong type, or lists have lengths that do not fit.

    Examples
    --------
    >>> params_from({"B": [300], "S": [2], "Dmax": [9]}).reciprocal
    'norm'
    """
    values = {name: default for name, default in ATTRIBUTES.items() if default is not None}
    values.update({name: value for name, value in attributes.items() if value is not None})
    missing = [name for name in ATTRIBUTES if name not in values]
    if missing:
        raise ParameterError(subject, f"attribute {', '.join(missing)} is missing", remedy="Write B, S and Dmax")
    for name, (kind, fits) in _KINDS.items():
        if not fits(values[name]):
            raise ParameterError(subject, f"attribute {name} has the wrong type", found=values[name], needs=kind)
    if values["masked"] not in (0, 1):
        raise ParameterError(subject, "attribute masked out of range", found=values["masked"], needs="0 or 1")
    lists = {name: list(values[name]) for name in ("B", "S", "Dmax", "scale")}
    count = max(len(items) for items in lists.values())
    if any(len(items) not in (1, count) for items in lists.values()):
        lengths = ", ".join(f"{name} {len(items)}" for name, items in lists.items())
        raise ParameterError(subject, "attribute lists differ in length", found=lengths, needs=f"1 or {count} each")
    columns = [items * count if len(items) == 1 else items for items in lists.values()]
    heads = tuple(HeadParams(int(b), int(s), int(d), float(scale)) for b, s, d, scale in zip(*columns, strict=True))
    reciprocal = values["reciprocal"]
    if isinstance(reciprocal, bytes):
        reciprocal = reciprocal.decode(errors="replace")
    return HccsParams(
        heads=heads,
        head_axis=int(values["head_axis"]),
        reciprocal=reciprocal,
        masked=bool(values["masked"]),
        mask_gap=float(values["mask_gap"]),
    )


def _is_list_of(kind: type, value: Any) -> bool:
    return not isinstance(value, (str, bytes)) and hasattr(value, "__len__") and all(isinstance(v, kind) for v in value)
