"""Where the native library is found, what registers it, and what is said where it cannot be used."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import onnxruntime as ort
import pytest

from hccs_onnx import library_path, session_options
from hccs_onnx.backends import best_backend
from hccs_onnx.errors import NativeLibraryError
from hccs_onnx.operator import native
from hccs_onnx.operator.native import library_info

ONE_LINE = re.compile(r"[^\n]+: [^\n]+\. [^\n]+\.")


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if hccs-onnx had been installed without the library."""
    monkeypatch.delenv("HCCS_LIBRARY", raising=False)
    monkeypatch.setattr(native, "_FILE_NAME", "no_such_library.so")


def test_library_path_is_a_file_with_the_platforms_name(native_library: str) -> None:
    assert library_path() == native_library
    assert Path(native_library).is_file()
    assert "hccs_onnx_ops" in Path(native_library).name


def test_library_path_is_that_of_the_environment_when_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.so").touch()
    monkeypatch.setenv("HCCS_LIBRARY", str(tmp_path / "mine.so"))
    assert library_path() == str(tmp_path / "mine.so")


def test_library_named_without_its_folder_is_that_of_the_current_folder(
    native_library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Loaders look for such a name everywhere but there."""
    shutil.copy(native_library, tmp_path / "mine.so")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HCCS_LIBRARY", "mine.so")
    assert library_path() == str(tmp_path / "mine.so")
    assert library_info().path == str(tmp_path / "mine.so")
    session_options()


def test_library_path_fails_when_the_environment_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCCS_LIBRARY", "nowhere.so")
    with pytest.raises(NativeLibraryError, match=r"HCCS_LIBRARY names no file \(nowhere.so\)"):
        library_path()


@pytest.mark.usefixtures("absent")
def test_library_path_says_how_to_get_the_library_when_there_is_none() -> None:
    with pytest.raises(NativeLibraryError, match=r"installed without it .* compiler, then: pip install") as caught:
        library_path()
    assert ONE_LINE.fullmatch(str(caught.value))
    assert best_backend() == "function"


@pytest.mark.usefixtures("native_library")
def test_session_options_are_the_given_ones() -> None:
    existing = ort.SessionOptions()
    existing.intra_op_num_threads = 1
    assert session_options(existing) is existing
    assert session_options(existing) is existing  # registering again does no harm
    assert session_options().intra_op_num_threads == 0
    assert best_backend() == "native"


def test_session_options_fail_on_one_line_when_the_file_is_no_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.so"
    broken.write_text("no library")
    monkeypatch.setenv("HCCS_LIBRARY", str(broken))
    with pytest.raises(NativeLibraryError, match="cannot register it") as caught:
        session_options()
    assert ONE_LINE.fullmatch(str(caught.value))
    assert "ONNXRuntimeError" not in str(caught.value)
    with pytest.raises(NativeLibraryError, match="cannot be loaded") as caught:
        library_info()
    assert ONE_LINE.fullmatch(str(caught.value))


def test_library_info_lists_kernels_best_first(native_library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HCCS_KERNEL", raising=False)
    info = library_info()
    assert info.path == native_library
    assert info.minimum_ort_api == 17
    assert info.kernels[-1].name == "portable"
    assert info.kernels[-1].runs_here
    assert info.selected == next(kernels.name for kernels in info.kernels if kernels.runs_here)


@pytest.mark.usefixtures("native_library")
def test_library_info_selects_what_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HCCS_KERNEL", "portable")
    assert library_info().selected == "portable"
    monkeypatch.setenv("HCCS_KERNEL", "abacus")
    assert library_info().selected is None
