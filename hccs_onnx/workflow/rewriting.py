"""The rewrite, from file to file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import onnx

from hccs_onnx.assignment import calibrated, check_choices, without_data, without_unseen_bodies
from hccs_onnx.calibration.data import DataSource, Samples, input_specs
from hccs_onnx.calibration.data.shards import files
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.calibration.fit_sketch import FitOptions
from hccs_onnx.correction.correct import LayerCorrection
from hccs_onnx.correction.correct import correct as correct_layers
from hccs_onnx.correction.solve import Method
from hccs_onnx.errors import MatchError, UsageError
from hccs_onnx.graph.attention import AttentionSoftmax, find_attention
from hccs_onnx.graph.files import check_target, read_model, write_model
from hccs_onnx.graph.opset import default_opset
from hccs_onnx.graph.placement import ExternalData
from hccs_onnx.graph.rewrite import rewrite_graph
from hccs_onnx.graph.selection import check_chosen, chosen
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.params import HccsParams, OutputType, Profile, Reciprocal
from hccs_onnx.workflow.calibration import MASKS_LOST
from hccs_onnx.workflow.inspection import attention, count_hccs

Correction = Literal["none", Method]

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


def rewrite(
    model: Path | str,
    output: Path | str | None = None,
    *,
    calibration: Calibration | Path | str | None = None,
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
    calibration : Calibration or path of its file, optional
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
        If `include` or `exclude` is no regular expression or they leave nothing, `external_data` is unknown, or choices
        do not go together.
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
    calibration = None if calibration is None else Calibration.of(calibration)
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
    proto, every, found = _uncovered(path, proto, calibration, include, exclude)
    as_it_is = calibration is None and (to, reciprocal, profile, samples) == (None,) * 4
    if as_it_is and count_hccs(proto) and not any(item.reason is None for item in found):
        copies = write_model(proto, path, target, external_data)
        return RewriteReport(target, found, {}, "none", copies)
    check_chosen(every, include, exclude, str(path))
    targets = attention(path, proto, found)
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


def _uncovered(
    path: Path, model: onnx.ModelProto, calibration: Calibration | None, include: str | None, exclude: str | None
) -> tuple[onnx.ModelProto, list[AttentionSoftmax], tuple[AttentionSoftmax, ...]]:
    """A model with hidden attention uncovered where it is to be rewritten; all its Softmax nodes, and as chosen."""
    came_from = uncover(model, path.parent)
    every = find_attention(model, path.parent)
    found = tuple(chosen(every, include, exclude))
    if calibration is not None and calibration.output != "float":
        found = without_unseen_bodies(found, calibration)
    kept = {came_from[item.softmax] for item in found if item.reason is None and item.softmax in came_from}
    left = set(came_from.values()) - kept
    if left:  # what is not rewritten stays as it was, unless what is rewritten cannot be told without it
        partly = read_model(path)
        uncover(partly, path.parent, left)
        again = _found_again(found, find_attention(partly, path.parent), came_from)
        if _targets(again) == _targets(found):
            return partly, every, again
    return model, every, found


def _targets(found: Sequence[AttentionSoftmax]) -> set[str]:
    return {item.softmax for item in found if item.reason is None}


def _found_again(
    before: Sequence[AttentionSoftmax], again: Sequence[AttentionSoftmax], came_from: Mapping[str, str]
) -> tuple[AttentionSoftmax, ...]:
    """What was found, in the model in which all that is not rewritten has its own form: same reasons, its own nodes."""
    targets = _targets(before)
    whole = {item.softmax: item for item in again if item.reason is not None}
    left = []
    for item in before:
        if item.reason is not None:
            node = whole.get(came_from.get(item.softmax, ""), item)
            left.append(replace(node, reason=item.reason, attention_like=item.attention_like))
    return (*(item for item in again if item.softmax in targets and item.reason is None), *left)


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
