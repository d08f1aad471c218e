"""HCCS_KERNEL chooses the kernels, and a name that does not fit is an error and not a fallback."""

from __future__ import annotations

import ctypes

import pytest

from native.conftest import MakeSession
from native.models import OUTPUTS, TWO_HEADS, assert_same_bits, expected, logits, one_node_model


@pytest.mark.parametrize("value", [None, ""])
def test_selected_kernel_is_the_best_that_runs_when_nothing_is_asked_for(
    native: ctypes.CDLL, kernels: list[str], monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv("HCCS_KERNEL", raising=False)
    else:
        monkeypatch.setenv("HCCS_KERNEL", value)
    assert native.hccs_selected_kernel().decode() == kernels[0]


def test_kernel_list_ends_after_its_last_name(native: ctypes.CDLL, kernels: list[str]) -> None:
    count = native.hccs_kernel_count()
    names = [native.hccs_kernel_name(i) for i in range(count)]
    assert None not in names and len(set(names)) == count
    for beyond in (count, 2**64 - 1):
        assert native.hccs_kernel_name(beyond) is None
        assert native.hccs_kernel_runs_here(beyond) == 0
    assert kernels[-1] == "portable"


def test_minimum_api_is_that_of_onnxruntime_1_17(native: ctypes.CDLL) -> None:
    assert native.hccs_minimum_ort_api() == 17


def test_every_kernel_that_runs_can_be_chosen(
    native: ctypes.CDLL, kernels: list[str], monkeypatch: pytest.MonkeyPatch, session: MakeSession
) -> None:
    for name in kernels:
        monkeypatch.setenv("HCCS_KERNEL", name)
        assert native.hccs_selected_kernel().decode() == name
        for output in OUTPUTS:
            x = logits(output, (1, 2, 5, 77))
            y = session(one_node_model(output, x.shape, **TWO_HEADS)).run(None, {"X": x})[0]
            assert_same_bits(y, expected(output, x, **TWO_HEADS), name)


@pytest.mark.parametrize("name", ["avx9", "AVX2", "portable ", "portable,avx2"])
def test_session_is_refused_when_the_kernel_is_unknown(
    native: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, session: MakeSession, kernels: list[str], name: str
) -> None:
    monkeypatch.setenv("HCCS_KERNEL", name)
    assert native.hccs_selected_kernel() is None
    with pytest.raises(Exception) as caught:
        session(one_node_model("uint8", [2, 3], B=[300], S=[0], Dmax=[1]))
    assert (
        f"node 'sm': HCCS_KERNEL names no kernel that runs here ('{name}', needs one of {', '.join(kernels)}). "
        "Unset it or name another."
    ) in str(caught.value)


def test_session_keeps_its_kernel_when_the_variable_changes(
    monkeypatch: pytest.MonkeyPatch, session: MakeSession
) -> None:
    x = logits("uint8", (1, 2, 5, 77))
    made = session(one_node_model("uint8", x.shape, **TWO_HEADS))
    monkeypatch.setenv("HCCS_KERNEL", "avx9")
    assert_same_bits(made.run(None, {"X": x})[0], expected("uint8", x, **TWO_HEADS))
