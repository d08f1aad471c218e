"""The golden vectors through the native op, with every kernel that runs here."""

from __future__ import annotations

import pytest

from native.conftest import MakeSession
from native.golden import GoldenCase, golden_cases
from native.models import assert_same_bits, one_node_model

CASES = list(golden_cases())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_golden_vector_is_reproduced_by_every_kernel(
    session: MakeSession, kernels: list[str], monkeypatch: pytest.MonkeyPatch, case: GoldenCase
) -> None:
    model = one_node_model(case.output, [None] * case.x.ndim, **case.attributes)
    for kernel in kernels:
        monkeypatch.setenv("HCCS_KERNEL", kernel)
        assert_same_bits(session(model).run(None, {"X": case.x})[0], case.y, kernel)
