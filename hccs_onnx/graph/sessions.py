"""onnxruntime sessions of models that were changed in memory."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.external import external_locations, relocated

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
    import onnxruntime as ort

    locations = external_locations(model)
    if not locations:
        return create_session(model.SerializeToString(), source, options)
    options = options or ort.SessionOptions()
    folder, found_at = _followed(locations, source.parent)
    options.add_session_config_entry(_EXTERNAL_FOLDER, str(folder))
    try:
        with relocated(model, found_at):
            return create_session(model.SerializeToString(), source, options)
    except ModelError as error:  # maybe because the runtime does not know the entry, and finds no data
        try:
            return _session_beside(model, source, options)
        except ModelError:
            if not found_at:
                raise
            raise error from None  # newer runtimes always refuse linked data in the second attempt


def load_bytes(data: bytes, source: Path, options: ort.SessionOptions, *, external: bool) -> ort.InferenceSession:
    """As `load_session`, of a model in bytes; `external` says whether it has external data."""
    if external:
        return load_session(onnx.ModelProto.FromString(data), source, options)
    return create_session(data, source, options)


def _followed(locations: list[str], folder: Path) -> tuple[Path, dict[str, str]]:
    """The folder to give to the runtime, and where in it data lies if that is elsewhere than the model says.

    In a Hugging Face cache model and data are links into another folder, and newer runtimes follow no link that leads
    out of the folder that they are given.
    """
    real = {location: Path(os.path.realpath(folder / location)) for location in locations}
    root = Path(os.path.realpath(folder))
    if all(path.is_relative_to(root) for path in real.values()):
        return root, {}
    common = Path(os.path.commonpath([path.parent for path in real.values()]))
    return common, {location: path.relative_to(common).as_posix() for location, path in real.items()}


def _session_beside(model: onnx.ModelProto, source: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session of a copy that lies beside `source` for a moment, where older runtimes look for external data."""
    try:
        with tempfile.NamedTemporaryFile(dir=source.parent, prefix=f".{source.stem}.", suffix=".onnx") as file:
            file.write(model.SerializeToString())
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
        said = first_line(error)
        ours = said.startswith("node '")  # from the native library, which names a remedy itself
        remedy = None if ours else "Check that it runs in onnxruntime without hccs-onnx"
        raise ModelError(str(subject), f"onnxruntime cannot load it: {said}", remedy=remedy) from error


def first_line(error: Exception) -> str:
    """What onnxruntime says, without its status code and without a full stop."""
    lines = str(error).splitlines() or [type(error).__name__]
    return _ORT_PREFIX.sub("", lines[0]).rstrip(".")
