"""`inspect`: a line for each Softmax, or one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from hccs_onnx import rewrite
from hccs_onnx.cli import main

Capture = pytest.CaptureFixture

MIXED = """<ir_version: 8, opset_import: ["": 17]>
mixed (float[batch,4,n,8] q, float[batch,4,n,8] k, float[batch,4,n,8] v, float[batch,1,1,n] mask)
  => (float[batch,4,n,8] y, float[batch,4,n,8] classes) <float scale = {0.5}>
{
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  product = MatMul (q, kt)
  scaled = Mul (product, scale)
  logits = Add (scaled, mask)
  probabilities = Softmax <axis = -1> (logits)
  y = MatMul (probabilities, v)
  classes = Softmax <axis = -1> (q)
}"""


def strict_json(text: str) -> Any:
    """The one JSON document that `text` is, without NaN or Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def save(text: str, path: Path) -> None:
    """Save a model, its nodes named after what they make (text of onnx 1.16 has no node names)."""
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"{node.output[0]}_node"
    onnx.save(model, path)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    save(MIXED, tmp_path / "mixed.onnx")
    return tmp_path / "mixed.onnx"


@pytest.mark.parametrize(("name", "layers"), [("minilm_l6", 6), ("minilm_l3", 3)])
def test_inspect_prints_a_line_for_each_softmax_of_a_real_encoder(
    name: str, layers: int, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture
) -> None:
    assert main(["inspect", str(request.getfixturevalue(name))]) == 0
    out, err = capsys.readouterr()
    *lines, last = out.splitlines()
    assert err == ""
    assert len(lines) == layers
    assert all(line.endswith(": 12 heads, axis length dynamic, masked: rewrite") for line in lines)
    assert len({line.split(":")[0] for line in lines}) == layers
    assert last == f"{layers} of {layers} Softmax would be rewritten"


def test_inspect_says_the_same_as_json_on_a_real_encoder(minilm_l6: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(minilm_l6), "--json"]) == 0
    out, err = capsys.readouterr()
    document = strict_json(out)
    assert err == ""
    assert document["model"] == str(minilm_l6)
    assert [item["rewrite"] for item in document["softmaxes"]] == [True] * 6
    assert {(item["heads"], item["head_axis"], item["masked"]) for item in document["softmaxes"]} == {(12, -3, True)}


def test_inspect_prints_the_digits_model(digits_model: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(digits_model)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count(": 4 heads, axis length 16, not masked: rewrite\n") == 2


def test_inspect_tells_attention_from_the_rest_with_reasons(mixed: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(mixed)]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "probabilities_node: 4 heads, axis length n, masked: rewrite"
    assert second.startswith("classes_node: left alone: logits are not made by a product of queries and keys")
    assert last == "1 of 2 Softmax would be rewritten"


def test_inspect_as_json_has_the_same_fields_for_every_softmax(mixed: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(mixed), "--json"]) == 0
    attention, classifier = strict_json(capsys.readouterr().out)["softmaxes"]
    assert attention == {
        "node": "probabilities_node",
        "logits": "logits",
        "heads": 4,
        "head_axis": -3,
        "axis_length": "n",
        "masked": True,
        "absorbed_scale": attention["absorbed_scale"],
        "graph": "main graph",
        "rewrite": True,
        "reason": None,
    }
    assert classifier.keys() == attention.keys()
    assert classifier["rewrite"] is False
    assert classifier["reason"]


def test_inspect_succeeds_when_there_is_no_softmax(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) { y = Neg (x) }'
    save(text, tmp_path / "m.onnx")
    assert main(["inspect", str(tmp_path / "m.onnx")]) == 0
    assert capsys.readouterr() == ("0 of 0 Softmax would be rewritten\n", "")
    assert main(["inspect", str(tmp_path / "m.onnx"), "--json"]) == 0
    document = strict_json(capsys.readouterr().out)
    assert document == {"model": str(tmp_path / "m.onnx"), "hccs_nodes": 0, "softmaxes": []}


def test_inspect_tells_nodes_that_were_rewritten_before(digits_model: Path, tmp_path: Path, capsys: Capture) -> None:
    rewritten = str(rewrite(digits_model, tmp_path / "r.onnx").output)
    assert main(["inspect", rewritten]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "0 of 0 Softmax would be rewritten"
    assert second == "HCCS nodes already there: 2; to change them start from the original"
    assert main(["inspect", rewritten, "--json"]) == 0
    assert strict_json(capsys.readouterr().out)["hccs_nodes"] == 2


def test_inspect_changes_nothing(mixed: Path) -> None:
    before = mixed.read_bytes()
    main(["inspect", str(mixed)])
    assert mixed.read_bytes() == before
    assert list(mixed.parent.iterdir()) == [mixed]


def test_inspect_prints_nothing_but_json_when_the_model_is_bfloat16(mixed: Path) -> None:
    text = MIXED.replace(" <float scale = {0.5}>", "").replace("Mul (product, scale)", "Identity (product)")
    save(text.replace("float[", "bfloat16["), mixed)
    command = [sys.executable, "-m", "hccs_onnx", "inspect", str(mixed), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert len(strict_json(done.stdout)["softmaxes"]) == 2
