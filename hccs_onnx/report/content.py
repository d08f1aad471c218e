"""What a report tells: plain values, without a word on how they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hccs_onnx.calibration.file import Calibration
from hccs_onnx.calibration.fit import HeadFit
from hccs_onnx.reference import Array
from hccs_onnx.verify import Verification

if TYPE_CHECKING:
    from hccs_onnx.aie.devices import Device
    from hccs_onnx.aie.model_estimate import NodeEstimate


@dataclass(frozen=True)
class FoundSoftmax:
    """A Softmax of the original model, and what became of it.

    Parameters
    ----------
    node : str
        Name, with the graph where that is not the main one.
    heads : int or None
        Number of heads; None if it is not known.
    length : str
        Row length, or ``dynamic``.
    masked : bool
        Whether positions can be masked.
    reason : str or None
        Why it is left alone; None if it was rewritten.
    """

    node: str
    heads: int | None
    length: str
    masked: bool
    reason: str | None


@dataclass(frozen=True)
class Gaps:
    """Where a head's probability lies.

    Parameters
    ----------
    shares : tuple of float
        Share of the probability at gaps within each bin from 0 upwards, 0..1.
    width : float
        Of a bin, nats.
    top : float
        Share of the rows' maxima alone: the mean probability of a row's first key.
    beyond : float
        Share of the probability beyond the clip range, where all keys get the floor score.
    effective_keys : float
        exp(mean entropy of a row): over how many keys a row spreads its probability.
    keys : float
        Geometric mean of the number of keys in a row that are not masked.
    """

    shares: tuple[float, ...]
    width: float
    top: float
    beyond: float
    effective_keys: float
    keys: float

    @property
    def breadth(self) -> float:
        """0 where all probability is on one key, 1 where it is even: log(effective keys) / log(keys)."""
        return math.log(self.effective_keys) / math.log(self.keys) if self.keys > 1 else 0.0


@dataclass(frozen=True)
class Measured:
    """A head in the rewritten model, on the report's data.

    Parameters
    ----------
    kl : float
        Mean KL over rows, what the layers below changed included, nats.
    deficit : float
        Mean of 1 - (sum of a row's probabilities).
    """

    kl: float
    deficit: float


@dataclass(frozen=True)
class Head:
    """One head.

    Parameters
    ----------
    layer, index : int
        Which Softmax of the calibration, and which head of it, from 0.
    node : str
        Name of the Softmax.
    fit : HeadFit
        Its parameters, and their KL and deficit on the calibration data.
    masked : bool
        Whether masked keys get probability 0.
    measured : Measured, optional
        In the rewritten model; needs data.
    gaps : Gaps, optional
        Needs data.
    """

    layer: int
    index: int
    node: str
    fit: HeadFit
    masked: bool
    measured: Measured | None = None
    gaps: Gaps | None = None

    @property
    def name(self) -> str:
        """Short name."""
        return f"L{self.layer} H{self.index}"

    @property
    def kl(self) -> float:
        """What the head is ranked by: measured if that was done, else fitted."""
        return self.fit.kl if self.measured is None else self.measured.kl


@dataclass(frozen=True)
class Accuracy:
    """Class labels against both models.

    Parameters
    ----------
    output : str
        Output that holds the class scores.
    both, only_original, only_rewritten, neither : int
        Samples that these read right.
    """

    output: str
    both: int
    only_original: int
    only_rewritten: int
    neither: int

    @property
    def samples(self) -> int:
        """Their number."""
        return self.both + self.only_original + self.only_rewritten + self.neither

    @property
    def original(self) -> float:
        """Share that the original reads right."""
        return (self.both + self.only_original) / self.samples

    @property
    def rewritten(self) -> float:
        """Share that the rewritten model reads right."""
        return (self.both + self.only_rewritten) / self.samples


@dataclass(frozen=True)
class Sharing:
    """What it costs to share parameters, on the report's data and for float output.

    Parameters
    ----------
    name : str
        Who shares.
    sets : int
        Sets of parameters in the model.
    kl : tuple of float
        Of each head, nats.
    """

    name: str
    sets: int
    kl: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean KL, nats."""
        return sum(self.kl) / len(self.kl)


@dataclass(frozen=True)
class AttentionMap:
    """Probabilities of one head on one sample.

    Parameters
    ----------
    head : Head
        Whose.
    roles : tuple of str
        What it stands for: ``best``, ``median``, ``worst``, ``most focused``, ``broadest``.
    original, rewritten : ndarray of float, shape (query, key)
        Of both models; padding left out.
    cut : bool
        Whether positions at the end were left out, too.
    """

    head: Head
    roles: tuple[str, ...]
    original: Array
    rewritten: Array
    cut: bool


@dataclass(frozen=True)
class Estimate:
    """Modelled cost on an AI Engine array.

    Parameters
    ----------
    target : str
        Board, or device file.
    device : Device
        What is known of it.
    nodes : tuple of NodeEstimate
        In graph order.
    shapes : mapping of str to sequence of int
        Input shapes that it holds for.
    """

    target: str
    device: Device
    nodes: tuple[NodeEstimate, ...]
    shapes: Mapping[str, Sequence[int]]

    @property
    def microseconds(self) -> float | None:
        """Time of all nodes, one after the other; None if a shape is not known."""
        times = [node.microseconds(self.device) for node in self.nodes]
        known = [time for time in times if time is not None]
        return sum(known) if len(known) == len(times) else None


@dataclass(frozen=True)
class Content:
    """All that a report tells; None stands for what its inputs did not allow.

    Parameters
    ----------
    model : str
        File name of the original.
    calibration : Calibration
        What the heads were fitted to.
    found : tuple of FoundSoftmax
        Every Softmax of the original.
    heads : tuple of Head
        Every calibrated head, by layer.
    result : Verification, optional
        Rewritten model against original; needs data.
    accuracy : Accuracy, optional
        Needs labels.
    sharing : tuple of Sharing
        From own parameters for each head to one set without data; empty without data.
    maps : tuple of AttentionMap
        By rank, best first; empty without data.
    sample : int
        Which feed the maps show.
    estimate : Estimate, optional
        Needs a target.
    """

    model: str
    calibration: Calibration
    found: tuple[FoundSoftmax, ...]
    heads: tuple[Head, ...]
    result: Verification | None = None
    accuracy: Accuracy | None = None
    sharing: tuple[Sharing, ...] = ()
    maps: tuple[AttentionMap, ...] = ()
    sample: int = 0
    estimate: Estimate | None = None

    @property
    def layers(self) -> tuple[tuple[Head, ...], ...]:
        """Heads of each layer."""
        count = len(self.calibration.softmaxes)
        return tuple(tuple(head for head in self.heads if head.layer == layer) for layer in range(count))

    @property
    def rewritten(self) -> int:
        """Softmax nodes that were rewritten."""
        return sum(item.reason is None for item in self.found)
