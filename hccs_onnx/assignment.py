"""Which parameters, and which quantiser of its logits, each Softmax gets: those of a calibration, or without data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hccs_onnx.calibration.file import Calibration
from hccs_onnx.data_free import integer_parameters
from hccs_onnx.errors import CalibrationError, ParameterError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.files import file_sha256
from hccs_onnx.graph.replacement import PER_AXIS_OPSET
from hccs_onnx.graph.scopes import describe
from hccs_onnx.params import DATA_FREE, HccsParams, LogitQuantizer, OutputType, Profile, Reciprocal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assigned:
    """What a model's attention gets.

    Parameters
    ----------
    found : tuple of AttentionSoftmax
        Every Softmax; where the model's own quantiser stays, with the logits behind it.
    params : mapping of str to HccsParams
        By logits tensor.
    quantizers : mapping of str to LogitQuantizer, optional
        By logits tensor; None for float output.
    source : str
        ``data-free``, or the SHA-256 of the calibration.
    """

    found: tuple[AttentionSoftmax, ...]
    params: Mapping[str, HccsParams]
    quantizers: Mapping[str, LogitQuantizer] | None
    source: str


def without_data(
    found: tuple[AttentionSoftmax, ...], output: OutputType, reciprocal: Reciprocal, profile: Profile
) -> Assigned:
    """Parameters without data; integers by the model's own quantisers.

    Raises
    ------
    CalibrationError
        If a model's quantiser does not serve, with the reason.

    Examples
    --------
    >>> without_data((), "float", "norm", "extended").source
    'data-free'
    """
    targets = [item for item in found if item.reason is None]
    if output == "float":
        params = {item.logits: _data_free(item) for item in targets}
        return Assigned(found, params, None, "data-free")
    own = {item.logits: integer_parameters(item, output, reciprocal, profile) for item in targets}
    return Assigned(
        tuple(own[item.logits].item if item.reason is None else item for item in found),
        {logits: each.params for logits, each in own.items()},
        {logits: each.quantizer for logits, each in own.items()},
        "data-free",
    )


def calibrated(path: Path, found: tuple[AttentionSoftmax, ...], calibration: Calibration, opset: int) -> Assigned:
    """Parameters and quantisers of a calibration, once it is known to be this model's, and legal in it.

    Raises
    ------
    CalibrationError
        If it is for another model, or does not fit.
    ParameterError
        If its parameters are not legal for a row length that the model states.

    Examples
    --------
    >>> calibrated(path, found, calibration, opset=17).source  # doctest: +SKIP
    '5f0c...'
    """
    targets = [item for item in found if item.reason is None]
    params = _by_logits(path, targets, calibration)
    _check_legal(targets, params, calibration)
    return Assigned(found, params, _quantizers(targets, calibration, opset), calibration.digest)


def without_unseen_bodies(
    found: tuple[AttentionSoftmax, ...], calibration: Calibration
) -> tuple[AttentionSoftmax, ...]:
    """`found`, where attention in bodies that never ran on the data has that as its reason: integers need data.

    Examples
    --------
    >>> without_unseen_bodies(found, calibration)  # doctest: +SKIP
    """
    known = {softmax.logits for softmax in calibration.softmaxes}
    reason = "lies in {}, which never ran on the calibration data; integer output needs it"
    return tuple(
        item
        if item.reason is not None or not item.place or item.logits in known
        else replace(item, reason=reason.format(describe(item.place)))
        for item in found
    )


def check_model(model: Path, calibration: Calibration) -> None:
    """Refuse a calibration that was made for another model.

    Raises
    ------
    CalibrationError
        If the SHA-256 of the file is not the one in the calibration.

    Examples
    --------
    >>> check_model(Path("encoder.onnx"), calibration)  # doctest: +SKIP
    """
    digest = file_sha256(model)
    if calibration.model_sha256 != digest:
        found, needs = calibration.model_sha256[:12], digest[:12]
        remedy = "Calibrate this model"
        raise CalibrationError(str(model), "calibration is for another model", found=found, needs=needs, remedy=remedy)


def check_choices(calibration: Calibration, choices: Mapping[str, str | None], subject: str = "calibration") -> None:
    """Refuse choices that a calibration was not made with.

    Parameters
    ----------
    calibration : Calibration
        Tells `granularity`, `to`, `reciprocal` and `profile`.
    choices : mapping of str to str or None
        By these names; None is no choice.
    subject : str
        What to call the calibration.

    Raises
    ------
    CalibrationError
        Naming the first that differs.

    Examples
    --------
    >>> check_choices(calibration, {"to": "uint8", "reciprocal": None})  # doctest: +SKIP
    """
    made = {
        "granularity": calibration.granularity,
        "to": calibration.output,
        "reciprocal": calibration.reciprocal,
        "profile": calibration.profile,
    }
    for name, choice in choices.items():
        if choice not in (None, made[name]):
            remedy = "Calibrate again, or leave the choice to the calibration"
            raise CalibrationError(
                subject, f"was made with another --{name}", found=made[name], needs=choice, remedy=remedy
            )


def _by_logits(path: Path, targets: Sequence[AttentionSoftmax], calibration: Calibration) -> dict[str, HccsParams]:
    """Parameters by logits tensor, once the calibration is known to be this model's."""
    check_model(path, calibration)
    entries = {softmax.logits: softmax for softmax in calibration.softmaxes}
    params = {}
    for item in targets:
        entry = entries.get(item.logits)
        if entry is None and item.place:
            logger.warning("node '%s' in %s is not in the calibration: data-free", item.node, describe(item.place))
            params[item.logits] = _data_free(item)
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
        params[item.logits] = replace(
            entry.params, masked=masked, mask_gap=item.mask_gap, reciprocal=calibration.reciprocal
        )
    return params


def _data_free(item: AttentionSoftmax) -> HccsParams:
    return HccsParams((DATA_FREE,), masked=item.masked, mask_gap=item.mask_gap)


def _quantizers(
    targets: Sequence[AttentionSoftmax], calibration: Calibration, opset: int
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


def _check_legal(
    targets: Sequence[AttentionSoftmax], params: Mapping[str, HccsParams], calibration: Calibration
) -> None:
    for item in targets:
        length = item.axis_length if isinstance(item.axis_length, int) else None
        reasons = params[item.logits].violations(
            calibration.output, profile=calibration.profile, n=length, heads=item.heads
        )
        if reasons:
            raise ParameterError(f"node '{item.node}'", reasons[0], remedy="Calibrate again")
