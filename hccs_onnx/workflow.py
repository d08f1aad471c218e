"""The steps of the main job, from file to file: inspect, calibrate, rewrite."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import onnx

from hccs_onnx._version import __version__
from hccs_onnx.calibration.collect import collect
from hccs_onnx.calibration.data import DataSource, Samples, input_specs
from hccs_onnx.calibration.file import Calibration, Granularity, SoftmaxCalibration
from hccs_onnx.calibration.granularity import fit_floats, fit_integers
from hccs_onnx.calibration.integer_fit import Numerics, QuantizerForm
from hccs_onnx.correction.correct import LayerCorrection
from hccs_onnx.correction.correct import correct as correct_layers
from hccs_onnx.correction.solve import Method
from hccs_onnx.errors import CalibrationError, HccsError, MatchError, ModelError, ParameterError
from hccs_onnx.graph.attention import AttentionSoftmax, find_attention
from hccs_onnx.graph.files import check_target, file_sha256, read_model, write_model
from hccs_onnx.graph.names import nested_graphs
from hccs_onnx.graph.opset import default_opset
from hccs_onnx.graph.replacement import PER_AXIS_OPSET
from hccs_onnx.graph.rewrite import rewrite_graph
from hccs_onnx.graph.scopes import describe
from hccs_onnx.graph.selection import chosen
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.operator.schema import is_hccs
from hccs_onnx.params import (
    DATA_FREE,
    OUTPUT_TYPES,
    PROFILES,
    RECIPROCALS,
    HccsParams,
    HeadParams,
    LogitQuantizer,
    OutputType,
    Profile,
    Reciprocal,
)

Correction = Literal["none", Method]
Objective = Literal["kl", "squares"]
LogitScale = Literal["free", "power-of-two"]
LogitZeroPoint = Literal["free", "zero"]
ScaleGranularity = Literal["head", "tensor"]

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
    corrections : tuple of LayerCorrection
        What was done to the projection behind each rewritten Softmax; empty if no correction was asked for.
    """

    output: Path
    found: tuple[AttentionSoftmax, ...]
    params: Mapping[str, HccsParams]
    calibration: str
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
    _check_choices(granularity, to, reciprocal, profile)
    _check_objective(objective, to)
    _check_quantizer_choices(to, logit_scale, logit_zero_point, scale_granularity)
    path = Path(model)
    proto = read_model(path)
    opset = default_opset(proto)
    uncover(proto, path.parent)
    targets = _attention(path, find_attention(proto, path.parent))
    samples = Samples(data, input_specs(proto))
    collected = collect(proto, path, targets, samples, sample_rows=to != "float" or objective == "squares")
    for item in targets:
        if item not in collected.softmaxes:
            logger.warning("node '%s' in %s never ran on the data: not calibrated", item.node, describe(item.place))
    targets = list(collected.softmaxes)
    if not targets:
        problem = "no attention ran: all of it lies in bodies that the data does not reach"
        raise CalibrationError(str(path), problem, remedy="Give samples that reach it")
    fits = fit_floats(collected.sketches, granularity, collected.samples if objective == "squares" else ())
    if to != "float":
        numerics = [
            Numerics(to, reciprocal, profile, item.masked and profile == "extended", sketch.longest)
            for item, sketch in zip(targets, collected.sketches, strict=True)
        ]
        forms = [
            QuantizerForm(
                per_tensor=scale_granularity == "tensor" or item.folded or opset < PER_AXIS_OPSET,
                unit=item.factor if logit_scale == "power-of-two" else None,
                symmetric=logit_zero_point == "zero",
            )
            for item in targets
        ]
        fits = fit_integers(collected.samples, fits, granularity, numerics, forms)
    softmaxes = tuple(
        SoftmaxCalibration(
            item.node, item.logits, item.head_axis, sketch.longest, item.masked and profile == "extended", heads
        )
        for item, sketch, heads in zip(targets, collected.sketches, fits, strict=True)
    )
    return Calibration(
        model_sha256=file_sha256(path),
        tool_version=__version__,
        profile=profile,
        granularity=granularity,
        output=to,
        reciprocal=reciprocal,
        data_fingerprint=collected.fingerprint,
        rows=sum(int(sketch.rows.sum()) for sketch in collected.sketches),
        softmaxes=softmaxes,
    )


