"""aie4ml's own check of HCCS parameters, and the integer arithmetic of its kernel, against this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import DIGITS

from hccs_onnx import calibrate
from hccs_onnx.params import HccsParams, HeadParams, OutputType, Reciprocal
from hccs_onnx.reference import hccs

FORMS: list[tuple[OutputType, Reciprocal]] = [
    (output, reciprocal) for output in ("uint8", "int16") for reciprocal in ("div", "clb")
]


def check_by_aie4ml(head: HeadParams, n: int) -> None:
    common = pytest.importorskip("aie4ml.op_impls.families.softmax.common")
    common.validate_hccs_params({"B": head.B, "S": head.S, "Dmax": head.Dmax}, cols=n, param_sets=1)


def by_kernel(codes: np.ndarray, head: HeadParams, output: OutputType, reciprocal: Reciprocal) -> np.ndarray:
    """What aie4ml's kernel computes, in plain integers: int16 has shift 0 and numerator 32767, uint8 255 << 15."""
    rows = []
    for row in codes.reshape(-1, codes.shape[-1]).tolist():
        scores = [head.B - head.S * min(max(row) - code, head.Dmax) for code in row]
        numerator, shift = (32767, 0) if output == "int16" else (255 << 15, 15)
        total = sum(scores)
        inverse = numerator // total if reciprocal == "div" else numerator >> (total.bit_length() - 1)
        assert inverse <= 32767
        rows.append([score * inverse >> shift for score in scores])
    limit = np.iinfo(output)  # the kernel saturates where it narrows
    return np.clip(np.array(rows), limit.min, limit.max).reshape(codes.shape)


@pytest.mark.parametrize(("output", "reciprocal"), FORMS)
def test_paper_calibration_is_accepted_by_aie4ml_and_computes_what_its_kernel_does(
    digits_model: Path, output: OutputType, reciprocal: Reciprocal
) -> None:
    with np.load(DIGITS / "calibration.npz") as data:
        feeds = [{"pixels": data["pixels"][:8]}]
    calibration = calibrate(digits_model, feeds, to=output, reciprocal=reciprocal, profile="paper")
    random = np.random.default_rng(0)
    for softmax in calibration.softmaxes:
        n = softmax.longest
        for fit in softmax.heads:
            head = fit.params
            check_by_aie4ml(head, n)
            codes = random.integers(-128, 128, (50, n)).astype(np.int8)
            y = hccs(codes, np.dtype(output).type, B=[head.B], S=[head.S], Dmax=[head.Dmax], reciprocal=reciprocal)
            np.testing.assert_array_equal(y, by_kernel(codes, head, output, reciprocal))


@pytest.mark.parametrize(
    ("head", "n"),
    [
        (HeadParams(512, 4, 127), 64),  # 64*512 is 32768
        (HeadParams(511, 4, 127), 85),  # 85*3 is 255
        (HeadParams(507, 4, 127), 16),  # floor -1
        (HeadParams(1000, 128, 1), 16),
        (HeadParams(1000, 1, 128), 16),
    ],
)
def test_illegal_parameters_are_refused_by_aie4ml_and_by_the_paper_profile(head: HeadParams, n: int) -> None:
    assert HccsParams((head,), reciprocal="div").violations("uint8", profile="paper", n=n)
    with pytest.raises(ValueError, match="HCCS Softmax"):
        check_by_aie4ml(head, n)


@pytest.mark.parametrize(("head", "n"), [(HeadParams(511, 3, 127), 64), (HeadParams(508, 4, 126), 64)])
def test_parameters_at_the_bounds_are_legal_for_aie4ml_and_the_paper_profile(head: HeadParams, n: int) -> None:
    assert HccsParams((head,), reciprocal="div").violations("uint8", profile="paper", n=n) == ()
    check_by_aie4ml(head, n)
