"""onnxruntime sessions of models that were changed in memory."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.files import external_locations

if TYPE_CHECKING:
    import onnxruntime as ort

_ORT_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Exception during initialization: )?")
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


def load_session(
    model: onnx.ModelProto, source: Path, options: ort.SessionOptions | None = None
) -> ort.InferenceSession:
    """An onnxruntime session of a changed copy of the model in `source`.

    Parameters
    ----------
    model : onnx.ModelProto
        The changed model.
    source : pathlib.Path
        Where it was read from.
    options : onnxruntime.SessionOptions, optional
        Session options.

    Raises
    ------
    ModelError
        If onnxruntime refuses the model.
    """
    return load_bytes(model.SerializeToString(), source, options, external=bool(external_locations(model)))


def load_bytes(
    data: bytes, source: Path, options: ort.SessionOptions | None = None, *, external: bool = True
) -> ort.InferenceSession:
    """As `load_session`, of a model in bytes; `external` says whether it has external data."""
    import onnxruntime as ort

    if not external:
        return create_session(data, source, options)
    options = options or ort.SessionOptions()
    options.add_session_config_entry(_EXTERNAL_FOLDER, os.path.realpath(source.parent))
    with suppress(ModelError):  # runtimes that do not know the entry cannot find the data
        return create_session(data, source, options)
    # They look for it beside the model file, so the copy has to lie there for a moment.
    try:
        with tempfile.NamedTemporaryFile(dir=source.parent, prefix=f".{source.stem}.", suffix=".onnx") as file:
            file.write(data)
            file.flush()
            return create_session(file.name, source, options)
    except OSError as error:
        problem = f"cannot be run: no copy can be written beside it ({error.strerror or error})"
        raise ModelError(str(source), problem, remedy="Make its folder writable, or use a newer onnxruntime") from error


def create_session(
    model: str | bytes, subject: Path, options: ort.SessionOptions | None = None
) -> ort.InferenceSession:
    """A CPU session, with onnxruntime's refusal as a `ModelError`.

    Raises
    ------
    ModelError
        If onnxruntime cannot load the model.
    """
    import onnxruntime as ort

    if options is None:
        options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; no second report on stderr
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many classes without a common base
        remedy = "Check that it runs in onnxruntime without hccs-onnx"
        raise ModelError(str(subject), f"onnxruntime cannot load it: {first_line(error)}", remedy=remedy) from error


def first_line(error: Exception) -> str:
    """What onnxruntime says, without its status code and without a full stop."""
    lines = str(error).splitlines() or [type(error).__name__]
    return _ORT_PREFIX.sub("", lines[0]).rstrip(".")
