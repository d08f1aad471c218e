"""Names that hold line ends and commands to the terminal: escaped wherever they are printed, and kept in JSON."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT
from graph.models import Attention

from hccs_onnx.cli import main
from hccs_onnx.cli.common import PrintableFormatter, printable

EVIL = "a\nb\x1b[2J\x07\r\u202e\x9b1m "
VARIANT = Attention(mask="input", scale="mul")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose names are all evil, two Softmax in it, of which one is left alone."""
    model = VARIANT.model()
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        node.name = EVIL + node.name
        node.input[:] = [name if name in kept or not name else EVIL + name for name in node.input]
        node.output[:] = [name if name in kept else EVIL + name for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = EVIL + tensor.name
    model.graph.node.append(onnx.helper.make_node("Softmax", ["x"], [EVIL + "classes"], EVIL))
    model.graph.output.append(onnx.helper.make_tensor_value_info(EVIL + "classes", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "0.npz", **VARIANT.feed())
    return folder


def assert_printable(text: str) -> None:
    assert text
    assert [line for line in text.split("\n") if not line.isprintable()] == []


@pytest.mark.parametrize(
    "command",
    [
        "inspect {0}",
        "calibrate {0} --data {1}",
        "rewrite {0}",
        "rewrite {0} --strict --exclude .",
        "rewrite {0} -o {2}",
        "rewrite {2}",
        "rewrite {0} --data {1} --to uint8",
        "verify {0} {0} --data {1}",
    ],
)
def test_what_is_printed_of_evil_names_is_printable(
    model: Path, data: Path, capsys: pytest.CaptureFixture, command: str
) -> None:
    evil = model.with_name(f"{EVIL}.onnx")
    main([word.format(model, data, evil) for word in command.split()])
    out, err = capsys.readouterr()
    assert_printable(out + err)


def test_lines_are_those_of_plain_names(model: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(model)]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert "b\\x1b[2J\\x07" in first
    assert first.endswith(": rewrite")
    assert "left alone: " in second
    assert last == "1 of 2 Softmax would be rewritten"
    assert main(["rewrite", str(model)]) == 0
    rewritten = str(model.with_name("model.hccs.onnx"))
    capsys.readouterr()
    assert main(["verify", str(model), rewritten, "--data", str(data)]) == 0
    out = capsys.readouterr().out
    assert_printable(out)
    assert len(out.splitlines()) == 9  # title, two outputs, a node, their headers, empty lines, verdict
    assert "a\\nb\\x1b[2J\\x07\\r\\u202e\\x9b1m classes" in out


def test_names_are_as_they_are_in_json(model: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(model), "--json"]) == 0
    attention, classes = json.loads(capsys.readouterr().out)["softmaxes"]
    assert attention["logits"].startswith(EVIL)
    assert classes["logits"] == "x"


def test_error_is_printable_in_a_process_of_its_own(model: Path) -> None:
    command = [sys.executable, "-m", "hccs_onnx", "inspect", str(model.with_name(EVIL))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert_printable(done.stderr.decode())
    assert done.stderr.count(b"\n") == 1


def test_warnings_are_printable() -> None:
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "node '%s' is left", (EVIL,), None)
    assert_printable(PrintableFormatter().format(record))


@pytest.mark.parametrize("text", ["", "encoder/layer.0 [é] \\ 'q' 注意", "a  b"])
def test_printable_text_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\n", "\\n"),
        ("\x1b", "\\x1b"),
        ("\x9b", "\\x9b"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
        ("\0", "\\x00"),
    ],
)
def test_unprintable_letters_are_escaped(text: str, escaped: str) -> None:
    assert printable(text) == escaped
