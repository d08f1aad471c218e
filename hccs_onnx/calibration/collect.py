"""Running a model with its logits as extra outputs, one feed at a time, and sketching them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from hccs_onnx.calibration.data import Feed, InputSpec, Samples, Shard, input_specs
from hccs_onnx.calibration.data.inputs import subject_of
from hccs_onnx.calibration.live_rows import head_count
from hccs_onnx.calibration.model_sketch import ModelSketch, Observed, Subject, check_heads
from hccs_onnx.calibration.recorder import record, recording, register
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.errors import DataError, HccsError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.external import external_locations
from hccs_onnx.graph.files import file_sha256
from hccs_onnx.graph.replacement import PER_AXIS_OPSET
from hccs_onnx.graph.scopes import describe
from hccs_onnx.graph.sessions import load_bytes
from hccs_onnx.reference import Array

if TYPE_CHECKING:
    import onnxruntime as ort

    from hccs_onnx.operator.python_op import PythonSession


@dataclass(frozen=True)
class Job:
    """What is to be run over data; all that a process needs that has the model's external data.

    Parameters
    ----------
    model : bytes
        The model, with what is observed as outputs.
    path : pathlib.Path
        The original's file, in whose folder external data lies.
    external : bool
        Whether there is external data.
    outputs : tuple of str
        Logits that are outputs; if all lie in bodies, some output of the model.
    specs : tuple of InputSpec
        What the model takes.
    subject : Subject
        What the sketches will be of.
    """

    model: bytes
    path: Path
    external: bool
    outputs: tuple[str, ...]
    specs: tuple[InputSpec, ...]
    subject: Subject


def prepare(
    model: onnx.ModelProto, path: Path, softmaxes: Sequence[AttentionSoftmax], opset: int, *, keep_rows: bool = False
) -> Job:
    """The job of sketching the logits of `softmaxes`.

    Parameters
    ----------
    model : onnx.ModelProto
        The original model, read from `path`; changed in place (outputs are added).
    path : pathlib.Path
        Its file.
    softmaxes : sequence of AttentionSoftmax
        What to observe.
    opset : int
        Of the original model.
    keep_rows : bool
        Keep a sample of whole rows beside the sketches.
    """
    observed = tuple(
        Observed(
            item.node, item.logits, describe(item.place) if item.place else "", item.heads, item.head_axis, item.masked,
            item.self_attention, per_tensor=item.folded or opset < PER_AXIS_OPSET, unit=item.factor,
        )
        for item in softmaxes
    )  # fmt: skip
    specs = tuple(input_specs(model))
    names = list(dict.fromkeys(item.logits for item in softmaxes if not item.place))
    record(with_outputs(model, names), [(item.place, item.logits) for item in softmaxes if item.place])
    return Job(
        model=model.SerializeToString(),
        path=path,
        external=bool(external_locations(model)),
        outputs=tuple(names or [model.graph.output[0].name]),
        specs=specs,
        subject=Subject(file_sha256(path), observed, keep_rows),
    )


class Collector:
    """A session of a job's model, which sketches feeds; memory does not grow with their number.

    The session runs on one thread, so that all engines compute the same bits, whatever the number of cores.

    Parameters
    ----------
    job : Job
        What to run.

    Raises
    ------
    ModelError
        If onnxruntime refuses the model.
    """

    def __init__(self, job: Job) -> None:
        self._subject, self._specs, self._outputs = job.subject, job.specs, list(job.outputs)
        records = any(observed.place for observed in job.subject.observed)
        self._session = load_bytes(job.model, job.path, _options(records), external=job.external)

    def collect(self, feeds: Iterable[Feed]) -> ModelSketch:
        """The sketch of some feeds.

        Raises
        ------
        DataError
            If a sample makes the model fail.
        CalibrationError
            If the number of heads changes from sample to sample.
        """
        statistics = [_Statistics(observed, self._subject.keeps_rows) for observed in self._subject.observed]
        by_name: dict[str, list[_Statistics]] = {}
        for each in statistics:
            by_name.setdefault(each.observed.logits, []).append(each)

        def take(name: str, logits: Array) -> None:
            for target in by_name.get(name, []):
                target.add(logits)

        fingerprint, count = 0, 0
        for feed in feeds:
            with recording(take):
                outputs = run(self._session, self._outputs, feed)
            for name in self._outputs:
                take(name, outputs.pop(0))
            del outputs  # before the next are made
            fingerprint += _fingerprint(feed)
            count += 1
        sketches = tuple(each.sketch for each in statistics)
        samples = tuple(each.rows for each in statistics) if self._subject.keeps_rows else ()
        return ModelSketch(self._subject, sketches, samples, (f"{fingerprint % 2**256:064x}",), count)

    def collect_shard(self, shard: Shard) -> ModelSketch:
        """The sketch of a shard; errors as those of `collect`, and what `Samples` raises."""
        return self.collect(Samples(shard, self._specs))


class _Statistics:
    """Sketch and sample of one Softmax; without heads until it runs."""

    def __init__(self, observed: Observed, keep_rows: bool) -> None:
        self.observed, self._keep_rows = observed, keep_rows
        self.sketch, self.rows = Sketch.empty(0), RowSample.empty(0)

    def add(self, logits: Array) -> None:
        observed, heads = self.observed, head_count(self.observed, logits)
        if not self.sketch.rows.size:
            self.sketch, self.rows = Sketch.empty(heads), RowSample.empty(heads)
        check_heads(observed.node, self.sketch.rows.size, heads)
        for target in (self.sketch, self.rows) if self._keep_rows else (self.sketch,):
            target.add(logits, masked=observed.masked, self_attention=observed.self_attention)


def _options(records: bool) -> ort.SessionOptions:
    """Options of a session on one thread, that can record."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    if records:
        options.register_custom_ops_library(register())
    return options


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
        problem = f"onnxruntime fails on it ({shapes}): {str(error).splitlines()[0][:300].rstrip('.')}"
        remedy = "Check shapes and values against the model"
        raise DataError(subject_of(feed), problem, remedy=remedy) from error


def _fingerprint(feed: Feed) -> int:
    digest = hashlib.sha256()
    for name in sorted(feed):
        value = np.ascontiguousarray(feed[name])
        digest.update(f"{name}:{value.dtype.str}:{value.shape};".encode())
        digest.update(value.tobytes())
    return int.from_bytes(digest.digest(), "big")
