"""All that a pass over data leaves of a model's logits: it can be added up, stored and fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import MOST_ROWS, Sketch
from hccs_onnx.errors import CalibrationError


@dataclass(frozen=True)
class Observed:
    """A Softmax whose logits are sketched, and what the fit will have to know of it.

    Parameters
    ----------
    node, logits : str
        Its node name and the tensor it reads.
    place : str
        The body that it lies in, in words; empty for the main graph.
    heads : int or None
        Number of heads; None if the graph does not tell.
    head_axis : int
        Axis of the logits along which heads lie.
    masked, self_attention : bool
        As in `hccs_onnx.calibration.live_rows.live_rows`.
    per_tensor : bool
        Whether a quantiser of its logits must be one for all heads.
    unit : float
        What that quantiser would read, in units of the logits.
    """

    node: str
    logits: str
    place: str
    heads: int | None
    head_axis: int
    masked: bool
    self_attention: bool
    per_tensor: bool
    unit: float


@dataclass(frozen=True)
class Subject:
    """What a sketch is of; only those of one subject can be added.

    Parameters
    ----------
    model_sha256 : str
        Hash of the model file.
    observed : tuple of Observed
        In node order.
    keeps_rows : bool
        Whether rows are sampled beside the sketches, as integer output needs.
    """

    model_sha256: str
    observed: tuple[Observed, ...]
    keeps_rows: bool

    def check(self, other: Subject, name: str) -> None:
        """Refuse `other`, called `name`, if it is another.

        Raises
        ------
        CalibrationError
            Naming the difference.
        """
        if other.model_sha256 != self.model_sha256:
            found, needs = other.model_sha256[:12], self.model_sha256[:12]
            remedy = "Add only sketches of one model"
            raise CalibrationError(name, "is a sketch of another model", found=found, needs=needs, remedy=remedy)
        if other.keeps_rows != self.keeps_rows:
            words = ("without rows", "with rows for integer output")
            found, needs = words[other.keeps_rows], words[self.keeps_rows]
            remedy = "Give all of them the same --to"
            raise CalibrationError(name, "is a sketch of another kind", found=found, needs=needs, remedy=remedy)
        if other.observed != self.observed:
            remedy = "Collect all with one version of hccs-onnx"
            raise CalibrationError(name, "observes other Softmax nodes of the model", remedy=remedy)


@dataclass(frozen=True)
class ModelSketch:
    """Statistics of a model's logits over some data; sums do not depend on order or grouping.

    Parameters
    ----------
    subject : Subject
        What it is of.
    sketches : tuple of Sketch
        One for each Softmax; without heads where it never ran.
    samples : tuple of RowSample
        One each if rows are kept, else none.
    parts : tuple of str
        Fingerprints of the data of each run that is in it, sorted.
    feeds : int
        Feeds of the model counted.

    Examples
    --------
    >>> sketch = ModelSketch(Subject("0" * 64, (), False), (), (), (f"{5:064x}",), 2)
    >>> (sketch + sketch).feeds, (sketch + sketch).fingerprint[-2:]
    (4, '0a')
    """

    subject: Subject
    sketches: tuple[Sketch, ...]
    samples: tuple[RowSample, ...]
    parts: tuple[str, ...]
    feeds: int

    @property
    def fingerprint(self) -> str:
        """Hash of all samples whatever their order and parts: the sum of their hashes, modulo 2^256."""
        return f"{sum(int(part, 16) for part in self.parts) % 2**256:064x}"

    @property
    def rows(self) -> int:
        """Rows counted, over all nodes and heads."""
        return sum(int(sketch.rows.sum()) for sketch in self.sketches)

    def __add__(self, other: ModelSketch) -> ModelSketch:
        """Sketch of both data sets.

        Raises
        ------
        CalibrationError
            If they are of different subjects, or have too many rows together.
        """
        self.subject.check(other.subject, "sketch")
        sketches, samples = [], []
        for number, (one, another) in enumerate(zip(self.sketches, other.sketches, strict=True)):
            heads, more = one.rows.size, another.rows.size
            check_heads(self.subject.observed[number].node, heads, more)
            sketches.append(one + another if heads and more else one if heads else another)
        for one_rows, more_rows in zip(self.samples, other.samples, strict=True):
            heads, more = len(one_rows.rows), len(more_rows.rows)
            samples.append(one_rows + more_rows if heads and more else one_rows if heads else more_rows)
        check_room(sketches)
        parts = tuple(sorted(self.parts + other.parts))
        return ModelSketch(self.subject, tuple(sketches), tuple(samples), parts, self.feeds + other.feeds)

    def as_one_part(self) -> ModelSketch:
        """The same as the outcome of a single run."""
        return ModelSketch(self.subject, self.sketches, self.samples, (self.fingerprint,), self.feeds)


def check_heads(node: str, heads: int, more: int) -> None:
    """Refuse to add sketches of different numbers of heads, 0 for none at all.

    Raises
    ------
    CalibrationError
        Naming the node.
    """
    if heads and more and heads != more:
        remedy = "Give all data the same shape along the axis of heads"
        problem = "has another number of heads in other data"
        raise CalibrationError(f"node '{node}'", problem, found=more, needs=heads, remedy=remedy)


def check_room(sketches: Sequence[Sketch]) -> None:
    """Refuse sums that may have left 64 bits.

    Raises
    ------
    CalibrationError
        If a head has more rows than they hold.
    """
    most = max((int(np.max(sketch.rows, initial=0)) for sketch in sketches), default=0)
    if most > MOST_ROWS:
        needs = f"at most {MOST_ROWS}"
        raise CalibrationError("sketch", "has too many rows of a head", found=most, needs=needs, remedy="Use less data")