def rewrite(
    model: Path | str,
    output: Path | str | None = None,
    *,
    calibration: Calibration | None = None,
    correct: Correction = "none",
    data: DataSource | None = None,
    strict: bool = False,
    include: str | None = None,
    exclude: str | None = None,
) -> RewriteReport:
    """Replace attention's Softmax nodes by ``hccs::HCCS`` nodes, into a new file.

    Parameters
    ----------
    model : path
        ONNX file, not changed.
    output : path, optional
        New file; default: the model's name with ``.hccs.onnx`` in place of ``.onnx``, beside it.
    calibration : Calibration, optional
        Parameters, and whether attention puts out floats or integers; without it the data-free default for float output
        is used for every head.
    correct : {'none', 'bias', 'least-squares'}
        What may be corrected in the projection behind each rewritten attention, without retraining: its bias, or its
        weight as well.
    data : path, or list of feeds, optional
        Samples to correct on; needed for that and read for nothing else.
    strict : bool
        Fail if a Softmax that looks like attention has to be left alone.
    include, exclude : str, optional
        Regular expressions, searched for in node names: rewrite only those that `include` finds and `exclude` does not.

    Returns
    -------
    RewriteReport
        A model whose attention is all HCCS already is copied as it is, with nothing in `rewritten`.

    Raises
    ------
    ModelError
        If the model cannot be read, holds no attention, or the output cannot be written.
    HccsError
        If `include` or `exclude` is no regular expression, or there is a correction without data.
    DataError
        If the data does not fit, or holds too little to hold some out.
    MatchError
        In strict mode.
    CalibrationError
        If the calibration is for another model, or does not cover this one.

    Examples
    --------
    >>> rewrite("encoder.onnx").output  # doctest: +SKIP
    PosixPath('encoder.hccs.onnx')
    """
    path = Path(model)
    target = Path(output) if output is not None else default_output(path)
    proto = read_model(path)
    check_target(target, path)
    samples = _correction_samples(correct, data, proto)
    came_from = uncover(proto, path.parent)
    found = tuple(chosen(find_attention(proto, path.parent), include, exclude))
    if calibration is not None and calibration.output != "float":
        found = _calibrated_bodies(found, calibration)
    left = set(came_from.values()) - {came_from[item.softmax] for item in found if _is_target(item, came_from)}
    if left:  # what is not rewritten stays as it was
        proto = read_model(path)
        uncover(proto, path.parent, left)
        found = _found_again(found, find_attention(proto, path.parent), came_from)
    if any(is_hccs(node) for graph in nested_graphs(proto.graph) for node in graph.node) and not any(
        item.reason is None for item in found
    ):
        write_model(proto, path, target)
        return RewriteReport(target, found, {}, "none")
    targets = _attention(path, found)
    similar = [item for item in found if item.reason is not None and item.attention_like]
    if strict and similar:
        problem = f"Softmax '{similar[0].node}' looks like attention and cannot be rewritten: {similar[0].reason}"
        raise MatchError(str(path), problem, remedy="Leave out --strict to rewrite the others")
    if calibration is None:
        params = {item.logits: HccsParams((DATA_FREE,), masked=item.masked) for item in targets}
        source = "data-free"
    else:
        params = _calibrated(path, targets, calibration)
        _check_legal(targets, params, calibration)
        source = hashlib.sha256(calibration.to_json().encode()).hexdigest()
    output_type: OutputType = calibration.output if calibration is not None else "float"
    quantizers = _quantizers(targets, calibration, default_opset(proto)) if calibration is not None else None
    original = onnx.ModelProto()
    if samples is not None:
        original.CopyFrom(proto)
    provenance = {"calibration": source} | ({"correction": correct} if samples is not None else {})
    rewrite_graph(proto, found, params, provenance, output=output_type, quantizers=quantizers)
    corrections: tuple[LayerCorrection, ...] = ()
    if samples is not None and correct != "none":
        corrections = correct_layers(original, proto, path, targets, samples, correct)
    write_model(proto, path, target)
    return RewriteReport(target, found, params, source, corrections)


def default_output(model: Path) -> Path:
    """Where a rewritten model goes if the user does not say: beside the model, ``.hccs.onnx`` in place of ``.onnx``.

    Examples
    --------
    >>> default_output(Path("encoder.onnx")).name
    'encoder.hccs.onnx'
    """
    return model.with_name(model.name.removesuffix(".onnx") + ".hccs.onnx")


def _attention(path: Path, found: list[AttentionSoftmax] | tuple[AttentionSoftmax, ...]) -> list[AttentionSoftmax]:
    """Those to be rewritten; an error if there are none."""
    targets = [item for item in found if item.reason is None]
    if targets:
        return targets
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


def _calibrated_bodies(found: tuple[AttentionSoftmax, ...], calibration: Calibration) -> tuple[AttentionSoftmax, ...]:
    """`found`, where attention in bodies that never ran on the data has that as its reason: integers need data."""
    known = {softmax.logits for softmax in calibration.softmaxes}
    reason = "lies in {}, which never ran on the calibration data; integer output needs it"
    return tuple(
        item
        if item.reason is not None or not item.place or item.logits in known
        else replace(item, reason=reason.format(describe(item.place)))
        for item in found
    )


