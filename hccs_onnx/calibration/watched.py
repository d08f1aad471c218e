"""Models run with some of their inner tensors in view, also those in bodies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import onnx

from hccs_onnx.calibration.collect import run, with_outputs
from hccs_onnx.calibration.data import Feed
from hccs_onnx.calibration.recorder import record, recording, recording_options
from hccs_onnx.graph.scopes import scopes
from hccs_onnx.reference import Array

if TYPE_CHECKING:
    import onnxruntime as ort

    from hccs_onnx.operator.python_op import PythonSession


class Watched:
    """A session that gives inner tensors beside a model's outputs.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place. Names are unique in it.
    tensors : collection of str
        What to watch, made by nodes of the main graph or of bodies of If, Loop and Scan.
    opener : callable
        Makes the session, from the model and the options that recording needs.

    Examples
    --------
    >>> Watched(model, {"p"}, lambda model, options: load_session(model, path, options))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Collection[str],
        opener: Callable[[onnx.ModelProto, ort.SessionOptions | None], ort.InferenceSession | PythonSession],
    ) -> None:
        made = [(place, name) for place, graph in scopes(model) for node in graph.node for name in node.output]
        inside = [(place, name) for place, name in made if place and name in tensors]
        self._inside = [name for _, name in inside]
        self._outside = [name for place, name in made if not place and name in tensors]
        model = record(with_outputs(model, self._outside), inside)
        self._session = opener(model, recording_options() if inside else None)

    def run(self, outputs: Sequence[str], feed: Feed) -> dict[str, list[Array]]:
        """Values by name: one of what is in the main graph, of what is in bodies one each time that they ran, in order.

        Raises
        ------
        DataError
            If onnxruntime fails on the feed.
        """
        found: dict[str, list[Array]] = {name: [] for name in self._inside}
        names = [*outputs, *self._outside]
        with recording(lambda name, value: found[name].append(value.copy())):
            values = run(self._session, names, feed)
        return found | {name: [value] for name, value in zip(names, values, strict=True)}
