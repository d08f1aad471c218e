"""The native library of ``hccs::HCCS`` for onnxruntime: where it is, how sessions get it, what it would run."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hccs_onnx.errors import NativeLibraryError

if TYPE_CHECKING:
    import onnxruntime as ort

LIBRARY_VARIABLE = "HCCS_LIBRARY"
"""Environment variable that names a library file to use in place of the installed one."""

KERNEL_VARIABLE = "HCCS_KERNEL"
"""Environment variable that names the kernels to use in place of the best ones for the processor."""

_FILE_NAME = {"win32": "hccs_onnx_ops.dll", "darwin": "libhccs_onnx_ops.dylib"}.get(sys.platform, "libhccs_onnx_ops.so")
_SUBJECT = "native library"
_REINSTALL = (
    "Install a C++17 compiler, then: pip install --force-reinstall --no-deps --no-cache-dir --no-binary hccs-onnx"
    " hccs-onnx (or pip install . in a checkout). Models run without it by their function body"
)


@dataclass(frozen=True)
class Kernels:
    """The row kernels of one instruction set.

    Parameters
    ----------
    name : str
        As `KERNEL_VARIABLE` spells it.
    runs_here : bool
        Whether this processor and operating system can run them.
    """

    name: str
    runs_here: bool


@dataclass(frozen=True)
class LibraryInfo:
    """What a library file says of itself.

    Parameters
    ----------
    path : str
        The file.
    kernels : tuple of Kernels
        Compiled in, best first.
    selected : str or None
        Those that a session created now would run; None if `KERNEL_VARIABLE` names none that run here.
    minimum_ort_api : int
        Oldest version of onnxruntime's C API that it runs on; 17 is onnxruntime 1.17.
    """

    path: str
    kernels: tuple[Kernels, ...]
    selected: str | None
    minimum_ort_api: int


def library_path() -> str:
    """Path of the native library, for ``SessionOptions.register_custom_ops_library`` or any other language's like.

    The environment variable ``HCCS_LIBRARY`` names another file to use in place of the installed one.

    Returns
    -------
    str
        An existing file, absolute: ``libhccs_onnx_ops.so``, ``libhccs_onnx_ops.dylib`` or ``hccs_onnx_ops.dll``.

    Raises
    ------
    NativeLibraryError
        If hccs-onnx was installed without the library, or ``HCCS_LIBRARY`` names no file.

    Examples
    --------
    >>> options.register_custom_ops_library(library_path())  # doctest: +SKIP
    """
    given = os.environ.get(LIBRARY_VARIABLE)
    if given:
        if not Path(given).is_file():
            raise NativeLibraryError(_SUBJECT, f"{LIBRARY_VARIABLE} names no file", found=given, remedy="Correct it")
        return str(Path(given).absolute())  # loaders look for a bare name elsewhere than in the current folder
    import hccs_onnx.operator as package

    # An editable install keeps what was compiled in another folder than the sources; both are in the package's path.
    for folder in package.__path__:
        path = Path(folder) / _FILE_NAME
        if path.is_file():
            return str(path)
    raise NativeLibraryError(_SUBJECT, "hccs-onnx was installed without it", found=sys.platform, remedy=_REINSTALL)


def session_options(existing: ort.SessionOptions | None = None) -> ort.SessionOptions:
    """Session options with which ``hccs::HCCS`` nodes run in the native library.

    Parameters
    ----------
    existing : onnxruntime.SessionOptions, optional
        Options to register the library with; changed in place. Default: new ones.

    Returns
    -------
    onnxruntime.SessionOptions
        `existing`, or the new ones.

    Raises
    ------
    NativeLibraryError
        If the library is not installed, or this onnxruntime or this machine cannot load it.

    Examples
    --------
    >>> import onnxruntime
    >>> session = onnxruntime.InferenceSession("encoder.hccs.onnx", session_options())  # doctest: +SKIP
    """
    import onnxruntime as ort

    from hccs_onnx.graph.sessions import first_line

    options = ort.SessionOptions() if existing is None else existing
    path = library_path()
    try:
        options.register_custom_ops_library(path)
    except Exception as error:  # onnxruntime raises many classes without a common base
        problem = f"onnxruntime {ort.__version__} cannot register it: {first_line(error)}"
        raise NativeLibraryError(path, problem, remedy="Or run the model by its function body") from error
    return options


def library_info() -> LibraryInfo:
    """What the native library offers on this machine.

    Raises
    ------
    NativeLibraryError
        If it is not installed, or cannot be loaded here.

    Examples
    --------
    >>> library_info().selected  # doctest: +SKIP
    'avx2'
    """
    path = library_path()
    try:
        library = ctypes.CDLL(path)
        library.hccs_kernel_count.restype = ctypes.c_size_t
        library.hccs_kernel_name.argtypes = library.hccs_kernel_runs_here.argtypes = [ctypes.c_size_t]
        library.hccs_kernel_name.restype = library.hccs_selected_kernel.restype = ctypes.c_char_p
        library.hccs_minimum_ort_api.restype = ctypes.c_uint
    except (OSError, AttributeError) as error:
        problem = f"cannot be loaded: {str(error).rstrip('.')}"
        raise NativeLibraryError(path, problem, remedy=_REINSTALL) from error
    selected = library.hccs_selected_kernel()
    kernels = tuple(
        Kernels(library.hccs_kernel_name(index).decode(), bool(library.hccs_kernel_runs_here(index)))
        for index in range(library.hccs_kernel_count())
    )
    return LibraryInfo(path, kernels, selected.decode() if selected else None, library.hccs_minimum_ort_api())
