"""The rewritten model against the original: outputs, and each head's probabilities."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from hccs_onnx.backends import Backend, open_session
from hccs_onnx.calibration.data import DataSource, Samples, input_specs
from hccs_onnx.calibration.watched import Watched
from hccs_onnx.errors import ModelError, UsageError
from hccs_onnx.graph.attention import AttentionSoftmax, find_attention
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.names import nested_graphs
from hccs_onnx.graph.scopes import describe
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.head_sums import HeadSums, least_probability
from hccs_onnx.operator.schema import is_hccs
from hccs_onnx.progress import progress
from hccs_onnx.reference import Array

logger = logging.getLogger(__name__)

_BEHIND = ("Cast", "DequantizeLinear", "Mul")  # between HCCS and the probabilities: half precision, integer output


@dataclass(frozen=True)
class OutputComparison:
    """One float output, original against rewritten, over all samples.

    Parameters
    ----------
    name : str
        Output name.
    max_difference, mean_difference : float
        Absolute difference, in the output's units.
    mean_cosine, worst_cosine : float
        Cosine of the vectors of a sample's output along its last axis; 1 where both vectors are zero.
    argmax_agreement : float or None
        Share of samples with the same highest entry, for outputs (batch, class); else None.
    """

    name: str
    max_difference: float
    mean_difference: float
    mean_cosine: float
    worst_cosine: float
    argmax_agreement: float | None


@dataclass(frozen=True)
class HeadComparison:
    """One head's probabilities, original against rewritten, over all rows that are not padding.

    Parameters
    ----------
    node : str
        Node name, the same in both models.
    head : int
        Index of the head.
    kl : float
        Mean KL(Softmax in the original || HCCS in the rewritten model) over rows, nats; inf where HCCS gives 0 to what
        Softmax does not. In integer output a code of 0 counts as a quarter, unless all of a row are 0. What the layers
        below changed is part of it.
    deficit : float
        Mean of 1 - (sum of the row's HCCS probabilities).
    """

    node: str
    head: int
    kl: float
    deficit: float


@dataclass(frozen=True)
class Verification:
    """Result of a comparison.

    Parameters
    ----------
    outputs : tuple of OutputComparison
        One for each float output of the model.
    heads : tuple of HeadComparison
        One for each head of each rewritten node.
    samples : int
        Feeds compared.
    backend : str
        What ran the rewritten model.
    failures : tuple of str
        Bounds that were not met, or that no output could be judged by; empty if there are none.
    """

    outputs: tuple[OutputComparison, ...]
    heads: tuple[HeadComparison, ...]
    samples: int
    backend: Backend
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Bounds:
    """What the user demands of the rewritten model; None demands nothing.

    Parameters
    ----------
    min_cosine : float, optional
        Lowest mean cosine of any output, -1..1.
    min_worst_cosine : float, optional
        Lowest cosine of any vector of any output, -1..1.
    min_agreement : float, optional
        Lowest argmax agreement of any class-score output, 0..1.
    max_difference : float, optional
        Highest absolute difference of any output, 0 or more.

    Raises
    ------
    UsageError
        If one is out of its range.

    Examples
    --------
    >>> Bounds(min_cosine=0.95, min_agreement=0.99).min_cosine
    0.95
    """

    min_cosine: float | None = None
    min_worst_cosine: float | None = None
    min_agreement: float | None = None
    max_difference: float | None = None

    def __post_init__(self) -> None:
        """Refuse what can be no bound."""
        cosine, share, size = (-1.0, 1.0), (0.0, 1.0), (0.0, np.inf)
        ranges = {"min_cosine": cosine, "min_worst_cosine": cosine, "min_agreement": share, "max_difference": size}
        for name, (low, high) in ranges.items():
            bound = getattr(self, name)
            if bound is not None and not low <= bound <= high:  # NaN is nowhere
                raise UsageError(name, "out of range", found=bound, needs=f"{low:g}..{high:g}")

    @property
    def _checks(self) -> tuple[tuple[str, str, float | None, int], ...]:
        """What is bounded: words, field, bound, and 1 where high values are good."""
        return (
            ("mean cosine", "mean_cosine", self.min_cosine, 1),
            ("worst cosine", "worst_cosine", self.min_worst_cosine, 1),
            ("argmax agreement", "argmax_agreement", self.min_agreement, 1),
            ("largest difference", "max_difference", self.max_difference, -1),
        )

    def unjudged(self, outputs: Sequence[OutputComparison]) -> tuple[str, ...]:
        """One line for each bound that there is no output to judge by.

        Examples
        --------
        >>> Bounds(min_agreement=0.9).unjudged([OutputComparison("y", 0.1, 0.01, 0.98, 0.9, None)])
        ('argmax agreement: no float output (batch, class) to judge (needs >= 0.9)',)
        """
        lines = []
        for what, field, bound, sign in self._checks:
            if bound is not None and all(getattr(output, field) is None for output in outputs):
                kind = "float output (batch, class)" if field == "argmax_agreement" else "float output"
                lines.append(f"{what}: no {kind} to judge (needs {'>=' if sign > 0 else '<='} {bound})")
        return tuple(lines)

    def failures(self, outputs: Sequence[OutputComparison]) -> tuple[str, ...]:
        """One line for each bound that an output misses, or that there is none to judge by. NaN misses every bound.

        Examples
        --------
        >>> Bounds(min_cosine=0.99).failures([OutputComparison("y", 0.1, 0.01, 0.98, 0.9, None)])
        ("output 'y': mean cosine is too low (0.980000, needs >= 0.99)",)
        """
        lines = list(self.unjudged(outputs))
        for output in outputs:
            for what, field, bound, sign in self._checks:
                value = getattr(output, field)
                if bound is None or value is None or sign * value >= sign * bound:
                    continue
                verdict, relation = ("low", ">=") if sign > 0 else ("high", "<=")
                lines.append(f"output '{output.name}': {what} is too {verdict} ({value:.6f}, needs {relation} {bound})")
        return tuple(lines)


def verify(
    original: Path | str,
    rewritten: Path | str,
    data: DataSource,
    *,
    backend: Backend = "function",
    bounds: Bounds | None = None,
) -> Verification:
    """Run both models on the same samples and compare outputs and heads.

    Parameters
    ----------
    original, rewritten : path
        ONNX files.
    data : path, iterable of feeds, or CalibrationDataReader
        Samples for both.
    backend : {'function', 'native', 'python'}
        What runs HCCS nodes.
    bounds : Bounds, optional
        What to demand.

    Returns
    -------
    Verification

    Raises
    ------
    ModelError
        If a model cannot be read or run, or the two do not belong together.
    DataError
        If the data does not fit.

    Examples
    --------
    >>> verify("encoder.onnx", "encoder.hccs.onnx", "samples.npz").outputs[0].mean_cosine  # doctest: +SKIP
    0.97
    """
    paths = Path(original), Path(rewritten)
    models = [read_model(path) for path in paths]
    uncover(models[0], paths[0].parent)
    outputs = _shared_outputs(models[0], models[1], paths[1])
    replaced = replaced_softmaxes(models[0], models[1], paths)
    least = least_probability(models[1])
    samples = Samples(data, input_specs(models[0]))
    watched = {item.probabilities for item in replaced}
    logits = {item.logits for item in replaced}
    first = Watched(models[0], watched | logits, lambda model, options: load_session(model, paths[0], options))
    registers = backend == "python"  # the library that records as well, which must not be registered twice
    second = Watched(
        models[1],
        watched,
        lambda model, options: open_session(model, paths[1], backend, None if registers else options),
    )
    output_sums = {name: _OutputSums() for name in outputs}
    head_sums = [(item, HeadSums(item, least)) for item in replaced]
    count = 0
    for feed in progress(samples, "verifying", len(samples)):
        expected, actual = first.run(outputs, feed), second.run(outputs, feed)
        for name, output in output_sums.items():
            output.add(expected[name][0], actual[name][0])
        for item, sums in head_sums:
            runs = (expected[item.logits], expected[item.probabilities], actual[item.probabilities])
            for arrays in zip(*runs, strict=False):  # a loop may end earlier in one
                sums.add(*arrays)
        count += 1
    compared = tuple(sums.result(name) for name, sums in output_sums.items() if sums.elements)
    for item, sums in head_sums:
        if not sums.ran:
            logger.warning("node '%s' in %s never ran on the data: not compared", item.node, describe(item.place))
    heads = tuple(
        HeadComparison(item.node, index, float(kl), float(deficit))
        for item, sums in head_sums
        for index, (kl, deficit) in enumerate(zip(*sums.result(), strict=True))
    )
    failures = (bounds or Bounds()).failures(compared)
    return Verification(compared, heads, count, backend, failures)


def _shared_outputs(original: onnx.ModelProto, rewritten: onnx.ModelProto, path: Path) -> list[str]:
    names = [output.name for output in original.graph.output]
    others = [output.name for output in rewritten.graph.output]
    if names != others or _fed(original) != _fed(rewritten):
        remedy = "Name the model and what rewrite made of it"
        raise ModelError(str(path), "has other inputs or outputs than the original", remedy=remedy)
    return names


def _fed(model: onnx.ModelProto) -> list[str]:
    """Inputs without initializers, of which models before IR version 4 list all, and rewritten ones need none."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in initializers]


def replaced_softmaxes(
    original: onnx.ModelProto, rewritten: onnx.ModelProto, paths: tuple[Path, Path]
) -> list[AttentionSoftmax]:
    """The Softmax nodes of the original whose probabilities an HCCS node makes in the rewritten model.

    Parameters
    ----------
    original, rewritten : onnx.ModelProto
        The original with hidden Softmax uncovered, and what rewrite made of it.
    paths : pair of pathlib.Path
        Their files.

    Returns
    -------
    list of AttentionSoftmax
        `probabilities` names a tensor that both models have.

    Raises
    ------
    ModelError
        If the two do not belong together.

    Examples
    --------
    >>> len(replaced_softmaxes(original, rewritten, paths))  # doctest: +SKIP
    6
    """
    nodes = [node for graph in nested_graphs(rewritten.graph) for node in graph.node]
    made_by = {name: node for node in nodes for name in node.output}
    replaced = []
    for item in find_attention(original, paths[0].parent):
        results = [item.probabilities, *([item.requantized.output] if item.requantized else [])]
        for result in results:
            node = made_by.get(result)
            while node is not None and node.op_type in _BEHIND:
                node = made_by.get(node.input[0])
            if node is not None and is_hccs(node):
                replaced.append(replace(item, probabilities=result))
                break
    count = sum(is_hccs(node) for node in nodes)
    if count == 0:
        raise ModelError(str(paths[1]), "holds no HCCS node", remedy="Rewrite the original first")
    if count != len(replaced):
        problem = f"{count - len(replaced)} of {count} HCCS nodes replace no Softmax of {paths[0]}"
        raise ModelError(str(paths[1]), problem, remedy="Name the model that it was rewritten from")
    return replaced


class _OutputSums:
    """Running comparison of one output; float outputs only."""

    def __init__(self) -> None:
        self.elements = self.vectors = self.labels = self.agreements = 0
        self.difference = self.cosine = self.largest = 0.0
        self.worst = np.inf

    def add(self, expected: Array | list[object], actual: Array | list[object]) -> None:
        if isinstance(expected, list) or isinstance(actual, list):  # maps, as classifiers of scikit-learn put out
            return
        if not np.issubdtype(expected.dtype, np.floating) or expected.size == 0:
            return
        left, right = expected.astype(np.float64), actual.astype(np.float64)
        with np.errstate(invalid="ignore"):
            difference = np.where(left == right, 0.0, np.abs(left - right))
        self.elements += difference.size
        self.difference += float(difference.sum())
        self.largest = float(np.maximum(self.largest, difference.max()))  # NaN stays
        cosine = _cosine(np.atleast_1d(left), np.atleast_1d(right))
        self.vectors += cosine.size
        self.cosine += float(cosine.sum())
        self.worst = float(np.minimum(self.worst, cosine.min()))
        if left.ndim == 2 and left.shape[1] > 1:
            self.labels += left.shape[0]
            agrees = (left.argmax(axis=1) == right.argmax(axis=1)) & ~np.isnan(right).any(axis=1)
            self.agreements += int(np.count_nonzero(agrees))

    def result(self, name: str) -> OutputComparison:
        agreement = self.agreements / self.labels if self.labels else None
        mean = self.difference / self.elements
        return OutputComparison(name, self.largest, mean, self.cosine / self.vectors, self.worst, agreement)


def _cosine(left: Array, right: Array) -> Array:
    """Cosine along the last axis; 1 for equal vectors, 0 if one is zero, NaN where either is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        product = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
        cosine = (left * right).sum(axis=-1) / np.where(product == 0, 1.0, product)
    result: Array = np.where((left == right).all(axis=-1), 1.0, cosine)
    return result
