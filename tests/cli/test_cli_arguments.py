"""Arguments: given once, quoted where they are patterns, and named in errors as they were typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hccs_onnx.cli import main
from hccs_onnx.cli.common import command_line

Capture = pytest.CaptureFixture
QUOTE = "name several by one quoted pattern: 'shards/*.npz'"


def usage_error(arguments: list[str], capsys: Capture) -> str:
    """The error of a command line that argparse refuses, behind one line of usage."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    usage, error = err.splitlines()
    assert (out, usage.partition(":")[0]) == ("", "usage")
    return str(error.partition(": error: ")[2])


@pytest.mark.parametrize(
    "command",
    [
        ["calibrate", "m.onnx"],
        ["rewrite", "m.onnx"],
        ["verify", "m.onnx", "r.onnx"],
        ["report", "m.onnx", "--calibration", "c.json"],
    ],
    ids=lambda command: command[0],
)
def test_second_value_of_data_is_refused_with_how_to_name_several(command: list[str], capsys: Capture) -> None:
    twice = usage_error([*command, "--data", "a.npz", "--data", "b.npz"], capsys)
    assert twice == f"argument --data: given twice; {QUOTE}"
    unquoted = usage_error([*command, "--data", "a.npz", "b.npz", "c.npz"], capsys)
    assert unquoted == f"unrecognized arguments: b.npz c.npz; {QUOTE}"


def test_second_value_of_any_option_is_refused(capsys: Capture) -> None:
    command = ["calibrate", "m.onnx", "--data", "a.npz"]
    assert usage_error([*command, "--to", "uint8", "--to", "int16"], capsys) == "argument --to: given twice"
    assert usage_error([*command, "--engine", "local", "--engine", "ray"], capsys) == "argument --engine: given twice"
    again = usage_error([*command, "-o", "a.json", "--output", "b.json"], capsys)
    assert again == "argument -o/--output: given twice"


def test_repeatable_options_may_be_repeated(tmp_path: Path, capsys: Capture) -> None:
    model = str(tmp_path / "none.onnx")
    shapes = ["--shape", "a=1", "--shape", "b=2"]
    assert main(["estimate", model, "--target", "vek280", *shapes]) == 1
    assert "none.onnx: no such file" in capsys.readouterr().err


def test_unknown_option_needs_no_quotes(capsys: Capture) -> None:
    command = ["calibrate", "m.onnx", "--data", "a.npz", "--frobnicate"]
    assert usage_error(command, capsys) == "unrecognized arguments: --frobnicate"


def test_file_behind_an_option_that_takes_several_values_is_sent_to_the_front(capsys: Capture) -> None:
    error = usage_error(["estimate", "--target", "vek280", "--shape", "pixels=1,64", "m.onnx"], capsys)
    assert error == "argument --shape: 'm.onnx' is not NAME=SIZE,SIZE,...; files go before options"


@pytest.mark.parametrize(
    "command",
    [
        ["rewrite", "m.onnx"],
        ["calibrate", "m.onnx", "--data", "d.npz"],
        ["merge", "a.sketch"],
        ["report", "m.onnx", "--calibration", "c.json"],
    ],
    ids=lambda command: command[0],
)
def test_name_of_a_folder_is_no_name_of_a_file(command: list[str], capsys: Capture) -> None:
    assert (
        usage_error([*command, "-o", "out/"], capsys) == "argument -o/--output: 'out/' is a folder; name a file in it"
    )


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("rewrite m.onnx --to uint8 --logit-scale free --data d.npz --objective squares", "--objective: is for float "),
        ("calibrate m.onnx --data d.npz --scale-granularity tensor", "--scale-granularity: means nothing for float"),
        ("calibrate m.onnx --data d.npz --profile paper", "--profile: paper has integers only, and no"),
        ("calibrate m.onnx --data d.npz --profile paper --reciprocal div", "--profile: paper has integers only, and"),
        ("calibrate m.onnx --data d.npz --profile paper --to uint8", "--profile: paper has integers only, and no"),
        ("calibrate m.onnx --data d.npz --allow-repeats", "--allow-repeats: means nothing without --resume."),
        ("calibrate m.onnx --data d.npz --address ray://x", "--address: means nothing for the local engine."),
        ("calibrate m.onnx --data d.npz --sketch-out s -o s", "-o: and --sketch-out are one file (s)."),
        ("rewrite m.onnx --calibration c.json --data d.npz", "--data: means nothing with --calibration."),
        ("rewrite m.onnx --correct bias", "--correct: needs samples (bias). Add --data DATA."),
        ("rewrite m.onnx --include (", "--include: is no regular expression"),
        ("merge s", "-o: nothing to write. Name a calibration file with -o, or a sketch with --sketch-out."),
        ("verify m.onnx m.onnx --data d.npz --min-cosine 95", "--min-cosine: out of range (95.0, needs -1..1)."),
        ("verify m.onnx m.onnx --data d.npz --max-difference nan", "--max-difference: out of range (nan, needs"),
        ("codegen m.onnx -o aie --target vek280 --assume-unmasked", "--assume-unmasked: means nothing for"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused_by_name_with_status_2(
    command: str, error: str, digits_model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(digits_model.read_bytes())
    (tmp_path / "d.npz").write_bytes((digits_model.parent / "test.npz").read_bytes())
    before = sorted(tmp_path.iterdir())
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: {error}")
    assert sorted(tmp_path.iterdir()) == before


def test_commands_to_copy_are_quoted_for_a_shell() -> None:
    words = ("rewrite", Path("my models/a.onnx"), "--calibration", Path("c.json"))
    assert command_line(*words) == "python -m hccs_onnx rewrite 'my models/a.onnx' --calibration c.json"