def _calibrated(path: Path, targets: list[AttentionSoftmax], calibration: Calibration) -> dict[str, HccsParams]:
    """Parameters by logits tensor, once the calibration is known to be this model's."""
    digest = file_sha256(path)
    if calibration.model_sha256 != digest:
        found, needs = calibration.model_sha256[:12], digest[:12]
        remedy = "Calibrate this model"
        raise CalibrationError(str(path), "calibration is for another model", found=found, needs=needs, remedy=remedy)
    entries = {softmax.logits: softmax for softmax in calibration.softmaxes}
    params = {}
    for item in targets:
        entry = entries.get(item.logits)
        if entry is None and item.place:
            logger.warning("node '%s' in %s is not in the calibration: data-free", item.node, describe(item.place))
            params[item.logits] = HccsParams((DATA_FREE,), masked=item.masked)
            continue
        if entry is None:
            raise CalibrationError(f"node '{item.node}'", "is not in the calibration", remedy="Calibrate again")
        count = len(entry.heads)
        if item.heads is not None and count not in (1, item.heads):
            needs = f"1 or {item.heads}"
            raise CalibrationError(
                f"node '{item.node}'", "calibration has a wrong number of heads", found=count, needs=needs,
                remedy="Calibrate again",
            )  # fmt: skip
        if entry.head_axis != item.head_axis:
            raise CalibrationError(
                f"node '{item.node}'", "calibration has a wrong head_axis", found=entry.head_axis,
                needs=item.head_axis, remedy="Calibrate again",
            )  # fmt: skip
        masked = item.masked and calibration.profile == "extended"
        params[item.logits] = replace(entry.params, masked=masked, reciprocal=calibration.reciprocal)
    return params


def _quantizers(
    targets: list[AttentionSoftmax], calibration: Calibration, opset: int
) -> dict[str, LogitQuantizer] | None:
    """Quantisers of the logits, once the graph is known to have room for them; None for float output."""
    if calibration.output == "float":
        return None
    quantizers = {softmax.logits: softmax.quantizer for softmax in calibration.softmaxes}
    for item in targets:
        if len(quantizers[item.logits].scale) > 1 and (item.folded or opset < PER_AXIS_OPSET):
            problem = "logits cannot be quantised per head" + ("" if item.folded else f" in opset {opset}")
            raise CalibrationError(f"node '{item.node}'", problem, remedy="Calibrate again with this version")
    return quantizers


def _check_legal(targets: list[AttentionSoftmax], params: Mapping[str, HccsParams], calibration: Calibration) -> None:
    for item in targets:
        length = item.axis_length if isinstance(item.axis_length, int) else None
        reasons = params[item.logits].violations(
            calibration.output, profile=calibration.profile, n=length, heads=item.heads
        )
        if reasons:
            raise ParameterError(f"node '{item.node}'", reasons[0], remedy="Calibrate again")


def _check_choices(granularity: str, to: OutputType, reciprocal: Reciprocal, profile: Profile) -> None:
    for name, value, known in (
        ("granularity", granularity, get_args(Granularity)),
        ("to", to, OUTPUT_TYPES),
        ("reciprocal", reciprocal, RECIPROCALS),
        ("profile", profile, PROFILES),
    ):
        if value not in known:
            raise HccsError(name, "unknown", found=value, needs=f"one of {', '.join(known)}")
    if to == "float" and reciprocal != "norm":
        raise HccsError("reciprocal", "means nothing for float output", found=reciprocal, remedy="Leave it out")
    reasons = HccsParams((HeadParams(1, 0, 1),), reciprocal=reciprocal).violations(to, profile=profile)
    if reasons:
        raise HccsError("profile", reasons[0], remedy="Choose what the profile has, or profile extended")


def _correction_samples(correct: Correction, data: DataSource | None, model: onnx.ModelProto) -> Samples | None:
    """What to correct on; None without correction."""
    known = ("none", *get_args(Method))
    if correct not in known:
        raise HccsError("correct", "unknown", found=correct, needs=f"one of {', '.join(known)}")
    if correct == "none":
        if data is not None:
            remedy = "Leave it out, or calibrate on it first"
            raise HccsError("data", "means nothing without a correction", remedy=remedy)
        return None
    if data is None:
        raise HccsError("correct", "needs samples", found=correct, remedy="Give data as well")
    return Samples(data, input_specs(model))


def _check_objective(objective: str, to: OutputType) -> None:
    known = get_args(Objective)
    if objective not in known:
        raise HccsError("objective", "unknown", found=objective, needs=f"one of {', '.join(known)}")
    if objective == "squares" and to != "float":
        raise HccsError("objective", "is for float output", found=objective, needs="kl", remedy="Leave it out")


def _check_quantizer_choices(to: OutputType, scale: str, zero_point: str, granularity: str) -> None:
    for name, value, known in (
        ("logit_scale", scale, get_args(LogitScale)),
        ("logit_zero_point", zero_point, get_args(LogitZeroPoint)),
        ("scale_granularity", granularity, get_args(ScaleGranularity)),
    ):
        if value not in known:
            raise HccsError(name, "unknown", found=value, needs=f"one of {', '.join(known)}")
        if to == "float" and value != known[0]:
            raise HccsError(name, "means nothing for float output", found=value, remedy="Leave it out")
