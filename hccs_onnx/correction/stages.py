"""Running a model in stages, each from what the one before has left on disk.

A layer is corrected once all layers below it are, so each layer needs a pass over the data of its own. In stages a pass
runs one layer; without them it would run all those below as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from hccs_onnx.calibration.collect import run
from hccs_onnx.calibration.data import Feed
from hccs_onnx.calibration.data.inputs import Sample, subject_of
from hccs_onnx.errors import HccsError
from hccs_onnx.graph.prefix import crossing, prefix
from hccs_onnx.reference import Array

if TYPE_CHECKING:
    import onnxruntime as ort

    from hccs_onnx.operator.python_op import PythonSession

MOST_BYTES = 1 << 32
"""What a model may leave on disk between stages; where the data is more, a stage starts at the model's inputs."""
_NUMBERS = "float float16 double bool int8 int16 int32 int64 uint8 uint16 uint32 uint64"
_TENSORS = {f"tensor({number})" for number in _NUMBERS.split()}
"""What can be left there, as onnxruntime calls it: not sequences, strings, nor types that NumPy lacks, as bfloat16."""


class StagedModel:
    """A model that is run over the same feeds several times, each time a little further.

    Parameters
    ----------
    model : onnx.ModelProto
        Weights may change while it is run, but not those of nodes that a border depends on.
    open_session : callable
        Makes a session of a part of the model.
    folder : pathlib.Path
        An empty folder, for tensors between stages.

    Examples
    --------
    >>> staged = StagedModel(model, open_session, folder)  # doctest: +SKIP
    >>> for (x,) in staged.run(feeds, ["layer0/x"], border="layer0/x"): ...  # doctest: +SKIP
    >>> for (x,) in staged.run(feeds, ["layer1/x"], border="layer1/x"): ...  # doctest: +SKIP
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        open_session: Callable[[onnx.ModelProto], ort.InferenceSession | PythonSession],
        folder: Path,
    ) -> None:
        self._model, self._open_session, self._folder = model, open_session, folder
        self._given: list[onnx.ValueInfoProto] = []  # what lies in the folder, for every feed

    def run(self, feeds: Iterable[Feed], wanted: Sequence[str], border: str) -> Iterator[list[Array]]:
        """Tensors for each feed; the next stage begins where this one ends.

        Parameters
        ----------
        feeds : iterable of feeds
            The same in each stage.
        wanted : sequence of str
            Tensors of the main graph.
        border : str
            Tensor up to which nothing of the model changes any more.

        Raises
        ------
        HccsError
            If nothing can be left on disk.
        """
        kept = crossing(self._model, border)
        given = {value.name: value for value in self._given}
        names = [name for name in dict.fromkeys([*wanted, *kept]) if name not in given]
        session = self._open_session(prefix(self._model, names, self._given))
        if any(output.type not in _TENSORS for output in session.get_outputs() if output.name in kept):
            kept = []
            names = [name for name in names if name in wanted]
        described: list[onnx.ValueInfoProto] = []
        size = 0
        for number, feed in enumerate(feeds):
            file = self._folder / f"{number}.npz"
            values = Sample({**feed, **(self._load(file) if given else {})}, subject_of(feed))
            values |= dict(zip(names, run(session, names, values), strict=True))
            size += sum(values[name].nbytes for name in kept)
            if size <= MOST_BYTES:
                self._save(file, [values[name] for name in kept])
            if number == 0 and size <= MOST_BYTES:
                described = [_description(name, values[name]) for name in kept]
            yield [values[name] for name in wanted]
        self._given = described if size <= MOST_BYTES else []

    def _load(self, file: Path) -> dict[str, Array]:
        with np.load(file) as stored:
            return {value.name: stored[f"arr_{index}"] for index, value in enumerate(self._given)}

    def _save(self, file: Path, values: Sequence[Array]) -> None:
        try:
            np.savez(file, *values)
        except OSError as error:
            problem = f"cannot be written ({error.strerror or error})"
            remedy = "Free space there, give fewer samples, or name another folder in TMPDIR"
            raise HccsError(str(self._folder.parent), problem, remedy=remedy) from error


def _description(name: str, value: Array) -> onnx.ValueInfoProto:
    """An input of the value's type and rank; sizes may differ from feed to feed."""
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
