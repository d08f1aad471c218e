from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import shape_inference
from operator_models import OPSETS, PROFILES, hccs_model

from hccs_onnx.operator.body import MIN_OPSET, function_body
from hccs_onnx.operator.schema import ATTRIBUTES, DOMAIN, ELEMENT_TYPES, OP_TYPE
from hccs_onnx.params import HccsParams, HeadParams, OutputType, Reciprocal

profiles = pytest.mark.parametrize(("output", "reciprocal"), PROFILES)
opsets = pytest.mark.parametrize("opset", OPSETS)


def two_heads(reciprocal: Reciprocal) -> HccsParams:
    return HccsParams((HeadParams(300, 2, 100, 0.5), HeadParams(400, 3, 100, 0.25)), reciprocal=reciprocal)


@opsets
@profiles
def test_model_with_body_passes_the_full_check(output: OutputType, reciprocal: Reciprocal, opset: int) -> None:
    onnx.checker.check_model(hccs_model(two_heads(reciprocal), output, opset=opset), full_check=True)


@opsets
@profiles
def test_strict_inference_gives_type_and_whole_shape(output: OutputType, reciprocal: Reciprocal, opset: int) -> None:
    model = hccs_model(two_heads(reciprocal), output, opset=opset, infer=True)
    inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    y = inferred.graph.output[0].type.tensor_type
    assert y.elem_type == ELEMENT_TYPES[output]
    assert [dimension.dim_param for dimension in y.shape.dim] == ["d0", "d1", "d2", "d3"]


@pytest.mark.parametrize("rank", [1, 2, 3, 6])
@profiles
def test_strict_inference_gives_the_rank_of_the_logits(output: OutputType, reciprocal: Reciprocal, rank: int) -> None:
    model = hccs_model(two_heads(reciprocal), output, rank, infer=True)
    y = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph.output[0].type.tensor_type
    assert [dimension.dim_param for dimension in y.shape.dim] == [f"d{axis}" for axis in range(rank)]


@opsets
@profiles
def test_body_declares_what_the_operator_has(output: OutputType, reciprocal: Reciprocal, opset: int) -> None:
    body = function_body(output, reciprocal, opset)
    assert (body.domain, body.name) == (DOMAIN, OP_TYPE)
    assert (list(body.input), list(body.output)) == (["X", "y_zero_point"], ["Y"])
    assert sorted(body.attribute) == sorted(ATTRIBUTES)
    assert [(entry.domain, entry.version) for entry in body.opset_import] == [("", opset)]
    assert {node.domain for node in body.node} == {""}


@pytest.mark.parametrize("opset", [MIN_OPSET, 14, 15, OPSETS[-1]])
@profiles
def test_body_takes_the_type_of_the_zero_point_from_opset_15(
    output: OutputType, reciprocal: Reciprocal, opset: int
) -> None:
    last = function_body(output, reciprocal, opset).node[-1]
    assert last.op_type == ("CastLike" if opset >= 15 else "Cast")
    assert list(last.output) == ["Y"]
    if opset >= 15:
        assert last.input[1] == "y_zero_point"
    else:
        assert last.attribute[0].i == ELEMENT_TYPES[output]


@pytest.mark.parametrize(
    ("op_type", "opset", "axes_are_input"),
    [("ReduceSum", 12, False), ("ReduceSum", 13, True), ("ReduceMax", 17, False), ("ReduceMax", 18, True)],
)
@profiles
def test_body_gives_reduction_axes_as_the_opset_wants_them(
    output: OutputType, reciprocal: Reciprocal, op_type: str, opset: int, axes_are_input: bool
) -> None:
    (node,) = (node for node in function_body(output, reciprocal, opset).node if node.op_type == op_type)
    assert len(node.input) == (2 if axes_are_input else 1)
    assert ("axes" in {attribute.name for attribute in node.attribute}) == (not axes_are_input)


@pytest.mark.parametrize("opset", [1, MIN_OPSET - 1])
def test_body_raises_when_the_opset_is_too_old(opset: int) -> None:
    with pytest.raises(ValueError, match=f"needs opset >= {MIN_OPSET}, not {opset}"):
        function_body("float", "norm", opset)


DIGEST = """
import hashlib
from hccs_onnx.operator.body import function_body
digest = hashlib.sha256()
for output in ("float", "uint8", "int16"):
    for reciprocal in ("norm", "div", "clb"):
        for opset in (12, 15, 18):
            digest.update(function_body(output, reciprocal, opset).SerializeToString())
print(digest.hexdigest())
"""


def test_body_has_the_same_bytes_in_every_process() -> None:
    digest = hashlib.sha256()
    for output in ("float", "uint8", "int16"):
        for reciprocal in ("norm", "div", "clb"):
            for opset in (12, 15, 18):
                digest.update(function_body(output, reciprocal, opset).SerializeToString())  # type: ignore[arg-type]
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env=environment,
        cwd=Path(__file__).parent,  # where no package lies: the one under test is found along sys.path
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == digest.hexdigest()
