"""The command line of the flow aie4ml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aie.conftest import Rewrite
from hccs_onnx.calibration.data import Feed
from hccs_onnx.cli import main


@pytest.fixture
def command(paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path) -> list[str]:
    np.savez(tmp_path / "samples.npz", pixels=np.concatenate([feed["pixels"] for feed in digits_data[:4]]))
    model, data, folder = paper_digits(), tmp_path / "samples.npz", tmp_path / "aie"
    words = ["codegen", model, "-o", folder, "--target", "vek280", "--flow", "aie4ml", "--data", data]
    return [*map(str, words), "--shape", "pixels=1,64"]


def test_codegen_prints_a_line_a_block(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[1].split()[1:4] == ["4", "16", "28"]
    assert f"next: python {tmp_path / 'aie'}/write_firmware.py" in err
    assert "share of HCCS outputs that are the same integers" in err
    assert (tmp_path / "aie" / "write_firmware.py").is_file()
    assert main(["simulate", str(tmp_path / "aie")]) == 1
    refusal = (
        f"error: {tmp_path / 'aie'}: is a project of the flow aie4ml. Run python {tmp_path / 'aie'}/write_firmware.py"
    )
    assert capsys.readouterr().err.startswith(refusal)


@pytest.mark.parametrize("option", [["--tiles", "4"], ["--kernel", "fast"]])
def test_codegen_refuses_options_of_the_other_flow(
    command: list[str], tmp_path: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *option]) == 2
    assert f"error: {option[0]}: means nothing for the flow aie4ml" in capsys.readouterr().err
    assert not (tmp_path / "aie").exists()
