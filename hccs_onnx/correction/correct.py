"""The correction of a rewritten model, layer by layer, each on top of the corrected layers below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from hccs_onnx.backends import best_backend, open_session
from hccs_onnx.calibration.data import Samples
from hccs_onnx.correction.gram import Gram
from hccs_onnx.correction.projection import Projection, find_projection
from hccs_onnx.correction.rows import live_positions
from hccs_onnx.correction.solve import Method, choose
from hccs_onnx.correction.stages import StagedModel
from hccs_onnx.correction.weights import store
from hccs_onnx.errors import DataError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.patterns.base import NoMatch
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.graph.view import GraphView
from hccs_onnx.progress import progress
from hccs_onnx.reference import Array

FOLDS = 4
"""Parts of the data; a correction is judged on each after a fit to the others."""


@dataclass(frozen=True)
class LayerCorrection:
    """What was done to the output projection of one attention.

    Parameters
    ----------
    node : str
        The Softmax that HCCS replaces.
    projection : str
        The projection; empty if none was found.
    reason : str or None
        Why it is left alone; None if it was corrected.
    ridge : float or None
        Strength of the ridge that was chosen, as a share of the mean square of the projection's inputs; infinite where
        only the bias changes.
    before, after : float or None
        Difference of the projection's output from the float model's, on samples that the correction was not fitted to:
        root mean square, relative to that of the output. None where nothing was measured.
    """

    node: str
    projection: str = ""
    reason: str | None = None
    ridge: float | None = None
    before: float | None = None
    after: float | None = None


def correct(
    original: onnx.ModelProto,
    rewritten: onnx.ModelProto,
    path: Path,
    targets: Sequence[AttentionSoftmax],
    samples: Samples,
    method: Method,
) -> tuple[LayerCorrection, ...]:
    """Correct the projections behind rewritten attention, in place.

    Parameters
    ----------
    original : onnx.ModelProto
        The model in which `targets` were found.
    rewritten : onnx.ModelProto
        What `rewrite_graph` made of it; weights and biases change, nothing else.
    path : pathlib.Path
        Where the original was read from.
    targets : sequence of AttentionSoftmax
        What was rewritten, in node order.
    samples : Samples
        The data; gone through once for each layer.
    method : {'bias', 'least-squares'}
        What may change: biases, or weights as well.

    Returns
    -------
    tuple of LayerCorrection
        One for each target.

    Raises
    ------
    DataError
        If the data can be gone through only once, is a single feed, does not fit or makes the model fail.
    """
    if not samples.repeatable:
        remedy = "Give a file, a folder or a list"
        raise DataError(samples.name, "can be gone through only once, correction needs a pass a layer", remedy=remedy)
    view = GraphView(original, path.parent)
    done = []
    with TemporaryDirectory(prefix="hccs_onnx_") as folder:
        first, second = (Path(folder) / name for name in ("original", "rewritten"))
        first.mkdir()
        second.mkdir()
        backend = best_backend()
        pair = _Pair(
            StagedModel(original, lambda part: load_session(part, path), first),
            StagedModel(rewritten, lambda part: open_session(part, path, backend), second),
        )
        for number, item in enumerate(targets, start=1):
            found = find_projection(view, item)
            if isinstance(found, NoMatch):
                done.append(LayerCorrection(item.node, reason=found.reason))
                continue
            if method == "bias" and found.bias is None:
                done.append(LayerCorrection(item.node, found.label, f"{found.label} has no bias of its own"))
                continue
            folds = _sums(pair, item, found, samples, f"correcting {number} of {len(targets)}")
            done.append(_correct_layer(rewritten, item, found, folds, method))
    return tuple(done)


def _correct_layer(
    rewritten: onnx.ModelProto, item: AttentionSoftmax, projection: Projection, folds: list[Gram], method: Method
) -> LayerCorrection:
    weight, bias = projection.weight, projection.bias
    choice = choose(folds, method, bias is not None, weight.change_when_stored)
    if choice.change is None:
        reason = "no correction lowers the error on samples held out"
        return LayerCorrection(item.node, projection.label, reason, None, choice.before, choice.before)
    if choice.change.weight.any():
        store(rewritten, weight.tensor, weight.nearest(weight.value + choice.change.weight))
    if bias is not None:
        store(rewritten, bias.tensor, bias.nearest(bias.value + choice.change.bias.reshape(bias.value.shape)))
    return LayerCorrection(item.node, projection.label, None, choice.ridge, choice.before, choice.after)


@dataclass(frozen=True)
class _Pair:
    """Both models, run side by side."""

    original: StagedModel
    rewritten: StagedModel


def _sums(pair: _Pair, item: AttentionSoftmax, projection: Projection, samples: Samples, what: str) -> list[Gram]:
    """Sums over the rows of each part of the data; a feed goes to one part as a whole."""
    folds = [Gram.empty(*projection.weight.value.shape) for _ in range(FOLDS)]
    for number, rows in enumerate(_rows(pair, item, projection, samples, what)):
        folds[number % FOLDS].add(*rows)
    folds = [fold for fold in folds if fold.rows]
    if len(folds) < 2:
        problem, needs = "leaves nothing to judge a correction on", "at least 2 feeds"
        remedy = "Give more; samples of an .npz are fed one by one"
        raise DataError(samples.name, problem, found=len(folds), needs=needs, remedy=remedy)
    return folds


def _rows(
    pair: _Pair, item: AttentionSoftmax, projection: Projection, samples: Samples, what: str
) -> Iterator[tuple[Array, Array, Array]]:
    """For each feed the projection's input in the rewritten model, what its output lacks, and the float model's."""
    mask = [item.logits] if item.masked else []
    wanted = pair.original.run(samples, [projection.output, *mask], projection.x)
    made = pair.rewritten.run(progress(samples, what, len(samples)), [projection.x, projection.output], projection.x)
    for (target, *logits), (x, output) in zip(wanted, made, strict=True):
        rows = [value.reshape(-1, value.shape[-1]).astype(np.float64) for value in (x, target - output, target)]
        counted = np.isfinite(rows[0]).all(axis=1) & np.isfinite(rows[1]).all(axis=1)
        live = live_positions(item, logits[0], x.shape[:-1]) if logits else None
        if live is not None:
            counted &= live
        yield rows[0][counted], rows[1][counted], rows[2][counted]
