"""The command line of the flow aie4ml."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from aie.conftest import Rewrite
from hccs_onnx.calibration.data import Feed
from hccs_onnx.cli.codegen_aie4ml import add_options, run
from hccs_onnx.errors import ExitStatus, HccsError


@pytest.fixture
def options(paper_digits: Rewrite, digits_data: list[Feed], tmp_path: Path) -> argparse.Namespace:
    """What codegen's parser gives."""
    np.savez(tmp_path / "samples.npz", pixels=np.concatenate([feed["pixels"] for feed in digits_data[:4]]))
    parser = argparse.ArgumentParser()
    add_options(parser)
    return argparse.Namespace(
        model=paper_digits(),
        output=tmp_path / "aie",
        target="vek280",
        node=[],
        shape=[[("pixels", (1, 64))]],
        data=tmp_path / "samples.npz",
        tiles=None,
        **vars(parser.parse_args([])),
    )


def test_codegen_prints_a_line_a_block(options: argparse.Namespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(options) == ExitStatus.OK
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[1].split()[1:4] == ["4", "16", "28"]
    assert f"next: python {options.output}/write_firmware.py" in err
    assert (options.output / "write_firmware.py").is_file()


def test_codegen_refuses_options_of_the_other_flow(options: argparse.Namespace) -> None:
    options.tiles = 4
    with pytest.raises(HccsError, match="--tiles: means nothing for the flow aie4ml"):
        run(options)
    assert not options.output.exists()
