"""`calibrate --sketch-out`, `--resume`, and `merge`: the file of one run over all data, whatever the road to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hccs_onnx import calibrate
from hccs_onnx.cli import main
from hccs_onnx.demo import bundled_models

DIGITS = bundled_models() / "digits_torchscript.onnx"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data in three files, and a sketch of each, with rows."""
    folder = tmp_path_factory.mktemp("parts")
    shutil.copy(DIGITS, folder / "digits.onnx")
    with np.load(bundled_models() / "calibration.npz") as arrays:
        for number in range(3):
            np.savez(folder / f"data{number}.npz", pixels=arrays["pixels"][4 * number : 4 * number + 4])
            assert run("calibrate", folder / "digits.onnx", "--data", folder / f"data{number}.npz", "--to", "uint8",
                       "--sketch-out", folder / f"part{number}.sketch") == 0  # fmt: skip
    return folder


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_sketch_is_written_instead_of_a_calibration(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copy(DIGITS, tmp_path / "digits.onnx")
    target = tmp_path / "a.sketch"
    assert run("calibrate", tmp_path / "digits.onnx", "--data", parts / "data0.npz", "--sketch-out", target) == 0
    out, err = capsys.readouterr()
    assert out == f"4 feeds, {4 * 2 * 4 * 16} rows in 1 part\n"
    assert err == f"wrote {target}; next: python -m hccs_onnx merge {target} ... -o CALIB.json\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sketch", "digits.onnx"]


def test_sketch_is_written_beside_a_calibration_when_both_are_asked_for(parts: Path, tmp_path: Path) -> None:
    arguments = ["--data", parts / "data0.npz", "--to", "uint8", "--sketch-out", tmp_path / "a.sketch"]
    assert run("calibrate", parts / "digits.onnx", *arguments, "-o", tmp_path / "c.json") == 0
    assert (tmp_path / "a.sketch").read_bytes() == (parts / "part0.sketch").read_bytes()
    assert (tmp_path / "c.json").read_text() == calibrate(DIGITS, parts / "data0.npz", to="uint8").to_json()


