"""The public face: pinned names, documentation with examples, and an import that stays light."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys

import pytest

import hccs_onnx

NAMES = [
    "Bounds",
    "Calibration",
    "HccsError",
    "HccsParams",
    "HeadParams",
    "__version__",
    "calibrate",
    "hccs",
    "inspect",
    "library_path",
    "rewrite",
    "session_options",
    "verify",
]
HEAVY = [
    "hccs_onnx.report", "jinja2", "jsonschema", "matplotlib", "onnx_graphsurgeon", "onnxruntime",
    "onnxruntime_extensions", "torch", "tqdm",
]  # fmt: skip


def test_public_names_are_pinned() -> None:
    assert hccs_onnx.__all__ == NAMES
    assert all(hasattr(hccs_onnx, name) for name in NAMES)


def test_version_is_a_version() -> None:
    parts = hccs_onnx.__version__.split(".")
    assert len(parts) >= 2
    assert parts[0].isdigit()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_public_name_is_documented_with_an_example(name: str) -> None:
    documentation = inspect.getdoc(getattr(hccs_onnx, name)) or ""
    sections = re.findall(r"^(\w+)\n-+$", documentation, re.MULTILINE)
    assert "Parameters" in sections or not inspect.signature(getattr(hccs_onnx, name)).parameters
    assert "Examples" in sections
    assert ">>> " in documentation.split("Examples")[1]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_public_parameters_are_all_documented(name: str) -> None:
    thing = getattr(hccs_onnx, name)
    documentation = inspect.getdoc(thing) or ""
    _, _, rest = documentation.partition("Parameters\n----------")
    for parameter in inspect.signature(thing).parameters:
        assert parameter in rest.split("\n\n")[0]


@pytest.mark.parametrize("name", ["calibrate", "inspect", "library_path", "rewrite", "session_options", "verify"])
def test_public_function_says_what_it_raises(name: str) -> None:
    documentation = inspect.getdoc(getattr(hccs_onnx, name)) or ""
    assert "Raises\n------" in documentation
    assert "Error" in documentation.split("Raises\n------")[1]


def loaded_by(code: str) -> set[str]:
    program = (
        f"import sys, json\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_import_loads_no_heavy_package() -> None:
    assert loaded_by("import hccs_onnx") <= {"onnx_graphsurgeon"}


def test_inspect_and_rewrite_run_without_onnxruntime(tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("light") / "out.onnx"
    code = f"""
from hccs_onnx.cli import main
from hccs_onnx.demo import bundled_models
model = str(bundled_models() / "digits_dynamo.onnx")
assert main(["inspect", model]) == 0
assert main(["rewrite", model, "-o", {str(target)!r}]) == 0"""
    assert loaded_by(code) <= {"onnx_graphsurgeon"}
