"""The diagnosis: every backend is tried, what is missing is no fault, what is broken is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from hccs_onnx import doctor
from hccs_onnx.backends import BACKENDS, Backend
from hccs_onnx.cli import main
from hccs_onnx.operator import native, python_op


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if hccs-onnx had been installed without the library."""
    monkeypatch.delenv("HCCS_LIBRARY", raising=False)
    monkeypatch.setattr(native, "_FILE_NAME", "no_such_library.so")


@pytest.mark.usefixtures("native_library")
def test_diagnosis_finds_every_backend_exact() -> None:
    found = doctor.diagnose()
    assert [item.name for item in found.backends] == list(BACKENDS)
    assert found.faults == ()
    assert all(item.problem is None for item in found.backends)
    assert found.library is not None
    assert found.packages["onnxruntime"]


@pytest.mark.parametrize("output", ["float", "uint8", "int16"])
def test_diagnosis_notices_a_wrong_result(monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    exact = doctor.evaluate

    def off_by_one(x: np.ndarray, zero: np.ndarray, *rest: object) -> np.ndarray:
        y = exact(x, zero, *rest)
        return y + np.ones((), y.dtype) if zero.dtype == doctor._DTYPES[output] else y

    monkeypatch.setattr(doctor, "evaluate", off_by_one)
    assert f"backend function: wrong results for {output}" in doctor.diagnose().faults


@pytest.mark.parametrize("output", ["float", "uint8", "int16"])
def test_diagnosis_goes_on_when_a_backend_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    opened = doctor.open_session

    class Failing:
        def run(self, *_: object) -> None:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : out of order\nsecond line")

    def open_or_fail(model: onnx.ModelProto, path: Path, backend: Backend) -> object:
        fails = backend == "function" and output in model.functions[0].doc_string
        return Failing() if fails else opened(model, path, backend)

    monkeypatch.setattr(doctor, "open_session", open_or_fail)
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert err == "error: backend function: fails on a test model: out of order\n"
    assert "backend python          works" in out


def test_doctor_reports_extensions_that_this_onnxruntime_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "extensions.so").write_text("no library")
    monkeypatch.setattr(python_op, "register", lambda: str(tmp_path / "extensions.so"))
    assert main(["doctor"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: backend python: python backend: onnxruntime ")
    assert "cannot register onnxruntime-extensions: " in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("absent")
def test_doctor_counts_a_missing_library_as_a_fault_only_when_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert "installed without it" in out
    assert err == ""
    assert main(["doctor", "--require-native"]) == 1
    assert "installed without it" in capsys.readouterr().err


def test_doctor_reports_a_library_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    monkeypatch.setenv("HCCS_LIBRARY", str(broken))
    assert main(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert "backend function        works" in out
    assert err.startswith("error: backend native: ")
    assert "cannot register it" in err


@pytest.mark.usefixtures("native_library")
def test_doctor_names_the_kernel_that_would_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HCCS_KERNEL", "portable")
    assert main(["doctor"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "kernels portable" in line)
    assert line.endswith("sessions created now use these")
    monkeypatch.setenv("HCCS_KERNEL", "abacus")
    assert main(["doctor"]) == 1
    err = capsys.readouterr().err
    assert "HCCS_KERNEL names no kernel that runs here ('abacus'" in err
    assert "Unset it or name another" in err
    assert "without hccs-onnx" not in err  # not the model's fault


@pytest.mark.usefixtures("native_library")
def test_doctor_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert err == ""
    assert content["faults"] == []
    assert content["library"]["kernels"][-1] == {"name": "portable", "runs_here": True}
