"""Head parameters from samples: `sketch` learns what `calibrate` fits to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hccs_onnx.calibration.collect import prepare
from hccs_onnx.calibration.data import DataSource, Samples, input_specs
from hccs_onnx.calibration.engines import Engine, LocalEngine
from hccs_onnx.calibration.file import Calibration, Granularity
from hccs_onnx.calibration.fit_sketch import FitOptions, LogitScale, LogitZeroPoint, Objective, ScaleGranularity, fit
from hccs_onnx.calibration.merge import check_repeats, merge_files
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.graph.attention import find_attention
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.opset import default_opset
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.params import OutputType, Profile, Reciprocal
from hccs_onnx.workflow.inspection import attention

MASKS_LOST = (
    "profile paper keeps no mask (nodes with one: %d): masked keys, as those of padding, get a little probability; "
    "profile extended gives them none"
)


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
    targets = attention(path, proto, find_attention(proto, path.parent))
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
