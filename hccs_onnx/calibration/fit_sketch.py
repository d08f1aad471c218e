"""From a model's sketch to its calibration."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hccs_onnx._version import __version__
from hccs_onnx.calibration.file import Calibration, Granularity, SoftmaxCalibration
from hccs_onnx.calibration.granularity import fit_floats, fit_integers
from hccs_onnx.calibration.integer_fit import Numerics, QuantizerForm
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.errors import CalibrationError, UsageError
from hccs_onnx.params import (
    OUTPUT_TYPES,
    PROFILES,
    RECIPROCALS,
    OutputType,
    Profile,
    Reciprocal,
)

Objective = Literal["kl", "squares"]
LogitScale = Literal["free", "power-of-two"]
LogitZeroPoint = Literal["free", "zero"]
ScaleGranularity = Literal["head", "tensor"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """What is fitted; see `hccs_onnx.workflow.calibrate`, which has the same parameters.

    Examples
    --------
    >>> FitOptions(to="float", reciprocal="div").check()
    Traceback (most recent call last):
    hccs_onnx.errors.UsageError: reciprocal: means nothing for float output (div). Leave it out.
    """

    granularity: Granularity = "head"
    to: OutputType = "float"
    reciprocal: Reciprocal = "norm"
    profile: Profile = "extended"
    logit_scale: LogitScale = "free"
    logit_zero_point: LogitZeroPoint = "free"
    scale_granularity: ScaleGranularity = "head"
    objective: Objective = "kl"

    @property
    def needs_rows(self) -> bool:
        """Whether sums are not enough, so that whole rows have to be kept."""
        return self.to != "float" or self.objective == "squares"

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises
        ------
        UsageError
            Naming the option.
        """
        _check_choices(self.granularity, self.to, self.reciprocal, self.profile)
        _check_objective(self.objective, self.to)
        _check_quantizer_choices(self.to, self.logit_scale, self.logit_zero_point, self.scale_granularity)


def fit(sketch: ModelSketch, options: FitOptions, name: str) -> Calibration:
    """The calibration that is best on all data that a sketch has seen.

    Parameters
    ----------
    sketch : ModelSketch
        Of any data.
    options : FitOptions
        Already checked.
    name : str
        What to call it in errors.

    Raises
    ------
    CalibrationError
        If a head has no row to learn from, or no legal parameters.

    Examples
    --------
    >>> fit(merge_files(paths), FitOptions(granularity="layer"), "parts").save(Path("calib.json"))  # doctest: +SKIP
    """
    if options.needs_rows and not sketch.subject.keeps_rows:
        what = f"for {options.to} output" if options.to != "float" else "by squares"
        problem = f"holds no rows, which a fit {what} needs"
        raise CalibrationError(name, problem, remedy="Collect it with the same --to and --objective")
    met = [number for number, each in enumerate(sketch.sketches) if each.rows.size]
    for number, observed in enumerate(sketch.subject.observed):
        if number not in met:
            logger.warning("node '%s' in %s never ran on the data: not calibrated", observed.node, observed.place)
    if not met:
        problem = "no attention ran: all of it lies in bodies that the data does not reach"
        raise CalibrationError(name, problem, remedy="Give samples that reach it")
    targets = [sketch.subject.observed[number] for number in met]
    sketches = [sketch.sketches[number] for number in met]
    for observed, each in zip(targets, sketches, strict=True):
        if not each.rows.all():
            problem = f"head {int(np.argmin(each.rows))} has no row to learn from: all are masked or not finite"
            raise CalibrationError(f"node '{observed.node}'", problem, remedy="Check the attention mask in the data")
    masked = [observed.masked and options.profile == "extended" for observed in targets]
    samples = [sketch.samples[number] for number in met] if options.needs_rows else []
    fits = fit_floats(sketches, options.granularity, samples if options.objective == "squares" else ())
    if options.to != "float":
        numerics = [
            Numerics(options.to, options.reciprocal, options.profile, can_mask, each.longest)
            for can_mask, each in zip(masked, sketches, strict=True)
        ]
        forms = [
            QuantizerForm(
                per_tensor=options.scale_granularity == "tensor" or observed.per_tensor,
                unit=observed.unit if options.logit_scale == "power-of-two" else None,
                symmetric=options.logit_zero_point == "zero",
            )
            for observed in targets
        ]
        fits = fit_integers(samples, fits, options.granularity, numerics, forms)
    softmaxes = tuple(
        SoftmaxCalibration(observed.node, observed.logits, observed.head_axis, each.longest, can_mask, heads)
        for observed, each, can_mask, heads in zip(targets, sketches, masked, fits, strict=True)
    )
    return Calibration(
        model_sha256=sketch.subject.model_sha256,
        tool_version=__version__,
        profile=options.profile,
        granularity=options.granularity,
        output=options.to,
        reciprocal=options.reciprocal,
        data_fingerprint=sketch.fingerprint,
        rows=sketch.rows,
        softmaxes=softmaxes,
    )


def _check_choices(granularity: str, to: OutputType, reciprocal: Reciprocal, profile: Profile) -> None:
    for name, value, known in (
        ("granularity", granularity, get_args(Granularity)),
        ("to", to, OUTPUT_TYPES),
        ("reciprocal", reciprocal, RECIPROCALS),
        ("profile", profile, PROFILES),
    ):
        if value not in known:
            raise UsageError(name, "unknown", found=value, needs=f"one of {', '.join(known)}")
    if profile == "paper" and (to == "float" or reciprocal == "norm"):
        needs = "--to uint8 or int16, and --reciprocal div or clb"
        raise UsageError(
            "profile", "paper has integers only, and no reciprocal norm", found=f"{to}, {reciprocal}", needs=needs
        )
    if to == "float" and reciprocal != "norm":
        raise UsageError("reciprocal", "means nothing for float output", found=reciprocal, remedy="Leave it out")


def _check_objective(objective: str, to: OutputType) -> None:
    known = get_args(Objective)
    if objective not in known:
        raise UsageError("objective", "unknown", found=objective, needs=f"one of {', '.join(known)}")
    if objective == "squares" and to != "float":
        raise UsageError("objective", "is for float output", found=objective, needs="kl", remedy="Leave it out")


def _check_quantizer_choices(to: OutputType, scale: str, zero_point: str, granularity: str) -> None:
    for name, value, known in (
        ("logit_scale", scale, get_args(LogitScale)),
        ("logit_zero_point", zero_point, get_args(LogitZeroPoint)),
        ("scale_granularity", granularity, get_args(ScaleGranularity)),
    ):
        if value not in known:
            raise UsageError(name, "unknown", found=value, needs=f"one of {', '.join(known)}")
        if to == "float" and value != known[0]:
            raise UsageError(name, "means nothing for float output", found=value, remedy="Leave it out")
