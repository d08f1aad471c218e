"""HCCS_KERNEL chooses the kernels, and a name that does not fit is an error and not a fallback."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from native_models import DTYPES, TWO_HEADS, expected, logits, one_node_model


@pytest.fixture
def native(library):
    handle = ctypes.CDLL(library)
    handle.hccs_kernel_count.restype = ctypes.c_size_t
    handle.hccs_kernel_name.argtypes = [ctypes.c_size_t]
    handle.hccs_kernel_name.restype = ctypes.c_char_p
    handle.hccs_kernel_runs_here.argtypes = [ctypes.c_size_t]
    handle.hccs_selected_kernel.restype = ctypes.c_char_p
    return handle


def usable(native):
    count = native.hccs_kernel_count()
    return [native.hccs_kernel_name(i).decode() for i in range(count) if native.hccs_kernel_runs_here(i)]


def test_the_best_kernel_that_runs_is_the_default(native, monkeypatch):
    monkeypatch.delenv("HCCS_KERNEL", raising=False)
    assert native.hccs_selected_kernel().decode() == usable(native)[0]
    monkeypatch.setenv("HCCS_KERNEL", "")
    assert native.hccs_selected_kernel().decode() == usable(native)[0]
    assert native.hccs_kernel_name(native.hccs_kernel_count()) is None
    assert native.hccs_minimum_ort_api() == 17


def test_every_usable_kernel_can_be_chosen(native, monkeypatch, session):
    assert "portable" in usable(native)
    for name in usable(native):
        monkeypatch.setenv("HCCS_KERNEL", name)
        assert native.hccs_selected_kernel().decode() == name
        for output in DTYPES:
            x = logits(output, (1, 2, 5, 77))
            y = session(one_node_model(output, x.shape, **TWO_HEADS)).run(None, {"X": x})[0]
            np.testing.assert_array_equal(y, expected(output, x, **TWO_HEADS))


def test_an_unknown_kernel_is_refused(native, monkeypatch, session):
    monkeypatch.setenv("HCCS_KERNEL", "avx9")
    assert native.hccs_selected_kernel() is None
    with pytest.raises(
        Exception, match=r"node 'sm': HCCS_KERNEL names no kernel that runs here \('avx9', needs one of "
    ):
        session(one_node_model("uint8", [2, 3], B=[300], S=[0], Dmax=[1]))
