"""The golden vectors of tests/golden as arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).resolve().parents[1] / "golden" / "hccs_golden.json"
DTYPES = {"float": (np.float32, np.float32), "uint8": (np.int8, np.uint8), "int16": (np.int8, np.int16)}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class GoldenCase:
    """One case of the file; `lists` has B, S, Dmax and scale as they are written, of length 1 or H."""

    name: str
    output: str
    lists: dict[str, list[Any]]
    head_axis: int
    reciprocal: str
    masked: bool
    mask_gap: float
    x: Array
    y: Array

    @property
    def heads(self) -> int:
        """Number of heads."""
        return max(len(values) for values in self.lists.values())

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of a node."""
        names = ("head_axis", "reciprocal", "masked", "mask_gap")
        return {**self.lists, **{name: getattr(self, name) for name in names}, "masked": int(self.masked)}


def golden_cases() -> Iterator[GoldenCase]:
    """All cases, in the file's order."""
    for case in json.loads(FILE.read_text())["cases"]:
        x_type, y_type = DTYPES[case["output"]]
        yield GoldenCase(
            name=case["name"],
            output=case["output"],
            lists={name: case[name] for name in ("B", "S", "Dmax", "scale")},
            head_axis=case["head_axis"],
            reciprocal=case["reciprocal"],
            masked=bool(case["masked"]),
            mask_gap=case["mask_gap"],
            x=_array(case["x"], x_type, case["shape"]),
            y=_array(case["y"], y_type, case["shape"]),
        )


def _array(values: list[int], dtype: type[np.generic], shape: list[int]) -> Array:
    """Integers as they are, float32 from its bits."""
    flat = np.array(values, np.uint32).view(np.float32) if dtype == np.float32 else np.array(values, dtype)
    return flat.reshape(shape)
