"""The digits example: weights out of the ONNX file, and the demo's optional part."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DIGITS, Run

from hccs_onnx import demo
from hccs_onnx.cli import main
from hccs_onnx.errors import HccsError
from hccs_onnx.operator.schema import is_hccs


def test_demo_is_refused_at_once_without_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    assert main(["demo", "--retrain", "-o", str(tmp_path / "demo")]) == 1
    needs = "demo: retraining needs torch, which is not installed. pip install hccs-onnx[torch]."
    assert needs in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_failing_script_is_reported(tmp_path: Path) -> None:
    (tmp_path / "retrain.py").write_text("raise SystemExit(7)")
    with pytest.raises(HccsError, match=r"retraining failed \(exit status 7\)\. See above"):
        demo.retrain(tmp_path)


def test_network_has_the_weights_of_the_onnx_file(run: Run) -> None:
    torch = pytest.importorskip("torch")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import numpy, torch, retrain\n"
        "model = retrain.load_float(Path(sys.argv[1]) / 'digits_torchscript.onnx')\n"
        "pixels = torch.from_numpy(numpy.load(Path(sys.argv[1]) / 'test.npz')['pixels'])\n"
        "sys.stdout.buffer.write(model(pixels).detach().numpy().tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", program, str(DIGITS)], capture_output=True, check=True)
    scores = np.frombuffer(done.stdout, np.float32).reshape(450, 10)
    with np.load(DIGITS / "test.npz") as data:
        expected = run(DIGITS / "digits_torchscript.onnx", {"pixels": data["pixels"]})[0]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
    assert torch.__version__


def test_script_refuses_a_reciprocal_without_integers() -> None:
    pytest.importorskip("torch")
    command = [sys.executable, str(DIGITS / "retrain.py"), "--reciprocal", "clb"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "error: --reciprocal clb is for integers (found --to float, needs --to uint8 or int16)"
    )


def test_demo_retrains_and_reads_digits_as_well_as_the_float_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    assert main(["demo", "--retrain", "-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    found = dict(re.findall(r"^(float|HCCS calibrated|HCCS retrained): ([\d.]+)%", out, re.MULTILINE))
    assert float(found["HCCS retrained"]) >= float(found["float"]) - 0.5
    assert float(found["HCCS retrained"]) > float(found["HCCS calibrated"])
    model = onnx.load(tmp_path / "digits_retrained.onnx")
    assert sum(is_hccs(node) for node in model.graph.node) == 2
    assert len(model.functions) == 1
