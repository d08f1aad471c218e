"""Ways to run a rewritten model in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import onnx

from hccs_onnx.errors import HccsError, NativeLibraryError
from hccs_onnx.graph.sessions import first_line, load_session

if TYPE_CHECKING:
    import onnxruntime as ort

    from hccs_onnx.operator.python_op import PythonSession

Backend = Literal["function", "native", "python"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


def open_session(
    model: onnx.ModelProto, path: Path, backend: Backend = "function", options: ort.SessionOptions | None = None
) -> ort.InferenceSession | PythonSession:
    """A session in which ``hccs::HCCS`` nodes run by the chosen backend.

    Parameters
    ----------
    model : onnx.ModelProto
        A rewritten model; may be changed in place.
    path : pathlib.Path
        Where it was read from.
    backend : {'function', 'native', 'python'}
        ``function``: the body that the model carries, on stock onnxruntime. ``native``: the C++ library. ``python``:
        NumPy operators through onnxruntime-extensions, for cross-checks.
    options : onnxruntime.SessionOptions, optional
        Session options; ``native`` and ``python`` register their operators with them.

    Raises
    ------
    HccsError
        If the backend is unknown or not installed.
    NativeLibraryError
        If the native library is not installed or cannot be used here.
    ModelError
        If onnxruntime refuses the model.
    ParameterError
        If a node's attributes are malformed; ``python`` only.

    Examples
    --------
    >>> open_session(model, path, "python")  # doctest: +SKIP
    """
    if backend == "function":
        return load_session(model, path, options)
    if backend == "native":
        from hccs_onnx.operator.native import session_options

        return load_session(model, path, session_options(options))
    if backend == "python":
        import onnxruntime as ort

        from hccs_onnx.operator.python_op import PythonSession, register, with_json_attributes

        options = options or ort.SessionOptions()
        library = register()
        try:
            options.register_custom_ops_library(library)
        except Exception as error:  # onnxruntime raises many classes without a common base
            problem = f"onnxruntime {ort.__version__} cannot register onnxruntime-extensions: {first_line(error)}"
            raise HccsError("python backend", problem, remedy="Install versions that fit each other") from error
        return PythonSession(load_session(with_json_attributes(model), path, options))
    raise HccsError("backend", "unknown", found=backend, needs=f"one of {', '.join(BACKENDS)}")


def best_backend() -> Backend:
    """The fastest backend here: ``native`` where the library can be used, otherwise ``function``.

    Examples
    --------
    >>> best_backend()  # doctest: +SKIP
    'native'
    """
    from hccs_onnx.operator.native import session_options

    try:
        session_options()
    except NativeLibraryError:
        return "function"
    return "native"
