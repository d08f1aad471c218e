"""HCCS as Python operators of onnxruntime-extensions: slow, for prototypes and cross-checks.

The extension takes no list attributes and copies outputs through Python lists, so a call costs tens of milliseconds and
a model has to be prepared: each ``hccs::HCCS`` node gets its attributes as one JSON string and a domain of its own, and
the function body is dropped. For speed use the function body or the native library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from hccs_onnx.errors import HccsError
from hccs_onnx.operator.evaluate import evaluate
from hccs_onnx.operator.schema import ATTRIBUTES, DOMAIN, OP_TYPE, VERSION, is_hccs, params_from, read_attributes
from hccs_onnx.reference import Array

if TYPE_CHECKING:
    import onnxruntime as ort

_DOMAIN = "hccs_python"  # the library has all operators ever defined, so that they must not hide the function's name
_ATTRIBUTE = "attributes"
_NAME = "name"  # of the node, for messages


class PythonSession:
    """An onnxruntime session whose Python operators' errors are raised by `run`.

    An exception that leaves a Python operator would end the process, so operators note it and return zeros.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        A session with the Python operators registered.

    Examples
    --------
    >>> PythonSession(session).run(None, {"x": x})  # doctest: +SKIP
    """

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def run(self, outputs: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Run the model.

        Raises
        ------
        HccsError
            The first error of a Python operator.
        """
        _failures.clear()
        results: list[Array] = self._session.run(outputs, dict(feed))
        if _failures:
            raise _failures[0]
        return results

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


_failures: list[HccsError] = []


def with_json_attributes(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (changed in place) in the form that the Python operators take.

    Raises
    ------
    ParameterError
        If an attribute is missing, has the wrong type, or lists have lengths that do not fit.

    Examples
    --------
    >>> from onnx import parser
    >>> text = '<ir_version: 8, opset_import: ["": 17, "hccs": 1]> g (float[2] x, float z) => (float[2] y) '
    >>> model = parser.parse_model(text + '{ y = hccs.HCCS <B = [300], S = [1], Dmax = [9]> (x, z) }')
    >>> with_json_attributes(model).graph.node[0].attribute[0].s
    b'{"B": [300], "Dmax": [9], "S": [1], "name": ""}'
    """
    model.opset_import.append(helper.make_opsetid(_DOMAIN, VERSION))
    for node in filter(is_hccs, list(_nodes(model.graph))):
        read_attributes(node)  # refuses what JSON cannot hold, too
        node.domain = _DOMAIN
        known = [attribute for attribute in node.attribute if attribute.name in ATTRIBUTES]
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in known}
        plain = {k: v.decode(errors="replace") if isinstance(v, bytes) else v for k, v in values.items()}
        del node.attribute[:]
        plain = {k: list(v) if not isinstance(v, (str, int, float)) else v for k, v in plain.items()}
        plain[_NAME] = node.name
        node.attribute.append(helper.make_attribute(_ATTRIBUTE, json.dumps(plain, sort_keys=True)))
    kept = [function for function in model.functions if (function.domain, function.name) != (DOMAIN, OP_TYPE)]
    del model.functions[:]
    model.functions.extend(kept)
    return model


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of a graph and of the bodies in it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


@cache
def register() -> str:
    """Define the three type combinations under one name, once a process.

    Returns
    -------
    str
        Path of the extension library, for ``SessionOptions.register_custom_ops_library``.

    Raises
    ------
    HccsError
        If onnxruntime-extensions is not installed.

    Examples
    --------
    >>> options.register_custom_ops_library(register())  # doctest: +SKIP
    """
    try:
        import onnxruntime_extensions as extensions
    except ImportError as error:
        remedy = "Install onnxruntime-extensions, or use the function body"
        raise HccsError("python backend", "onnxruntime-extensions is not installed", remedy=remedy) from error
    types = extensions.PyCustomOpDef
    for x, y in ((types.dt_float, types.dt_float), (types.dt_int8, types.dt_uint8), (types.dt_int8, types.dt_int16)):

        @extensions.onnx_op(  # type: ignore[untyped-decorator, unused-ignore]
            op_type=f"{_DOMAIN}::{OP_TYPE}", inputs=[x, y], outputs=[y], attrs={_ATTRIBUTE: types.dt_string}
        )
        def hccs(x: Array, y_zero_point: Array, attributes: str) -> Array:
            given = json.loads(attributes)
            subject = f"node '{given.pop(_NAME)}'"
            try:
                return evaluate(x, y_zero_point, params_from(given, subject), subject)
            except HccsError as error:
                _failures.append(error)
                return np.zeros(x.shape, np.asarray(y_zero_point).dtype)

    return str(extensions.get_library_path())
