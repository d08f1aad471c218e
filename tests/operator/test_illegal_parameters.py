"""Nothing is computed on illegal parameters: OpRun and the Python op say what is wrong instead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from operator_models import DTYPES, hccs_model

from hccs_onnx.backends import open_session
from hccs_onnx.errors import ParameterError
from hccs_onnx.operator.evaluate import evaluate
from hccs_onnx.operator.reference_op import HCCS
from hccs_onnx.operator.schema import DOMAIN, OP_TYPE
from hccs_onnx.params import DATA_FREE, HccsParams, HeadParams, OutputType

HEAD = HeadParams(300, 2, 100, 0.5)

# output type, parameters, shape of X, error without its subject
ILLEGAL: list[tuple[OutputType, HccsParams, tuple[int, ...], str]] = [
    ("float", HccsParams((HeadParams(0, 0, 1),)), (2, 3), "head 0: offset B out of range (0, needs >= 1)"),
    ("float", HccsParams((HeadParams(32768, 0, 1),)), (2, 3), "head 0: offset B out of range (32768, needs <= 32767)"),
    ("uint8", HccsParams((HeadParams(300, -1, 1),)), (2, 3), "head 0: slope S out of range (-1, needs >= 0)"),
    ("int16", HccsParams((HeadParams(300, 128, 1),)), (2, 3), "head 0: slope S out of range (128, needs <= 127)"),
    ("float", HccsParams((HeadParams(300, 2, 0),)), (2, 3), "head 0: clip distance Dmax out of range (0, needs >= 1)"),
    ("float", HccsParams((HeadParams(300, 2, 128),)), (2, 3), "clip distance Dmax out of range (128, needs <= 127)"),
    ("float", HccsParams((HeadParams(9, 1, 10),)), (2, 3), "head 0: floor B - S*Dmax is negative (-1, needs >= 0)"),
    ("float", HccsParams((HEAD, HeadParams(9, 1, 10)), 0), (2, 3), "head 1: floor B - S*Dmax is negative (-1,"),
    ("float", HccsParams((HeadParams(300, 2, 100, 0.0),)), (2, 3), "scale is not positive and finite (0.0, needs > 0)"),
    ("float", HccsParams((HEAD,), mask_gap=0.0), (2, 3), "mask_gap is not positive (0.0, needs > 0)"),
    ("float", HccsParams((HEAD, DATA_FREE), head_axis=-1), (2, 2), "head_axis is the last axis (-1, needs any other)"),
    ("float", HccsParams((HEAD, DATA_FREE), head_axis=1), (2, 2), "head_axis 1 is not an axis before the last"),
    ("float", HccsParams((HEAD, DATA_FREE), head_axis=-3), (2, 2), "head_axis -3 is not an axis before the last"),
    ("float", HccsParams((HEAD, DATA_FREE), head_axis=0), (3, 2), "head axis has size 3, needs a multiple of 2"),
    ("float", HccsParams((HEAD,)), (), "needs logits of rank >= 1"),
    (
        "int16",
        HccsParams((HEAD,), reciprocal="div"),
        (2, 110),
        "head 0: row sum overflows int16: n*B for n = 110 (33000, needs <= 32767)",
    ),
    (
        "uint8",
        HccsParams((HeadParams(100, 1, 50),), reciprocal="clb"),
        (2, 3),
        "head 0: row sum can be too small for uint8: B + (n-1)*F for n = 3 (200, needs >= 256)",
    ),
    (
        "uint8",
        HccsParams((HeadParams(255, 0, 1),), reciprocal="div", masked=True),
        (2, 300),
        "head 0: row sum can be too small for uint8: B when masked (255, needs >= 256)",
    ),
]
illegal = pytest.mark.parametrize(("output", "params", "shape", "message"), ILLEGAL, ids=[case[3] for case in ILLEGAL])


def logits(output: OutputType, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32 if output == "float" else np.int8)


@illegal
def test_evaluate_raises_with_subject_and_reason(
    output: OutputType, params: HccsParams, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        evaluate(logits(output, shape), DTYPES[output](0), params, "node 'sm'")
    assert str(caught.value).startswith("node 'sm': ")
    assert message in str(caught.value)


@illegal
def test_op_run_raises_with_the_name_of_the_node(
    output: OutputType, params: HccsParams, shape: tuple[int, ...], message: str
) -> None:
    evaluator = ReferenceEvaluator(hccs_model(params, output, len(shape), body=False), new_ops=[HCCS])
    with pytest.raises(ParameterError) as caught:
        evaluator.run(None, {"X": logits(output, shape)})
    assert str(caught.value).startswith("node 'attention': ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("x", "zero_point", "message"),
    [
        ("int8", "float32", "no int8 to float32 form"),
        ("float32", "uint8", "no float32 to uint8 form"),
        ("float64", "float32", "no float64 to float32 form"),
        ("uint8", "uint8", "no uint8 to uint8 form"),
        ("int8", "int8", "illegal output type (int8, needs uint8, int16 or float32)"),
        ("float32", "float16", "illegal output type (float16, needs uint8, int16 or float32)"),
    ],
)
def test_evaluate_raises_when_there_is_no_such_type_pair(x: str, zero_point: str, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        evaluate(np.zeros((2, 3), x), np.array(0, zero_point), HccsParams((HEAD,)), "node 'sm'")
    assert str(caught.value).startswith("node 'sm': ")
    assert message in str(caught.value)


def test_evaluate_raises_when_the_reciprocal_is_unknown() -> None:
    params = HccsParams((HEAD,), reciprocal="exact")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"unknown reciprocal \('exact', needs one of div, clb, norm\)"):
        evaluate(logits("uint8", (2, 3)), np.uint8(0), params, "node 'sm'")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"B": [300], "Dmax": [9]}, "attribute S is missing"),
        ({"B": [300, 300], "S": [1, 1, 1], "Dmax": [9]}, "attribute lists differ in length"),
    ],
)
def test_op_run_raises_with_the_name_of_the_node_when_attributes_do_not_fit(
    attributes: dict[str, list[int]], message: str
) -> None:
    node = helper.make_node(OP_TYPE, ["x", "z"], ["y"], name="sm", domain=DOMAIN, **attributes)
    with pytest.raises(ParameterError) as caught:
        ReferenceEvaluator(node, new_ops=[HCCS]).run(None, {"x": logits("uint8", (2, 3)), "z": np.uint8(0)})
    assert str(caught.value).startswith(f"node 'sm': {message}")


@pytest.mark.parametrize("masked", [2, -1])
def test_op_run_raises_when_masked_is_neither_0_nor_1(masked: int) -> None:
    node = helper.make_node(
        OP_TYPE, ["x", "z"], ["y"], name="sm", domain=DOMAIN, B=[300], S=[2], Dmax=[9], masked=masked
    )
    with pytest.raises(ParameterError, match=f"masked .*{masked}"):
        ReferenceEvaluator(node, new_ops=[HCCS]).run(None, {"x": logits("uint8", (2, 3)), "z": np.uint8(0)})


# Python op. onnxruntime-extensions lets exceptions of Python operators end the process: hence one of our own.


@pytest.mark.parametrize(
    ("malformed", "message"),
    [
        ({"scale": ["a", "b"]}, "attribute scale has the wrong type"),
        ({"B": [300.0]}, "attribute B has the wrong type"),
        ({"reciprocal": 3}, "attribute reciprocal has the wrong type"),
        ({"mask_gap": helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])}, "attribute mask_gap has the wrong type"),
    ],
    ids=["list", "list of integers", "string", "float"],
)
def test_python_session_is_refused_when_attributes_have_other_types(malformed: dict[str, Any], message: str) -> None:
    model = hccs_model(HccsParams((HEAD,)), "float", 2, body=False)
    (node,) = (node for node in model.graph.node if node.op_type == OP_TYPE)
    kept = [attribute for attribute in node.attribute if attribute.name not in malformed]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(*item) for item in malformed.items())])
    with pytest.raises(ParameterError) as caught:
        open_session(model, Path("model.onnx"), "python")
    assert str(caught.value).startswith(f"node 'attention': {message}")


def test_python_session_runs_nodes_with_attributes_that_it_does_not_know_and_refuses_text_that_is_none() -> None:
    model = hccs_model(HccsParams((HEAD,)), "uint8", 2, body=False)
    (node,) = (node for node in model.graph.node if node.op_type == OP_TYPE)
    x, kept = logits("uint8", (2, 3)), onnx.ModelProto.FromString(model.SerializeToString())
    node.attribute.append(helper.make_attribute("note", helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])))
    y = open_session(model, Path("model.onnx"), "python").run(None, {"X": x})[0]
    np.testing.assert_array_equal(y, evaluate(x, np.uint8(0), HccsParams((HEAD,)), "sm"))
    (node,) = (node for node in kept.graph.node if node.op_type == OP_TYPE)
    next(attribute for attribute in node.attribute if attribute.name == "reciprocal").s = b"\xff"
    with pytest.raises(ParameterError, match="unknown reciprocal"):
        open_session(kept, Path("model.onnx"), "python").run(None, {"X": x})


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from operator_models import hccs_model
from hccs_onnx.backends import open_session
from hccs_onnx.errors import HccsError
from hccs_onnx.params import HccsParams, HeadParams

model = hccs_model(HccsParams((HeadParams(300, 127, 127),)), "uint8", 2, body=False)
session = open_session(model, Path("model.onnx"), "python")
try:
    session.run(None, {"X": np.zeros((2, 3), np.int8)})
except Exception as error:
    print("raised", type(error).__name__, error)
else:
    print("computed")
"""
FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def illegal_python_op() -> subprocess.CompletedProcess[str]:
    paths = [str(FOLDER), *sys.path]
    script = f"import sys; sys.path[:0] = {paths!r}\n{SCRIPT}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_python_op_computes_nothing_when_illegal(illegal_python_op: subprocess.CompletedProcess[str]) -> None:
    said = illegal_python_op.stdout + illegal_python_op.stderr
    assert "computed" not in said
    assert "head 0: floor B - S*Dmax is negative (-15829, needs >= 0)" in said


def test_python_op_raises_when_illegal(illegal_python_op: subprocess.CompletedProcess[str]) -> None:
    assert illegal_python_op.stdout.startswith("raised ")
    assert illegal_python_op.returncode == 0
