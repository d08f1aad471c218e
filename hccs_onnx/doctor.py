"""What is installed, which backends and kernels work here, and why not where they do not."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hccs_onnx.backends import BACKENDS, Backend, open_session
from hccs_onnx.errors import HccsError, NativeLibraryError
from hccs_onnx.graph.sessions import first_line
from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.evaluate import evaluate
from hccs_onnx.operator.native import LIBRARY_VARIABLE, LibraryInfo, library_info, library_path
from hccs_onnx.operator.schema import DOMAIN, ELEMENT_TYPES, VERSION, make_node
from hccs_onnx.params import HccsParams, HeadParams, OutputType
from hccs_onnx.reference import Array

_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxruntime-extensions", "onnx-graphsurgeon", "jsonschema", "tqdm")
_OPSET = 17
_ROWS, _KEYS = 5, 77
_DTYPES: dict[OutputType, type[np.generic]] = {"float": np.float32, "uint8": np.uint8, "int16": np.int16}
_HEADS = (HeadParams(B=300, S=2, Dmax=100, scale=0.05), HeadParams(B=400, S=12, Dmax=33, scale=0.1))


@dataclass(frozen=True)
class BackendHealth:
    """Whether one backend computes what it should.

    Parameters
    ----------
    name : {'function', 'native', 'python'}
        The backend.
    problem : str or None
        Why it cannot be used, or what it gets wrong; None if it gave the exact result for all three output types.
    installed : bool
        False if it is only not installed, which is no fault.
    """

    name: Backend
    problem: str | None
    installed: bool = True


@dataclass(frozen=True)
class Diagnosis:
    """The state of an installation.

    Parameters
    ----------
    version : str
        Of hccs-onnx.
    system : str
        Python, operating system and processor.
    packages : dict of str to str or None
        Installed versions; None where a package is missing.
    library : LibraryInfo or None
        The native library, if it is installed and loads.
    backends : tuple of BackendHealth
        All backends, tried out.
    """

    version: str
    system: str
    packages: dict[str, str | None]
    library: LibraryInfo | None
    backends: tuple[BackendHealth, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """What is installed and does not work, one line each."""
        return tuple(
            f"backend {item.name}: {item.problem}" for item in self.backends if item.installed and item.problem
        )


def diagnose() -> Diagnosis:
    """Look at the installation and try every backend on a small model.

    Examples
    --------
    >>> diagnose().packages["numpy"] is not None
    True
    """
    from hccs_onnx._version import __version__

    try:
        library: LibraryInfo | None = library_info()
    except NativeLibraryError:
        library = None  # its backend says why
    return Diagnosis(
        version=__version__,
        system=f"Python {platform.python_version()}, {platform.system()}, {platform.machine()}",
        packages={name: _installed_version(name) for name in _PACKAGES},
        library=library,
        backends=tuple(_health(backend) for backend in BACKENDS),
    )


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _health(backend: Backend) -> BackendHealth:
    if backend == "native":
        try:
            library_path()
        except NativeLibraryError as error:
            return BackendHealth(backend, str(error), installed=bool(os.environ.get(LIBRARY_VARIABLE)))
    try:
        wrong = [output for output in _DTYPES if not _is_exact(backend, output)]
    except HccsError as error:
        return BackendHealth(backend, str(error))
    except Exception as error:  # whatever it is: it is what a diagnosis is for
        return BackendHealth(backend, f"fails on a test model: {first_line(error)}")
    return BackendHealth(backend, f"wrong results for {', '.join(wrong)}" if wrong else None)


def _is_exact(backend: Backend, output: OutputType) -> bool:
    """Whether a session gives, bit for bit, what the definition says for rows with masked keys."""
    params = HccsParams(_HEADS, masked=True)
    x = _logits(output)
    y = open_session(_model(params, output), Path("doctor.onnx"), backend).run(None, {"X": x})[0]
    return np.array_equal(y, evaluate(x, np.array(0, _DTYPES[output]), params, "doctor"))


def _logits(output: OutputType) -> Array:
    """Logits (batch 1, head, query, key), a quarter of the keys masked."""
    shape = (1, len(_HEADS), _ROWS, _KEYS)
    codes = np.random.default_rng(0).integers(-127, 128, shape)
    hidden = np.arange(_KEYS) >= _KEYS * 3 // 4
    if output == "float":
        return np.where(hidden, -1e4, codes / 16).astype(np.float32)
    return np.where(hidden, -128, codes).astype(np.int8)


def _model(params: HccsParams, output: OutputType) -> onnx.ModelProto:
    x_type = TensorProto.FLOAT if output == "float" else TensorProto.INT8
    shape: list[str | int | None] = ["batch", len(params.heads), "query", "key"]
    graph = helper.make_graph(
        [make_node(params, "X", "y_zero_point", "Y", name="doctor")],
        "doctor",
        [helper.make_tensor_value_info("X", x_type, shape)],
        [helper.make_tensor_value_info("Y", ELEMENT_TYPES[output], shape)],
        [numpy_helper.from_array(np.array(0, _DTYPES[output]), "y_zero_point")],
    )
    return helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        functions=[function_body(output, params.reciprocal, _OPSET)],
    )
