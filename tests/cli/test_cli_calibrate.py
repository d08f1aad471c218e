"""`calibrate`: a summary on stdout, the file beside the model, the next step on stderr."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hccs_onnx import Calibration, calibrate, rewrite
from hccs_onnx.cli import main
from hccs_onnx.demo import bundled_models


@pytest.fixture
def model(tmp_path: Path, digits_model: Path) -> Path:
    return Path(shutil.copy(digits_model, tmp_path / "digits.onnx"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with np.load(bundled_models() / "calibration.npz") as arrays:
        np.savez(tmp_path / "data.npz", pixels=arrays["pixels"][:6])
    return tmp_path / "data.npz"


def test_calibrate_writes_its_file_beside_the_model(model: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["calibrate", str(model), "--data", str(data)]) == 0
    out, err = capsys.readouterr()
    target = model.with_name("digits.hccs.json")
    assert Calibration.load(target) == calibrate(model, data)
    assert err == f"wrote {target}; next: python -m hccs_onnx rewrite {model} --calibration {target}\n"
    header, *lines = out.splitlines()
    assert header.split("  ")[0] == "Softmax"
    assert [line.split()[0] for line in lines] == [softmax.node for softmax in Calibration.load(target).softmaxes]
    assert all(line.split()[1:3] == ["4", "16"] for line in lines)


def test_calibrate_prints_mean_and_worst_row_mass_deficit_for_integers(
    model: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    """div loses row mass, a different share in each head."""
    options = ["--to", "uint8", "--reciprocal", "div"]
    assert main(["calibrate", str(model), "--data", str(data), *options]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    names = [name for name in re.split(r"  +", header) if name]
    assert names[-3:] == ["median Dmax", "mean row-mass deficit", "worst row-mass deficit"]
    calibration = Calibration.load(model.with_name("digits.hccs.json"))
    for line, softmax in zip(lines, calibration.softmaxes, strict=True):
        deficits = [fit.deficit for fit in softmax.heads]
        mean, worst = np.mean(deficits), max(deficits, key=abs)
        assert mean != worst
        assert [float(text) for text in line.split()[-2:]] == pytest.approx([mean, worst], rel=0.05)


def test_calibrate_prints_no_deficit_for_float_output(model: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["calibrate", str(model), "--data", str(data)]) == 0
    assert "deficit" not in capsys.readouterr().out


def test_calibrate_writes_where_it_is_told(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert main(["calibrate", str(model), "--data", str(data), "-o", str(tmp_path / "there" / "c.json")]) == 0
    assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["c.json"]


def test_calibrate_does_not_replace_the_models_external_data(
    digits_model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, weights = tmp_path / "large.onnx", tmp_path / "weights.bin"
    onnx.save(onnx.load(digits_model), path, save_as_external_data=True, location=weights.name, size_threshold=0)
    before = weights.read_bytes()
    assert main(["calibrate", str(path), "--data", str(data), "-o", str(weights)]) == 1
    assert f"{weights}: output is an input file" in capsys.readouterr().err
    assert weights.read_bytes() == before


def test_calibrate_replaces_an_older_file(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("old")
    assert main(["calibrate", str(model), "--data", str(data), "-o", str(tmp_path / "c.json")]) == 0
    assert Calibration.load(tmp_path / "c.json").rows == 6 * 2 * 4 * 16


@pytest.mark.parametrize("granularity", ["head", "layer", "global"])
def test_calibrate_takes_a_granularity(model: Path, data: Path, tmp_path: Path, granularity: str) -> None:
    target = tmp_path / "c.json"
    assert main(["calibrate", str(model), "--data", str(data), "--granularity", granularity, "-o", str(target)]) == 0
    assert target.read_text() == calibrate(model, data, granularity=granularity).to_json()  # type: ignore[arg-type]
    assert json.loads(target.read_text())["granularity"] == granularity


def test_calibrate_takes_an_objective(model: Path, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.json"
    assert main(["calibrate", str(model), "--data", str(data), "--objective", "squares", "-o", str(target)]) == 0
    assert (
        target.read_text() == calibrate(model, data, objective="squares").to_json() != calibrate(model, data).to_json()
    )


@pytest.mark.parametrize("granularity", ["head", "tensor"])
def test_calibrate_gives_logits_a_power_of_two_scale_and_zero_point_0(
    model: Path, data: Path, tmp_path: Path, granularity: str
) -> None:
    target = tmp_path / "c.json"
    options = ["--to", "uint8", "--logit-scale", "power-of-two", "--logit-zero-point", "zero"]
    options += ["--scale-granularity", granularity, "-o", str(target)]
    assert main(["calibrate", str(model), "--data", str(data), *options]) == 0
    proto = onnx.load(rewrite(model, tmp_path / "digits.uint8.onnx", calibration=Calibration.load(target)).output)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    quantizers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert len(quantizers) == 2
    for node in quantizers:
        scale, zero_point = (constants[name] for name in node.input[1:])
        assert (np.frexp(scale)[0] == 0.5).all()
        assert (zero_point == 0).all()
        assert len(np.unique(scale)) == 1 or granularity == "head"


@pytest.mark.parametrize(
    "option", [("--logit-scale", "power-of-two"), ("--logit-zero-point", "zero"), ("--scale-granularity", "tensor")]
)
def test_calibrate_refuses_a_choice_of_quantizer_when_output_is_float(
    model: Path, data: Path, option: tuple[str, str], capsys: pytest.CaptureFixture
) -> None:
    assert main(["calibrate", str(model), "--data", str(data), *option]) != 0
    assert "means nothing for float output" in capsys.readouterr().err


def test_calibrate_takes_folders(model: Path, tmp_path: Path, data: Path) -> None:
    (tmp_path / "samples").mkdir()
    with np.load(data) as arrays:
        for number, sample in enumerate(arrays["pixels"]):
            np.savez(tmp_path / "samples" / f"{number}.npz", pixels=sample[None])
    for source, target in ((data, "a.json"), (tmp_path / "samples", "b.json")):
        assert main(["calibrate", str(model), "--data", str(source), "-o", str(tmp_path / target)]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_calibrate_shows_progress_on_stderr_only_to_a_person(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["calibrate", str(model), "--data", str(data)]) == 0
    out, err = capsys.readouterr()
    assert "calibrating: 100%" in err
    assert "6/6" in err
    assert "calibrating" not in out
