"""golden/hccs_golden.json is up to date, and every implementation reproduces it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from operator_models import DTYPES, IMPLEMENTATIONS, Array, Run, assert_same_bits, compute

from hccs_onnx.params import RECIPROCALS, HccsParams, HeadParams

GOLDEN = Path(__file__).parent.parent / "golden"
LISTS = ("B", "S", "Dmax", "scale")
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "hccs_golden.json").read_text())["cases"]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hccs_golden_generator", GOLDEN / "make_golden.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def array(values: list[int], dtype: type[np.generic], shape: list[int]) -> Array:
    """Elements as the file has them: integers, or the bits of float32."""
    flat = np.array(values, np.uint32).view(np.float32) if dtype == np.float32 else np.array(values, dtype)
    return flat.reshape(shape)


def params_of(case: dict[str, Any]) -> HccsParams:
    count = max(len(case[name]) for name in LISTS)
    columns = [case[name] * count if len(case[name]) == 1 else case[name] for name in LISTS]
    return HccsParams(
        tuple(HeadParams(*values) for values in zip(*columns, strict=True)),
        head_axis=case["head_axis"],
        reciprocal=case["reciprocal"],
        masked=bool(case["masked"]),
        mask_gap=case["mask_gap"],
    )


def test_file_is_what_the_generator_makes(generator: ModuleType) -> None:
    made, stored = generator.text().splitlines(), (GOLDEN / "hccs_golden.json").read_text().splitlines()
    remedy = "run python tests/golden/make_golden.py if the change is meant"
    assert len(made) == len(stored), remedy
    for new, old in zip(made, stored, strict=True):
        assert new == old, remedy


def test_cases_cover_every_profile_and_have_names_of_their_own() -> None:
    assert {(case["output"], case["reciprocal"]) for case in CASES} == {
        ("float", "norm"),
        *((output, reciprocal) for output in ("uint8", "int16") for reciprocal in RECIPROCALS),
    }
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden_vector_is_reproduced(run: Run, case: dict[str, Any], implementation: str) -> None:
    dtype = DTYPES[case["output"]]
    x = array(case["x"], np.float32 if case["output"] == "float" else np.int8, case["shape"])
    short = [name for name in LISTS if len(case[name]) == 1]
    actual = compute(implementation, run, params_of(case), case["output"], x, short=short)
    assert_same_bits(actual, array(case["y"], dtype, case["shape"]))
