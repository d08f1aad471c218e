"""Models of one HCCS node, and every way there is to compute one. (Not named models.py: the repository has models/.)"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hccs_onnx import reference
from hccs_onnx.operator.body import MIN_OPSET, function_body
from hccs_onnx.operator.reference_op import HCCS
from hccs_onnx.operator.schema import DOMAIN, ELEMENT_TYPES, VERSION, make_node
from hccs_onnx.params import RECIPROCALS, HccsParams, HeadParams, OutputType, Reciprocal

Array = np.ndarray[Any, Any]
Run = Callable[..., list[Array]]

PROFILES: list[tuple[OutputType, Reciprocal]] = [
    ("float", "norm"),
    *((output, reciprocal) for output in ("uint8", "int16") for reciprocal in RECIPROCALS),
]
DTYPES: dict[OutputType, type[np.generic]] = {"float": np.float32, "uint8": np.uint8, "int16": np.int16}
OPSETS = range(MIN_OPSET, onnx.defs.onnx_opset_version() + 1)
IMPLEMENTATIONS = ("function", "function, not optimised", "native", "python", "op run", "evaluated body")


@cache
def onnxruntime_opsets() -> tuple[int, ...]:
    """Opsets that the installed onnxruntime accepts, of those that the installed onnx knows."""
    return tuple(opset for opset in OPSETS if _onnxruntime_accepts(opset))


def _onnxruntime_accepts(opset: int) -> bool:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises many classes without a common base
        return False
    return True


def hccs_model(
    params: HccsParams, output: OutputType, rank: int = 4, *, opset: int = 17, body: bool = True, infer: bool = False
) -> onnx.ModelProto:
    """`Y = HCCS(X)` with symbolic shapes d0, d1, ...; with `infer`, Y's shape is left to shape inference."""
    x_type = TensorProto.FLOAT if output == "float" else TensorProto.INT8
    shape = [f"d{axis}" for axis in range(rank)]
    y = helper.make_tensor_value_info("Y", ELEMENT_TYPES[output], None if infer else shape)
    graph = helper.make_graph(
        [make_node(params, "X", "y_zero_point", "Y", name="attention")],
        "g",
        [helper.make_tensor_value_info("X", x_type, shape)],
        [y],
        [numpy_helper.from_array(np.array(0, DTYPES[output]), "y_zero_point")],
    )
    return helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[function_body(output, params.reciprocal, opset)] if body else [],
    )


def numpy_result(params: HccsParams, output: OutputType, x: Array) -> Array:
    """What `hccs_onnx.reference` computes, whether or not the parameters are legal."""
    heads = params.heads
    return reference.hccs(
        x,
        DTYPES[output],
        B=[head.B for head in heads],
        S=[head.S for head in heads],
        Dmax=[head.Dmax for head in heads],
        scale=[head.scale for head in heads],
        head_axis=params.head_axis,
        reciprocal=params.reciprocal,
        masked=params.masked,
        mask_gap=params.mask_gap,
    )


def compute(
    implementation: str,
    run: Run,
    params: HccsParams,
    output: OutputType,
    x: Array,
    *,
    opset: int = 17,
    short: Collection[str] = (),
) -> Array:
    """Y by one of IMPLEMENTATIONS; lists named in `short` are cut to one entry."""
    model = hccs_model(params, output, x.ndim, opset=opset, body=implementation not in ("native", "python", "op run"))
    for attribute in model.graph.node[0].attribute:
        if attribute.name in short:
            del attribute.ints[1:], attribute.floats[1:]
    if implementation in ("op run", "evaluated body"):
        evaluator = ReferenceEvaluator(model, new_ops=[HCCS] if implementation == "op run" else None)
        with np.errstate(all="ignore"):
            return np.asarray(evaluator.run(None, {"X": x})[0])
    if implementation in ("native", "python"):
        return run(model, {"X": x}, backend=implementation)[0]
    return run(model, {"X": x}, optimize=implementation == "function")[0]


def assert_same_bits(actual: Array, expected: Array) -> None:
    """Type, shape, values, positions of NaN, and no negative zero."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    if actual.dtype == np.float32:
        assert not np.signbit(actual[actual == 0]).any()


@st.composite
def legal_head(draw: st.DrawFn, output: OutputType, reciprocal: Reciprocal, n: int) -> HeadParams:
    """Any head that is legal for rows of length `n`, masked or not; often at the bounds, often with ties in gaps."""
    bounded = output != "float" and reciprocal != "norm"
    highest = 32767 // n if bounded and output == "int16" else 32767
    slope = draw(st.sampled_from([0, 1, 127]) | st.integers(0, 127))
    slope = min(slope, highest)
    longest = min(127, highest // slope) if slope else 127
    clip = draw(st.sampled_from([1, longest]) | st.integers(1, longest))
    lowest = max(256 if bounded and output == "uint8" else 1, slope * clip)
    offset = draw(st.sampled_from([lowest, highest]) | st.integers(lowest, highest))
    scale = draw(st.sampled_from([0.25, 1.0, 3.3 / 127, 2.0**-149, 1e38]) | st.floats(2.0**-10, 10, width=32))
    return HeadParams(offset, slope, clip, scale)
