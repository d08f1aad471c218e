"""Collecting what a report tells, from the files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import onnx

from hccs_onnx import workflow
from hccs_onnx.assignment import check_model
from hccs_onnx.backends import best_backend, open_session
from hccs_onnx.calibration.data import Feed, Samples, input_specs
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.errors import CalibrationError, DataError, HccsError, UsageError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.scopes import describe
from hccs_onnx.graph.sessions import load_session
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.report.accuracy import compare_labels, read_labels
from hccs_onnx.report.attention_maps import attention_maps, telling_heads
from hccs_onnx.report.content import Content, Estimate, FoundSoftmax, Head, Measured
from hccs_onnx.report.gaps import gaps_of, reach_of, sharing
from hccs_onnx.verify import Verification, replaced_softmaxes, verify

Data = Path | str | Sequence[Feed]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Request:
    """What a report is asked for, beside model and calibration.

    Parameters
    ----------
    data : path or sequence of feeds, optional
        Samples, gone through several times.
    rewritten : pathlib.Path, optional
        What rewrite made of the model; default: made anew.
    labels : pathlib.Path, optional
        ``.npy`` with the class of each sample.
    target : str, optional
        Device to estimate the cost on: one of `hccs_onnx.aie.devices.TARGETS`, or a device file.
    shapes : mapping of str to sequence of int
        For the estimate, shapes of dynamic inputs; those of the sample by default.
    sample : int, optional
        Feed of `data` whose attention maps are shown; default: the first.
    """

    data: Data | None = None
    rewritten: Path | None = None
    labels: Path | None = None
    target: str | None = None
    shapes: Shapes | None = None
    sample: int | None = None


def gather(model: Path, calibration: Calibration, request: Request) -> Content:
    """Run what has to be run and collect it.

    Parameters
    ----------
    model : pathlib.Path
        The original.
    calibration : Calibration
        Made for it.
    request : Request
        What else is there.

    Raises
    ------
    HccsError
        If what is asked for does not go together; as `workflow.rewrite`, `verify` and the estimate.

    Examples
    --------
    >>> gather(Path("encoder.onnx"), calibration, Request(Path("test.npz"))).result.samples  # doctest: +SKIP
    32
    """
    _check(calibration, request)
    check_model(model, calibration)
    labels = read_labels(request.labels) if request.labels is not None else None
    with _both_models(model, calibration, request) as (rewritten, found):
        content = Content(model.name, calibration, tuple(map(_found, found)), _heads(calibration))
        if rewritten is None:
            return content
        shapes: Shapes = request.shapes or {}
        if request.data is not None:
            samples = Samples(request.data, input_specs(read_model(model)))
            feed = _feed(samples, request.sample or 0)
            shapes = shapes or {name: value.shape for name, value in feed.items()}
        if request.target is not None:
            content = replace(content, estimate=_estimate(rewritten, request.target, shapes))
        if request.data is None:
            return content
        backend = best_backend()
        if labels is not None:  # first, as they may not fit
            sessions = load_session(read_model(model), model), open_session(read_model(rewritten), rewritten, backend)
            content = replace(content, accuracy=compare_labels(*sessions, samples, labels, str(request.labels)))
        result = verify(model, rewritten, request.data, backend=backend)
        content = _with_data(content, result, workflow.sketch(model, request.data))
        maps = attention_maps(model, rewritten, telling_heads(content.heads), feed, backend)
        return replace(content, maps=maps, sample=request.sample or 0)


def _check(calibration: Calibration, request: Request) -> None:
    """Refuse, before any work is done, what does not go together."""
    if request.data is None and request.labels is not None:
        raise UsageError("labels", "there are no samples that they belong to", remedy="Add --data DATA")
    if request.data is None and request.sample is not None:
        raise UsageError("sample", "there are no samples to choose from", remedy="Add --data DATA")
    if request.target is None and request.shapes:
        raise UsageError("shape", "there is nothing to estimate", remedy="Add --target, or leave it out")
    if request.target is not None and calibration.output == "float":
        problem = "estimates are for integer output"
        remedy = "Calibrate with --to uint8 or --to int16, or leave out --target"
        raise HccsError("--target", problem, found="a calibration for float", remedy=remedy)


@contextmanager
def _both_models(
    model: Path, calibration: Calibration, request: Request
) -> Iterator[tuple[Path | None, Sequence[AttentionSoftmax]]]:
    """The rewritten model, if it is needed, and every Softmax of the original with what became of it."""
    if request.rewritten is not None:
        found = workflow.inspect(model)
        original = read_model(model)
        uncover(original, model.parent)
        pair = original, read_model(request.rewritten)
        _check_calibration(pair[1], request.rewritten, calibration)
        made = {item.softmax for item in replaced_softmaxes(*pair, (model, request.rewritten))}
        yield request.rewritten, [_in_fact(item, made) for item in found]
    elif request.data is None and request.target is None:
        yield None, workflow.inspect(model)
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = workflow.rewrite(model, Path(folder) / model.name, calibration=calibration)
            yield report.output, report.found


def _check_calibration(rewritten: onnx.ModelProto, path: Path, calibration: Calibration) -> None:
    """Refuse a model that says it was rewritten with other parameters than the report would show."""
    said = {entry.key: entry.value for entry in rewritten.metadata_props}.get("hccs_onnx.calibration")
    if said not in (None, calibration.digest):
        remedy = "Give the calibration that it was rewritten with, or leave out --rewritten"
        raise CalibrationError(str(path), "was rewritten with another calibration", remedy=remedy)


def _in_fact(item: AttentionSoftmax, made: set[str]) -> AttentionSoftmax:
    if item.reason is None and item.softmax not in made:
        return replace(item, reason="could be rewritten, but was left out when the model was")
    return item


def _found(item: AttentionSoftmax) -> FoundSoftmax:
    name = (item.node or item.probabilities) + (f" in {describe(item.place)}" if item.place else "")
    length = item.axis_length
    # Names that shape inference made up say no more than that it is dynamic.
    shown = "dynamic" if length is None or str(length).startswith("unk__") else str(length)
    return FoundSoftmax(name, item.heads, shown, item.masked, item.reason)


def _heads(calibration: Calibration) -> tuple[Head, ...]:
    return tuple(
        Head(layer, index, softmax.node, fit, softmax.masked)
        for layer, softmax in enumerate(calibration.softmaxes)
        for index, fit in enumerate(softmax.heads)
    )


def _feed(samples: Samples, number: int) -> Feed:
    for feed in islice(samples, number, None):
        return feed
    raise DataError(samples.name, f"has no sample {number}", remedy="Give --sample a number from 0")


def _with_data(content: Content, result: Verification, sketch: ModelSketch) -> Content:
    measured = {(item.node, item.head): Measured(item.kl, item.deficit) for item in result.heads}
    reach = reach_of([head.fit for head in content.heads])
    logits = [softmax.logits for softmax in content.calibration.softmaxes]
    clips = [[head.fit.params.clip_range for head in layer] for layer in content.layers]
    ran = {
        item.logits: heads
        for item, heads in zip(sketch.subject.observed, sketch.sketches, strict=True)
        if item.logits in logits and heads.rows.all() and heads.rows.size
    }
    gaps = {
        (name, index): found
        for name, heads in ran.items()
        for index, found in enumerate(gaps_of(heads, clips[logits.index(name)], reach))
    }
    heads = tuple(
        replace(
            head,
            measured=measured.get((head.node, head.index)),
            gaps=gaps.get((logits[head.layer], head.index)),
        )
        for head in content.heads
    )
    shared = sharing(tuple(ran.values())) if ran else ()
    return replace(content, heads=heads, result=result, sharing=shared)


def _estimate(rewritten: Path, target: str, shapes: Shapes) -> Estimate:
    from hccs_onnx.aie.devices import device
    from hccs_onnx.aie.model_estimate import estimate_model

    array = device(target)
    return Estimate(target, array, estimate_model(rewritten, array, shapes=shapes), shapes)
