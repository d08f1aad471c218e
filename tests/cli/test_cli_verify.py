"""`verify`: tables or one JSON document, and status 3 where a bound is missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hccs_onnx import rewrite, verify
from hccs_onnx.cli import main
from hccs_onnx.demo import bundled_models
from hccs_onnx.operator.schema import is_hccs


@pytest.fixture
def arguments(tmp_path: Path, digits_model: Path) -> list[str]:
    rewrite(digits_model, tmp_path / "r.onnx")
    with np.load(bundled_models() / "test.npz") as arrays:
        np.savez(tmp_path / "data.npz", pixels=arrays["pixels"][:20])
    return ["verify", str(digits_model), str(tmp_path / "r.onnx"), "--data", str(tmp_path / "data.npz")]


def strict_json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def test_verify_prints_outputs_and_heads(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0] == "20 feeds, backend function"
    assert lines[2].split()[0] == "output"
    assert lines[3].split()[0] == "scores"
    assert [line.split()[1] for line in lines[6:8]] == ["4", "4"]
    assert lines[-1] == "no bounds given"
    assert len(lines) == 9


def test_verify_prints_the_numbers_of_the_python_function_as_json(
    arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main([*arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    document = strict_json(out)
    expected = verify(arguments[1], arguments[2], arguments[4])
    assert err == ""
    assert document["passed"] is True
    assert document["failures"] == []
    assert (document["samples"], document["backend"]) == (20, "function")
    (scores,) = document["outputs"]
    assert scores == {name: getattr(expected.outputs[0], name) for name in scores}
    assert [head["kl"] for head in document["heads"]] == [head.kl for head in expected.heads]
    assert [head["head"] for head in document["heads"]] == [0, 1, 2, 3] * 2


def test_verify_passes_when_all_bounds_are_met(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    bounds = ["--min-cosine", "0.5", "--min-worst-cosine", "0.1", "--min-agreement", "0.5", "--max-difference", "100"]
    assert main([*arguments, *bounds]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "passed"
    assert err == ""


def test_verify_passes_when_the_only_bound_is_zero(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main([*arguments, "--min-cosine", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "passed"


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [
        ("--min-cosine", "0.9999", "mean cosine is too low"),
        ("--min-worst-cosine", "0.9999", "worst cosine is too low"),
        ("--max-difference", "0", "largest difference is too high"),
    ],
)
def test_verify_exits_with_3_when_a_bound_is_missed(
    arguments: list[str], capsys: pytest.CaptureFixture, option: str, value: str, what: str
) -> None:
    assert main([*arguments, option, value]) == 3
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "FAILED"
    assert err.startswith(f"error: {arguments[2]}: output 'scores': {what} (")
    assert err.endswith("Calibrate with more or better data, or relax the bound.\n")
    assert len(err.splitlines()) == 1


def test_verify_exits_with_3_when_no_output_has_what_a_bound_is_for(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in (Path(arguments[1]), Path(arguments[2])):
        model = onnx.load(path)
        model.graph.node.append(onnx.helper.make_node("Flatten", ["scores"], ["flat"], axis=0))  # (1, batch * class)
        model.graph.node.append(onnx.helper.make_node("Squeeze", ["flat"], ["row"]))
        model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("row", onnx.TensorProto.FLOAT, ["n"]))
        onnx.save(model, tmp_path / path.name)
    models = [str(tmp_path / Path(name).name) for name in arguments[1:3]]
    bounds = ["--min-agreement", "0.9", "--min-cosine", "0.5"]
    assert main(["verify", *models, *arguments[3:], *bounds]) == 3
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "FAILED"
    problem = "argmax agreement: no float output (batch, class) to judge (needs >= 0.9). Leave that bound out."
    assert err == f"error: {models[1]}: {problem}\n"
    assert main(["verify", *models, *arguments[3:], *bounds, "--json"]) == 3
    assert strict_json(capsys.readouterr().out)["passed"] is False


def test_verify_exits_with_3_and_prints_json_when_a_bound_is_missed(
    arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main([*arguments, "--min-cosine", "0.9999", "--max-difference", "0.001", "--json"]) == 3
    out, err = capsys.readouterr()
    document = strict_json(out)
    assert document["passed"] is False
    assert len(document["failures"]) == 2
    assert len(err.splitlines()) == 2


def test_verify_prints_strict_json_when_numbers_are_not_finite(
    arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    model = onnx.load(arguments[2])
    for node in model.graph.node:
        if is_hccs(node):
            offset = next(item for item in node.attribute if item.name == "B")
            offset.CopyFrom(onnx.helper.make_attribute("B", [127 * 127]))  # score floor 0
    onnx.save(model, arguments[2])
    assert main([*arguments, "--json"]) == 0
    document = strict_json(capsys.readouterr().out)
    assert {head["kl"] for head in document["heads"]} == {"inf"}


def test_verify_runs_on_the_python_backend(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main([*arguments, "--backend", "python"]) == 0
    python = capsys.readouterr().out
    assert python.splitlines()[0] == "20 feeds, backend python"
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[1:] == python.splitlines()[1:]


def test_verify_exits_with_1_when_the_models_do_not_belong_together(
    arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main(["verify", arguments[1], arguments[1], *arguments[3:]]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {arguments[1]}: holds no HCCS node. Rewrite the original first.\n"
