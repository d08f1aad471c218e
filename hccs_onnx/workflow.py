"""The steps of the main job, from file to file: inspect, calibrate, rewrite."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import onnx

from hccs_onnx.assignment import calibrated, check_choices, without_data, without_unseen_bodies
from hccs_onnx.calibration.collect import prepare
from hccs_onnx.calibration.data import DataSource, Samples, input_specs
from hccs_onnx.calibration.data.shards import files
from hccs_onnx.calibration.engines import Engine, LocalEngine
from hccs_onnx.calibration.file import Calibration, Granularity
from hccs_onnx.calibration.fit_sketch import FitOptions, LogitScale, LogitZeroPoint, Objective, ScaleGranularity, fit
from hccs_onnx.calibration.merge import check_repeats, merge_files
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.correction.correct import LayerCorrection
from hccs_onnx.correction.correct import correct as correct_layers
from hccs_onnx.correction.solve import Method
from hccs_onnx.errors import MatchError, ModelError, UsageError
from hccs_onnx.graph.attention import AttentionSoftmax, find_attention
from hccs_onnx.graph.files import check_target, read_model, write_model
from hccs_onnx.graph.names import nested_graphs
from hccs_onnx.graph.opset import default_opset
from hccs_onnx.graph.placement import ExternalData
from hccs_onnx.graph.rewrite import rewrite_graph
from hccs_onnx.graph.selection import chosen
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.operator.schema import is_hccs
from hccs_onnx.params import (
    HccsParams,
    OutputType,
    Profile,
    Reciprocal,
)

Correction = Literal["none", Method]

MASKS_LOST = (
    "profile paper keeps no mask (nodes with one: %d): masked keys, as those of padding, get a little probability; "
    "profile extended gives them none"
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RewriteReport:
    """What a rewrite did.

    Parameters
    ----------
    output : pathlib.Path
        The new file.
    found : tuple of AttentionSoftmax
        Every Softmax of the model; those without a reason were rewritten.
    params : mapping of str to HccsParams
        Parameters by logits tensor, in nats.
    calibration : str
        ``data-free``, the SHA-256 of the calibration, or ``none`` where nothing was left to rewrite.
    copies : tuple of pathlib.Path
        Files of external data that were written beside the output.
    corrections : tuple of LayerCorrection
        What was done to the projection behind each rewritten Softmax; empty if no correction was asked for.
    """

    output: Path
    found: tuple[AttentionSoftmax, ...]
    params: Mapping[str, HccsParams]
    calibration: str
    copies: tuple[Path, ...] = ()
    corrections: tuple[LayerCorrection, ...] = ()

    @property
    def rewritten(self) -> tuple[AttentionSoftmax, ...]:
        """The Softmax nodes that were replaced."""
        return tuple(item for item in self.found if item.reason is None)


def inspect(model: Path | str) -> list[AttentionSoftmax]:
    """Every Softmax of a model: attention, or the reason why not.

    Parameters
    ----------
    model : path
        ONNX file; external data is not read.

    Raises
    ------
    ModelError
        If the model cannot be read.

    Examples
    --------
    >>> inspect("encoder.onnx")[0].heads  # doctest: +SKIP
    12
    """
    path = Path(model)
    proto = read_model(path)
    uncover(proto, path.parent)
    return find_attention(proto, path.parent)


def calibrate(
    model: Path | str,
    data: DataSource,
    *,
    granularity: Granularity = "head",
    objective: Objective = "kl",
    to: OutputType = "float",
    reciprocal: Reciprocal = "norm",
    profile: Profile = "extended",
    logit_scale: LogitScale = "free",
    logit_zero_point: LogitZeroPoint = "free",
    scale_granularity: ScaleGranularity = "head",
    engine: Engine | None = None,
) -> Calibration:
    """Fit head parameters to real samples.

    Parameters
    ----------
    model : path
        The original model.
    data : path, iterable of feeds, or CalibrationDataReader
        Samples, see `hccs_onnx.calibration.data.Samples`.
    granularity : {'head', 'layer', 'global'}
        What shares one set of parameters.
    objective : {'kl', 'squares'}
        What is least: KL divergence, or for float output the squared difference of probabilities, which brings what
        attention puts out closer to the original's.
    to : {'float', 'uint8', 'int16'}
        What attention shall put out. For integers the quantiser of the logits is fitted as well, and judged by real
        integer results.
    reciprocal : {'norm', 'div', 'clb'}
        How integer output inverts row sums; float output has no choice.
    profile : {'extended', 'paper'}
        What is legal; ``paper`` has integer output, ``div`` or ``clb``, and no mask.
    logit_scale : {'free', 'power-of-two'}
        For integers, which code sizes the quantiser of the logits may have, in units of what it will read.
    logit_zero_point : {'free', 'zero'}
        For integers, whether that quantiser's zero point is fitted or 0.
    scale_granularity : {'head', 'tensor'}
        For integers, whether each head may have a quantiser of its own, or all of a node share one; B, S and Dmax are
        shared as `granularity` says.
    engine : Engine, optional
        Where the model runs, see `hccs_onnx.calibration.engines`; default: in this process. All give the same result.

    Returns
    -------
    Calibration

    Raises
    ------
    ModelError, DataError, CalibrationError
        With what to do about it.

    Examples
    --------
    >>> calibrate("encoder.onnx", "samples.npz").save(Path("encoder.json"))  # doctest: +SKIP
    """
    options = FitOptions(
        granularity, to, reciprocal, profile, logit_scale, logit_zero_point, scale_granularity, objective
    )
    options.check()
    return fit(sketch(model, data, keep_rows=options.needs_rows, engine=engine), options, str(model))


def sketch(
    model: Path | str,
    data: DataSource,
    *,
    keep_rows: bool = False,
    engine: Engine | None = None,
    resume: Sequence[Path] = (),
    allow_repeats: bool = False,
) -> ModelSketch:
    """What `calibrate` learns from samples before it fits: it can be saved, added to others, and fitted in many ways.

    Parameters
    ----------
    model : path
        The original model.
    data : path, iterable of feeds, or CalibrationDataReader
        Samples, see `hccs_onnx.calibration.data.Samples`.
    keep_rows : bool
        Keep a sample of rows, without which neither integer output nor squares can be fitted.
    engine : Engine, optional
        Where the model runs; default: in this process.
    resume : sequence of path
        Sketch files that the new sketch is added to.
    allow_repeats : bool
        Whether `data` may be in them already.

    Raises
    ------
    ModelError, DataError, CalibrationError
        With what to do about it.

    Examples
    --------
    >>> sketch("encoder.onnx", "samples.npz").feeds  # doctest: +SKIP
    256
    """
    path = Path(model)
    proto = read_model(path)
    opset = default_opset(proto)
    uncover(proto, path.parent)
    targets = _attention(path, proto, find_attention(proto, path.parent))
    samples = Samples(data, input_specs(proto))
    job = prepare(proto, path, targets, opset, keep_rows=keep_rows)
    del proto
    before = merge_files(resume, allow_repeats=allow_repeats) if resume else None
    if before is not None:
        job.subject.check(before.subject, str(resume[0]))  # before any long work
    new = (engine or LocalEngine()).sketch(job, samples)
    if before is None:
        return new
    if not allow_repeats:
        check_repeats([*((part, "the resumed sketch") for part in before.parts), (new.fingerprint, samples.name)])
    return before + new


def rewrite(
    model: Path | str,
    output: Path | str | None = None,
    *,
    calibration: Calibration | None = None,
    to: OutputType | None = None,
    reciprocal: Reciprocal | None = None,
    profile: Profile | None = None,
    correct: Correction = "none",
    data: DataSource | None = None,
    strict: bool = False,
    include: str | None = None,
    exclude: str | None = None,
    external_data: ExternalData | None = None,
) -> RewriteReport:
    """Replace attention's Softmax nodes by ``hccs::HCCS`` nodes, into a new file.

    Parameters
    ----------
    model : path
        ONNX file, not changed.
    output : path, optional
        New file; default: the model's name with ``.hccs.onnx`` in place of ``.onnx``, beside it.
    calibration : Calibration, optional
        Parameters, and whether attention puts out floats or integers; without it the data-free default is used for
        every head.
    to : {'float', 'uint8', 'int16'}, optional
        What attention shall put out; default: what the calibration is for, else floats. Integers without a calibration
        need a model whose logits are int8 or uint8 already (QDQ); its quantiser stays.
    reciprocal, profile : str, optional
        For integers without a calibration, as in `calibrate`; default: those of the calibration, else ``norm`` and
        ``extended``.
    correct : {'none', 'bias', 'least-squares'}
        What may be corrected in the projection behind each rewritten attention, without retraining: its bias, or its
        weight as well.
    data : path, or list of feeds, optional
        Samples to correct on; needed for that and read for nothing else.
    strict : bool
        Fail if a Softmax that looks like attention has to be left alone.
    include, exclude : str, optional
        Regular expressions, searched for in node names: rewrite only those that `include` finds and `exclude` does not.
    external_data : {'share', 'copy'}, optional
        Whether the new model refers to the original's files of external data, or to copies beside it. Default: share
        what really lies in the output's folder or deeper, where runtimes allow it to be, and copy the rest.

    Returns
    -------
    RewriteReport
        A model whose attention is all HCCS already is copied as it is, with nothing in `rewritten`, unless something is
        asked for that only the original can become.

    Raises
    ------
    ModelError
        If the model cannot be read, holds no attention, or the output cannot be written or cannot share external data.
    UsageError
        If `include` or `exclude` is no regular expression, `external_data` unknown, or choices do not go together.
    DataError
        If the data does not fit, or holds too little to hold some out.
    MatchError
        In strict mode.
    CalibrationError
        If the calibration is for another model or another output, or does not cover this one; or if the model has no
        quantiser of the logits that integers could do with.

    Examples
    --------
    >>> rewrite("encoder.onnx").output  # doctest: +SKIP
    PosixPath('encoder.hccs.onnx')
    """
    if calibration is None:
        choices = FitOptions("head", to or "float", reciprocal or "norm", profile or "extended")
        choices.check()
    else:
        check_choices(calibration, {"to": to, "reciprocal": reciprocal, "profile": profile})
        choices = FitOptions("head", calibration.output, calibration.reciprocal, calibration.profile)
    path = Path(model)
    target = Path(output) if output is not None else default_output(path)
    proto = read_model(path)
    if external_data not in (None, *get_args(ExternalData)):
        raise UsageError("external_data", "unknown", found=external_data, needs="share, copy or None")
    samples = _correction_samples(correct, data, proto)
    check_target(target, path, *(files(Path(data)) if isinstance(data, str | Path) else ()))
    came_from = uncover(proto, path.parent)
    found = tuple(chosen(find_attention(proto, path.parent), include, exclude))
    if calibration is not None and calibration.output != "float":
        found = without_unseen_bodies(found, calibration)
    left = set(came_from.values()) - {came_from[item.softmax] for item in found if _is_target(item, came_from)}
    if left:  # what is not rewritten stays as it was
        proto = read_model(path)
        uncover(proto, path.parent, left)
        found = _found_again(found, find_attention(proto, path.parent), came_from)
    as_it_is = calibration is None and (to, reciprocal, profile, samples) == (None,) * 4
    if as_it_is and count_hccs(proto) and not any(item.reason is None for item in found):
        copies = write_model(proto, path, target, external_data)
        return RewriteReport(target, found, {}, "none", copies)
    targets = _attention(path, proto, found)
    similar = [item for item in found if item.reason is not None and item.attention_like]
    if strict and similar:
        problem = f"Softmax '{similar[0].node}' looks like attention and cannot be rewritten: {similar[0].reason}"
        raise MatchError(str(path), problem, remedy="Leave out --strict to rewrite the others")
    if calibration is not None:
        assigned = calibrated(path, found, calibration, default_opset(proto))
    else:
        assigned = without_data(found, choices.to, choices.reciprocal, choices.profile)
    original = onnx.ModelProto()
    if samples is not None:
        original.CopyFrom(proto)
    provenance = {"calibration": assigned.source} | ({"correction": correct} if samples is not None else {})
    found, params = assigned.found, assigned.params
    unmasked = sum(item.masked and not params[item.logits].masked for item in found if item.reason is None)
    if unmasked:
        logger.warning(MASKS_LOST, unmasked)
    rewrite_graph(proto, found, params, provenance, output=choices.to, quantizers=assigned.quantizers)
    corrections: tuple[LayerCorrection, ...] = ()
    if samples is not None and correct != "none":
        corrections = correct_layers(original, proto, path, targets, samples, correct)
    copies = write_model(proto, path, target, external_data)
    return RewriteReport(target, found, params, assigned.source, copies, corrections)


def default_output(model: Path) -> Path:
    """Where a rewritten model goes if the user does not say: beside the model, ``.hccs.onnx`` in place of ``.onnx``.

    Examples
    --------
    >>> default_output(Path("encoder.onnx")).name
    'encoder.hccs.onnx'
    """
    return model.with_name(model.name.removesuffix(".onnx") + ".hccs.onnx")


def count_hccs(model: onnx.ModelProto) -> int:
    """HCCS nodes of a model, in bodies of If, Loop and Scan too.

    Examples
    --------
    >>> count_hccs(onnx.ModelProto())
    0
    """
    return sum(is_hccs(node) for graph in nested_graphs(model.graph) for node in graph.node)


def _attention(path: Path, model: onnx.ModelProto, found: Sequence[AttentionSoftmax]) -> list[AttentionSoftmax]:
    """Those to be rewritten; an error if there are none."""
    targets = [item for item in found if item.reason is None]
    if targets:
        return targets
    if rewritten := count_hccs(model):
        left = f" ({len(found)} Softmax left alone, the first because {found[0].reason})" if found else ""
        problem = f"holds {rewritten} HCCS node{'s' * (rewritten != 1)} already, and no other attention{left}"
        raise ModelError(str(path), problem, remedy="Start from the original")
    if not found:
        raise ModelError(
            str(path), "holds no Softmax node", remedy="Export it without fused attention operators, which hide it"
        )
    problem = f"holds no attention ({len(found)} Softmax left alone, the first because {found[0].reason})"
    raise ModelError(str(path), problem, remedy="See python -m hccs_onnx inspect")


def _is_target(item: AttentionSoftmax, came_from: Mapping[str, str]) -> bool:
    """Whether a Softmax is to be rewritten that was hidden."""
    return item.reason is None and item.softmax in came_from


def _found_again(
    before: Sequence[AttentionSoftmax], again: Sequence[AttentionSoftmax], came_from: Mapping[str, str]
) -> tuple[AttentionSoftmax, ...]:
    """What was found, in the model in which all that is not rewritten has its own form: same reasons, its own nodes."""
    targets = {item.softmax for item in before if item.reason is None}
    whole = {item.softmax: item for item in again if item.reason is not None}
    left = []
    for item in before:
        if item.reason is not None:
            node = whole.get(came_from.get(item.softmax, ""), item)
            left.append(replace(node, reason=item.reason, attention_like=item.attention_like))
    return (*(item for item in again if item.softmax in targets), *left)


def _correction_samples(correct: Correction, data: DataSource | None, model: onnx.ModelProto) -> Samples | None:
    """What to correct on; None without correction."""
    known = ("none", *get_args(Method))
    if correct not in known:
        raise UsageError("correct", "unknown", found=correct, needs=f"one of {', '.join(known)}")
    if correct == "none":
        if data is not None:
            remedy = "To calibrate on it: calibration=hccs_onnx.calibrate(model, data)"
            raise UsageError("data", "means nothing without a correction", remedy=remedy)
        return None
    if data is None:
        raise UsageError("correct", "needs samples", found=correct, remedy="Give data as well")
    return Samples(data, input_specs(model))
