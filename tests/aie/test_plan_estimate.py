"""What a project says that its nodes would cost."""

from __future__ import annotations

import pytest

from hccs_onnx.aie.devices import device
from hccs_onnx.aie.estimate import kernel_estimate
from hccs_onnx.aie.plan import Work, make_plan
from hccs_onnx.aie.plan_estimate import PlanEstimate, plan_estimate
from hccs_onnx.params import HccsParams, HeadParams, OutputType

PARAMS = HccsParams((HeadParams(16259, 127, 127),) * 12, masked=True)
BYTES: dict[OutputType, int] = {"uint8": 1, "int16": 2}


def estimate_of(target: str, output: OutputType, rows: int = 128, n: int = 128) -> PlanEstimate:
    chosen = device(target)
    plan = make_plan(chosen, Work(12, rows, n, BYTES[output], masked=True), "node 'sm'")
    return plan_estimate(chosen, plan, PARAMS, output)


def test_estimate_of_a_plan_is_that_of_its_kernel_and_its_tiles_rows() -> None:
    vek280 = device("vek280")
    kernel = kernel_estimate(vek280, "uint8", "norm", 128, masked=True, wide=True)
    estimate = estimate_of("vek280", "uint8")
    assert estimate.kernel == kernel
    assert (estimate.rows, estimate.bound, estimate.cycles) == (32, "stream", kernel.with_streams)
    assert estimate.microseconds == pytest.approx(32 * kernel.with_streams / 1250)


@pytest.mark.parametrize(
    ("target", "output", "rows", "n", "bound", "cycles"),
    [
        ("vek280", "uint8", 128, 64, "move", None),  # 48 tiles: the kernel takes longer than 64 bytes over a stream
        ("vek280", "uint8", 256, 128, "port", 64),  # 96 tiles: 64-bit ports, which bring 2 bytes a cycle
        ("vek280", "int16", 128, 128, "stream", 64),
        ("vek385", "int16", 128, 128, "port", 64),  # its streams are faster than a port
    ],
)
def test_estimate_names_what_decides(
    target: str, output: OutputType, rows: int, n: int, bound: str, cycles: float | None
) -> None:
    estimate = estimate_of(target, output, rows, n)
    assert estimate.bound == bound
    assert estimate.cycles == pytest.approx(estimate.kernel.cycles if cycles is None else cycles)
    assert estimate.to_dict()["bound"] == bound
