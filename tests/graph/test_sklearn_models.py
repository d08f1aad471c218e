"""Replicas of what skl2onnx writes: classifiers, and attention of operators from its algebra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import nodes
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hccs_onnx import calibrate, inspect, rewrite, verify
from hccs_onnx.errors import ModelError
from hccs_onnx.params import DATA_FREE
from hccs_onnx.reference import hccs

F32 = np.float32
WIDTH, CLASSES = 8, 3
RANDOM = np.random.default_rng(3)
WEIGHTS = {
    "Ma_MatMulcst": RANDOM.normal(0, 0.5, (WIDTH, 3 * WIDTH)).astype(F32),
    "Ar_ArrayFeatureExtractorcst": np.arange(WIDTH),
    "Ar_ArrayFeatureExtractorcst1": np.arange(WIDTH, 2 * WIDTH),
    "Ar_ArrayFeatureExtractorcst2": np.arange(2 * WIDTH, 3 * WIDTH),
    "Mu_Mulcst": np.array([WIDTH**-0.5], F32),
    "coefficient": RANDOM.normal(size=(WIDTH, CLASSES)).astype(F32),
    "intercepts": RANDOM.normal(size=(1, CLASSES)).astype(F32),
    "classes": np.arange(CLASSES, dtype=np.int32),
    "shape_tensor": np.array([-1]),
}
OFFSET, SCALE = RANDOM.normal(size=WIDTH), RANDOM.uniform(0.5, 2, WIDTH)
ML = "ai.onnx.ml"
FEED = {"X": RANDOM.normal(size=(12, WIDTH)).astype(F32)}


def node(op: str, inputs: list[str], output: str, name: str, domain: str = "", **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs, [output], name, domain=domain, **attributes)


def scaler() -> list[NodeProto]:
    return [node("Scaler", ["X"], "variable", "Scaler", ML, offset=list(OFFSET), scale=list(SCALE))]


def attention(picked: bool = False) -> list[NodeProto]:
    """Queries, keys and values are columns of one product; `picked`: so are the scores that Softmax reads."""
    columns = [
        node("ArrayFeatureExtractor", ["Ma_Y01", f"Ar_ArrayFeatureExtractorcst{number}"], f"Ar_Z0{end}",
             f"Ar_ArrayFeatureExtractor{number}", ML)
        for number, end in (("", ""), ("1", "2"), ("2", "3"))
    ]  # fmt: skip
    scores = "Ar_Z04" if picked else "Mu_C0"
    pick = node("ArrayFeatureExtractor", ["Mu_C0", "Ar_ArrayFeatureExtractorcst"], "Ar_Z04", "Ar_Picked", ML)
    return [
        node("MatMul", ["variable", "Ma_MatMulcst"], "Ma_Y01", "Ma_MatMul"),
        *columns,
        node("Transpose", ["Ar_Z02"], "Tr_transposed0", "Tr_Transpose", perm=[1, 0]),
        node("MatMul", ["Ar_Z0", "Tr_transposed0"], "Ma_Y0", "Ma_MatMul1"),
        node("Mul", ["Ma_Y0", "Mu_Mulcst"], "Mu_C0", "Mu_Mul"),
        *([pick] if picked else []),
        node("Softmax", [scores], "So_output0", "So_Softmax", axis=1),
        node("MatMul", ["So_output0", "Ar_Z03"], "variable1", "Ma_MatMul2"),
    ]


def classifier(x: str) -> list[NodeProto]:
    """MLPClassifier: its Softmax makes probabilities and, by ArgMax, the label."""
    return [
        node("MatMul", [x, "coefficient"], "mul_result", "MatMul"),
        node("Add", ["mul_result", "intercepts"], "add_result", "Add"),
        node("Softmax", ["add_result"], "out_activations_result", "Relu1"),  # it is called that
        node("ArgMax", ["out_activations_result"], "argmax_output", "ArgMax", axis=1),
        node("ZipMap", ["out_activations_result"], "output_probability", "ZipMap", ML, classlabels_int64s=[0, 1, 2]),
        node("ArrayFeatureExtractor", ["classes", "argmax_output"], "picked", "ArrayFeatureExtractor", ML),
        node("Reshape", ["picked", "shape_tensor"], "reshaped_result", "Reshape"),
        node("Cast", ["reshaped_result"], "output_label", "Cast", to=TensorProto.INT64),
    ]


def model(*parts: list[NodeProto]) -> onnx.ModelProto:
    made = [each for part in parts for each in part]
    x = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, WIDTH])
    if made[-1].output[0] == "output_label":
        maps = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        outputs = [
            helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]),
            helper.make_value_info("output_probability", helper.make_sequence_type_proto(maps)),
        ]
    else:
        outputs = [helper.make_tensor_value_info(made[-1].output[0], TensorProto.FLOAT, [None, WIDTH])]
    read = {name for each in made for name in each.input}
    weights = [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items() if name in read]
    graph = helper.make_graph(made, "ONNX(Pipeline)", [x], outputs, weights)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]
    return helper.make_model(graph, ir_version=8, producer_name="skl2onnx", opset_imports=imports)


def reference() -> np.ndarray:
    x = ((FEED["X"] - OFFSET.astype(F32)) * SCALE.astype(F32)).astype(F32)
    q, k, v = np.split(x @ WEIGHTS["Ma_MatMulcst"], 3, axis=1)
    head = DATA_FREE
    p = hccs(q @ k.T * F32(WIDTH**-0.5), F32, B=[head.B], S=[head.S], Dmax=[head.Dmax], scale=[head.scale])
    result: np.ndarray = p @ v
    return result


def test_attention_between_scaler_and_classifier_is_rewritten_and_the_classifier_left_alone(
    tmp_path: Path, run: Run
) -> None:
    onnx.save(model(scaler(), attention(), classifier("variable1")), tmp_path / "m.onnx")
    first, second = inspect(tmp_path / "m.onnx")
    assert (first.node, first.reason, first.heads, first.masked) == ("So_Softmax", None, 1, False)
    assert second.node == "Relu1"
    assert second.reason == "logits come from MatMul 'MatMul' with constant weights: a classifier or a gate"
    report = rewrite(tmp_path / "m.onnx", calibration=calibrate(tmp_path / "m.onnx", [FEED]))
    result = onnx.load(report.output)
    assert len(nodes(result, "HCCS")) == len(nodes(result, "Softmax")) == len(nodes(result, "ZipMap")) == 1
    assert [entry.domain for entry in result.opset_import] == ["", ML, "hccs"]
    labels, maps = run(result, FEED)
    expected_labels, expected_maps = run(tmp_path / "m.onnx", FEED)
    assert (labels == expected_labels).mean() > 0.8
    assert maps[0].keys() == expected_maps[0].keys()
    compared = verify(tmp_path / "m.onnx", report.output, [FEED])
    assert compared.outputs == ()  # labels and maps are no float tensors
    assert 0 < compared.heads[0].kl < 0.2


def test_attention_of_columns_equals_the_reference(tmp_path: Path, run: Run) -> None:
    onnx.save(model(scaler(), attention()), tmp_path / "m.onnx")
    result = rewrite(tmp_path / "m.onnx").output
    np.testing.assert_allclose(run(result, FEED)[0], reference(), rtol=0, atol=2e-2)


def test_scores_of_picked_columns_are_left_alone(tmp_path: Path) -> None:
    onnx.save(model(scaler(), attention(picked=True)), tmp_path / "m.onnx")
    (item,) = inspect(tmp_path / "m.onnx")
    assert item.reason == "logits come from ArrayFeatureExtractor 'Ar_Picked', not from a product of queries and keys"


def test_classifier_alone_has_nothing_to_rewrite(tmp_path: Path) -> None:
    onnx.save(model(classifier("X")), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"holds no attention \(1 Softmax left alone, .*a classifier or a gate"):
        rewrite(tmp_path / "m.onnx")


def test_classifier_that_is_one_operator_has_no_softmax(tmp_path: Path) -> None:
    """LinearClassifier, as of LogisticRegression, has its own Softmax, which is no attention."""
    made = [
        helper.make_node(
            "LinearClassifier", ["X"], ["output_label", "scores"], domain=ML, coefficients=[0.5] * WIDTH * CLASSES,
            intercepts=[0.0] * CLASSES, classlabels_ints=[0, 1, 2], post_transform="SOFTMAX",
        ),
        node("Normalizer", ["scores"], "probabilities", "Normalizer", ML, norm="L1"),
        node("ZipMap", ["probabilities"], "output_probability", "ZipMap", ML, classlabels_int64s=[0, 1, 2]),
        node("Identity", ["output_label"], "output_label_copy", "Identity"),
    ]  # fmt: skip
    proto = model(made)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("output_label", TensorProto.INT64, [None]))
    onnx.save(proto, tmp_path / "m.onnx")
    assert inspect(tmp_path / "m.onnx") == []
    with pytest.raises(ModelError, match="holds no Softmax node"):
        rewrite(tmp_path / "m.onnx")
