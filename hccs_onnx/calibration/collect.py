"""Running a model with its logits as extra outputs, one feed at a time, and sketching them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from hccs_onnx.calibration.data import Feed, Samples
from hccs_onnx.calibration.recorder import record, recording, recording_options
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.errors import CalibrationError, DataError, HccsError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.progress import progress
from hccs_onnx.reference import Array

if TYPE_CHECKING:
    import onnxruntime as ort

    from hccs_onnx.operator.python_op import PythonSession

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """What a pass over the data gives.

    Parameters
    ----------
    softmaxes : tuple of AttentionSoftmax
        Those of which there is something to tell, in the order asked for: one in a body may never have run.
    sketches : tuple of Sketch
        One each.
    fingerprint : str
        Hash of the samples that does not depend on their order.
    samples : tuple of RowSample
        One each, if asked for.
    """

    softmaxes: tuple[AttentionSoftmax, ...]
    sketches: tuple[Sketch, ...]
    fingerprint: str
    samples: tuple[RowSample, ...] = ()


def collect(
    model: onnx.ModelProto,
    path: Path,
    softmaxes: Sequence[AttentionSoftmax],
    samples: Samples,
    *,
    sample_rows: bool = False,
) -> Collected:
    """Sketch the logits of `softmaxes` over all samples; memory does not grow with their number.

    Parameters
    ----------
    model : onnx.ModelProto
        The original model, read from `path`; changed in place (outputs are added).
    path : pathlib.Path
        Its file.
    softmaxes : sequence of AttentionSoftmax
        What to observe.
    samples : Samples
        The data.
    sample_rows : bool
        Keep a sample of whole rows beside the sketches.

    Raises
    ------
    DataError
        If a sample does not fit, or makes the model fail.
    CalibrationError
        If all rows of a Softmax are masked, or its logits are not finite.
    """
    names = list(dict.fromkeys(item.logits for item in softmaxes if not item.place))
    inside = [(item.place, item.logits) for item in softmaxes if item.place]
    statistics = {item: _Statistics(item, sample_rows) for item in softmaxes}
    by_name: dict[str, list[_Statistics]] = {}
    for item, target in statistics.items():
        by_name.setdefault(item.logits, []).append(target)

    def take(name: str, logits: Array) -> None:
        for target in by_name[name]:
            target.add(logits)

    session = load_session(record(with_outputs(model, names), inside), path, recording_options() if inside else None)
    fingerprint = 0
    for feed in progress(samples, "calibrating", len(samples)):
        with recording(take):
            outputs = run(session, names or [model.graph.output[0].name], feed)
        for name in names:
            take(name, outputs.pop(0))
        del outputs  # before the next are made
        fingerprint += _fingerprint(feed)
    met = tuple(item for item in softmaxes if statistics[item].sketch is not None)
    sketches = [statistics[item].sketch or Sketch.empty(1) for item in met]
    rows = [statistics[item].rows or RowSample.empty(1) for item in met] if sample_rows else []
    for sketch, item in zip(sketches, met, strict=True):
        if not sketch.rows.all():
            head = int(np.argmin(sketch.rows))
            problem = f"head {head} has no row to learn from: all are masked or not finite"
            raise CalibrationError(f"node '{item.node}'", problem, remedy="Check the attention mask in the data")
    return Collected(met, tuple(sketches), f"{fingerprint % 2**256:064x}", tuple(rows))


def _heads(item: AttentionSoftmax, logits: Array) -> int:
    """Number of heads; where the graph does not tell, the size of an axis that they have for themselves."""
    if item.heads is not None:
        return item.heads
    return int(logits.shape[item.head_axis]) if logits.ndim >= 4 else 1


class _Statistics:
    """Sketch and sample of one Softmax; None until it runs."""

    def __init__(self, item: AttentionSoftmax, sample_rows: bool) -> None:
        self._item, self._sample_rows = item, sample_rows
        self.sketch: Sketch | None = None
        self.rows: RowSample | None = None

    def add(self, logits: Array) -> None:
        item = self._item
        if self.sketch is None:
            count = _heads(item, logits)
            self.sketch = Sketch.empty(count)
            self.rows = RowSample.empty(count) if self._sample_rows else None
        for target in (self.sketch, self.rows):
            if target is not None:
                target.add(logits, masked=item.masked, self_attention=item.self_attention)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """`model` (changed in place) with further tensors as outputs; onnxruntime works out their types.

    Examples
    --------
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float x) => (float y) { z = Neg (x) y = Neg (z) }'
    >>> [output.name for output in with_outputs(onnx.parser.parse_model(text), ["z"]).graph.output]
    ['y', 'z']
    """
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return model


def run(session: ort.InferenceSession | PythonSession, names: Sequence[str], feed: Feed) -> list[Array]:
    """Run a session on one feed.

    Raises
    ------
    DataError
        If onnxruntime fails on it.
    """
    try:
        outputs: list[Array] = session.run(list(names), dict(feed))
        return outputs
    except HccsError:
        raise
    except Exception as error:  # onnxruntime raises many classes without a common base
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feed.items())
        problem = f"onnxruntime fails on a sample ({shapes}): {str(error).splitlines()[0][:300].rstrip('.')}"
        raise DataError("data", problem, remedy="Check shapes and values against the model") from error


def _fingerprint(feed: Feed) -> int:
    digest = hashlib.sha256()
    for name in sorted(feed):
        value = np.ascontiguousarray(feed[name])
        digest.update(f"{name}:{value.dtype.str}:{value.shape};".encode())
        digest.update(value.tobytes())
    return int.from_bytes(digest.digest(), "big")
