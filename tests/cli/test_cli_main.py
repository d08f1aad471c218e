"""The command line as a whole: help, version, usage errors, and what happens to its output."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hccs_onnx
from hccs_onnx.cli import main
from hccs_onnx.demo import bundled_models

COMMANDS = [
    "inspect", "calibrate", "merge", "rewrite", "verify", "report", "codegen", "simulate", "estimate", "doctor", "demo",
]  # fmt: skip
MODEL = str(bundled_models() / "digits_dynamo.onnx")


def run_module(*arguments: str, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "hccs_onnx", *arguments]
    return subprocess.run(command, timeout=120, check=False, **{"capture_output": True, "text": True, **options})


def exits(arguments: list[str], capsys: pytest.CaptureFixture) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return (caught.value.code, *capsys.readouterr())


def test_help_lists_the_commands(capsys: pytest.CaptureFixture) -> None:
    status, out, err = exits(["--help"], capsys)
    assert (status, err) == (0, "")
    assert re.findall(r"^    (\w+)\b", out, re.MULTILINE) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example_that_parses(command: str, capsys: pytest.CaptureFixture) -> None:
    from hccs_onnx.cli import parser

    status, out, err = exits([command, "--help"], capsys)
    assert (status, err) == (0, "")
    example = out.split("example:\n")[1].strip()
    assert example.startswith(f"python -m hccs_onnx {command}")
    assert parser().parse_args(example.split()[3:]).run is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_every_option(command: str, capsys: pytest.CaptureFixture) -> None:
    _, out, _ = exits([command, "--help"], capsys)
    options = re.split(r"\n  (?=\S)", out.split("options:\n")[1].split("\nexample:")[0])
    assert options
    for option in options:
        assert len(re.split(r" {2,}|\n", option.strip(), maxsplit=1)) == 2, option


def test_version_is_printed(capsys: pytest.CaptureFixture) -> None:
    assert exits(["--version"], capsys) == (0, f"hccs-onnx {hccs_onnx.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["inspect"],
        ["inspect", "a.onnx", "b.onnx"],
        ["inspect", "a.onnx", "--frobnicate"],
        ["calibrate", "a.onnx"],
        ["calibrate", "a.onnx", "--data", "d.npz", "--granularity", "row"],
        ["rewrite", "a.onnx", "-o", "out/"],
        ["calibrate", "a.onnx", "--data", "d.npz", "--data", "e.npz"],
        ["verify", "a.onnx", "b.onnx", "--data", "d.npz", "e.npz"],
        ["estimate", "a.onnx", "--target", "vek280", "--tiles", "0"],
        ["rewrite"],
        ["verify", "a.onnx", "--data", "d.npz"],
        ["verify", "a.onnx", "b.onnx"],
        ["verify", "a.onnx", "b.onnx", "--data", "d.npz", "--backend", "abacus"],
        ["verify", "a.onnx", "b.onnx", "--data", "d.npz", "--min-cosine", "high"],
        ["demo", "-o"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    status, out, err = exits(arguments, capsys)
    assert (status, out) == (2, "")
    usage, error = err.splitlines()[-2:]
    assert usage.startswith("usage: python -m hccs_onnx")
    assert error.startswith("python -m hccs_onnx")
    assert "error: " in error


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_of_a_command_is_one_line_that_parses(command: str, capsys: pytest.CaptureFixture) -> None:
    """Files come before options, some of which take several values."""
    from hccs_onnx.cli import parser

    usage = exits([command, "--help"], capsys)[1].splitlines()[0]
    files, needed = r"( [A-Z]+( \.\.\.)?)*", r"( --\w+ [A-Z]+)*"
    found = re.fullmatch(rf"usage: python -m hccs_onnx ({command}{files}{needed}) \[options\]", usage)
    assert found is not None, usage
    assert parser().parse_args(found[1].replace(" ...", "").split()).run is not None


def test_module_runs_as_a_program() -> None:
    done = run_module("inspect", MODEL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("2 of 2 Softmax would be rewritten\n")


def test_module_passes_the_exit_status_on(tmp_path: Path) -> None:
    done = run_module("inspect", str(tmp_path / "none.onnx"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {tmp_path / 'none.onnx'}: no such file. Check the path.\n"


def test_output_may_be_cut_off_by_its_reader() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_module("inspect", MODEL, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_behind_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = run_module("inspect", MODEL, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*No space left on device.*\n", done.stderr)