@pytest.mark.parametrize(
    "options", [[], ["--granularity", "layer"], ["--to", "uint8"]], ids=["float", "layer", "uint8"]
)
def test_merge_gives_the_file_of_one_run(parts: Path, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "one").mkdir()
    assert (
        run("calibrate", parts / "digits.onnx", "--data", parts / "data?.npz", "-o", tmp_path / "1.json", *options) == 0
    )
    sketches = [parts / f"part{number}.sketch" for number in (2, 0, 1)]
    assert run("merge", *sketches, "-o", tmp_path / "2.json", *options) == 0
    assert run("merge", parts / "part*.sketch", "-o", tmp_path / "3.json", *options) == 0
    assert (
        (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes() == (tmp_path / "3.json").read_bytes()
    )


def test_merge_in_two_steps_and_resuming_give_the_same_sketch(parts: Path, tmp_path: Path) -> None:
    p0, p1, p2 = (parts / f"part{number}.sketch" for number in range(3))
    assert run("merge", p0, p1, p2, "--sketch-out", tmp_path / "all.sketch") == 0
    assert run("merge", p1, p0, "--sketch-out", tmp_path / "two.sketch") == 0
    assert run("merge", p2, tmp_path / "two.sketch", "--sketch-out", tmp_path / "again.sketch") == 0
    resume = ["--to", "uint8", "--resume", tmp_path / "two.sketch", "--sketch-out", tmp_path / "more.sketch"]
    assert run("calibrate", parts / "digits.onnx", "--data", parts / "data2.npz", *resume) == 0
    expected = (tmp_path / "all.sketch").read_bytes()
    assert (tmp_path / "again.sketch").read_bytes() == (tmp_path / "more.sketch").read_bytes() == expected


def test_data_counted_before_is_refused_unless_allowed(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copy(parts / "part0.sketch", tmp_path / "retry.sketch")
    sketches = [parts / "part0.sketch", tmp_path / "retry.sketch"]
    assert run("merge", *sketches, "-o", tmp_path / "c.json") == 1
    assert "retry.sketch: holds the same data as" in capsys.readouterr().err
    arguments = [
        "calibrate",
        parts / "digits.onnx",
        "--data",
        parts / "data0.npz",
        "--to",
        "uint8",
        "--resume",
        sketches[0],
    ]
    assert run(*arguments, "-o", tmp_path / "c.json") == 1
    assert "data0.npz: holds the same data as the resumed sketch" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()
    assert run("merge", *sketches, "-o", tmp_path / "c.json", "--allow-repeats") == 0


def test_resuming_from_another_model_is_refused_before_it_runs(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hccs_onnx.calibration.engines.local.Collector", None)  # nothing may run
    other = bundled_models() / "digits_dynamo.onnx"
    resume = ["--to", "uint8", "--resume", parts / "part0.sketch", "-o", tmp_path / "c.json"]
    assert run("calibrate", other, "--data", parts / "data1.npz", *resume) == 1
    assert "part0.sketch: is a sketch of another model" in capsys.readouterr().err


def test_integers_are_refused_when_rows_were_not_kept(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "float.sketch"
    assert run("calibrate", parts / "digits.onnx", "--data", parts / "data0.npz", "--sketch-out", target) == 0
    assert run("merge", target, "--to", "int16", "-o", tmp_path / "c.json") == 1
    assert f"{target}: holds no rows, which a fit for int16 output needs" in capsys.readouterr().err
    assert run("merge", target, parts / "part1.sketch", "-o", tmp_path / "c.json") == 1
    assert "is a sketch of another kind" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["merge", "part0.sketch", "-o", "part0.sketch"], "output is an input file"),
        (["merge", "*.none", "-o", "c.json"], "matches no file or folder. Check the name."),
        (["merge", "data0.npz", "-o", "c.json"], "is not a sketch of hccs-onnx"),
        (["calibrate", "digits.onnx", "--data", "data?.npz", "-o", "data1.npz"], "data1.npz: output is an input file"),
        (["calibrate", "digits.onnx", "--data", ".", "-o", "data1.npz"], "data1.npz: output is an input file"),
        (["calibrate", "digits.onnx", "--data", ".", "--sketch-out", "./data1.npz"], "output is an input file"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_before_anything_is_written(
    parts: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], pattern: str
) -> None:
    monkeypatch.chdir(parts)
    before = sorted(path.name for path in parts.iterdir())
    assert main(arguments) == 1
    assert pattern in capsys.readouterr().err
    assert sorted(path.name for path in parts.iterdir()) == before


def test_options_that_a_sketch_does_not_depend_on_are_named(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target, options = tmp_path / "a.sketch", ["--to", "uint8", "--granularity", "layer", "--logit-zero-point", "zero"]
    assert run("calibrate", parts / "digits.onnx", "--data", parts / "data0.npz", "--sketch-out", target, *options) == 0
    assert "same for every --granularity, --logit-zero-point; " in capsys.readouterr().err
    assert target.read_bytes() == (parts / "part0.sketch").read_bytes()
    assert run("merge", target, "--sketch-out", tmp_path / "b.sketch", "--granularity", "layer") == 0
    assert "same for every --granularity; " in capsys.readouterr().err
    assert run("merge", target, "--sketch-out", tmp_path / "b.sketch", "-o", tmp_path / "c.json", *options) == 0
    assert "same for every" not in capsys.readouterr().err


def test_shards_must_be_a_number_above_zero(parts: Path, capsys: pytest.CaptureFixture) -> None:
    for text in ("0", "-1", "many"):
        with pytest.raises(SystemExit):
            run("calibrate", parts / "digits.onnx", "--data", parts / "data0.npz", f"--shards={text}")
        assert "is not a number above 0" in capsys.readouterr().err
