"""``calibrate``: fit head parameters to data."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hccs_onnx import words, workflow
from hccs_onnx.calibration import sketch_file
from hccs_onnx.calibration.data.shards import matches
from hccs_onnx.calibration.engines import Engine, LocalEngine, RayEngine
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.calibration.fit_sketch import FitOptions, LogitScale, LogitZeroPoint, Objective, ScaleGranularity, fit
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.cli.common import DATA_HELP, add_command, add_model, mean_and_worst, note, say, table
from hccs_onnx.errors import ExitStatus, HccsError
from hccs_onnx.graph.files import check_source, check_target
from hccs_onnx.params import OUTPUT_TYPES, PROFILES


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "fit the parameters of every attention head to data and write a calibration file"
    example = "python -m hccs_onnx calibrate model.onnx --data samples.npz -o model.hccs.json"
    parser = add_command(commands, "calibrate", help_text, example)
    add_model(parser)
    parser.add_argument("--data", required=True, type=Path, help=DATA_HELP)
    parser.add_argument("-o", "--output", type=Path, help="calibration file (default: MODEL with .hccs.json)")
    add_fit_options(parser)
    add_sketch_options(parser)
    parser.add_argument(
        "--resume", nargs="+", default=[], type=Path, metavar="SKETCH", help="add DATA to what these sketches hold"
    )
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="where the model runs: here, or on a Ray cluster"
    )
    parser.add_argument("--address", help="of the Ray cluster (default: the one around, or a new one on this machine)")
    parser.add_argument(
        "--shards", type=_positive, help="cut DATA into so many tasks (default: as suits; no number changes the result)"
    )
    parser.set_defaults(run=_run)


def add_sketch_options(parser: argparse.ArgumentParser) -> None:
    """``--sketch-out`` and ``--allow-repeats``."""
    parser.add_argument(
        "--sketch-out",
        type=Path,
        metavar="SKETCH",
        help="write the collected statistics, for merge; no calibration then, unless -o is given too",
    )
    parser.add_argument("--allow-repeats", action="store_true", help="count data that several sketches hold each time")


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """What is fitted: ``--granularity``, ``--to``, ``--reciprocal``, ``--profile``, and the quantiser of the logits."""
    parser.add_argument(
        "--granularity", choices=["head", "layer", "global"], default="head", help="what shares one set of parameters"
    )
    parser.add_argument(
        "--objective",
        choices=get_args(Objective),
        default="kl",
        help="what is least: KL divergence (default), or for float output the squared difference of probabilities",
    )
    parser.add_argument(
        "--to",
        choices=OUTPUT_TYPES,
        default="float",
        help="what attention puts out: float (default), or integers, with the logits quantised to int8",
    )
    parser.add_argument(
        "--reciprocal",
        choices=["norm", "div", "clb"],
        default="norm",
        help="how integer output inverts row sums: norm (default; exact to 15 bits), or the paper's div and clb",
    )
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        default="extended",
        help="what is legal: extended (default), or paper, what the published kernels compute (no mask)",
    )
    parser.add_argument(
        "--logit-scale",
        choices=get_args(LogitScale),
        default="free",
        help="scale of the integer logits' quantiser: any (default), or a power of two",
    )
    parser.add_argument(
        "--logit-zero-point",
        choices=get_args(LogitZeroPoint),
        default="free",
        help="its zero point: fitted (default), or 0",
    )
    parser.add_argument(
        "--scale-granularity",
        choices=get_args(ScaleGranularity),
        default="head",
        help="one such quantiser for each head (default), or for the whole tensor",
    )


def calibrate(options: argparse.Namespace) -> Calibration:
    """The calibration that the options ask for."""
    engine = LocalEngine(os.cpu_count() or 1)
    return workflow.calibrate(options.model, options.data, **asdict(fit_options(options)), engine=engine)


def fit_options(options: argparse.Namespace) -> FitOptions:
    """What `add_fit_options` added.

    Raises
    ------
    HccsError
        If it makes no sense.
    """
    chosen = FitOptions(**{field.name: getattr(options, field.name) for field in fields(FitOptions)})
    chosen.check()
    return chosen


def _run(options: argparse.Namespace) -> ExitStatus:
    check_source(options.model)
    output = options.output
    if output is None and options.sketch_out is None:
        output = options.model.with_name(options.model.name.removesuffix(".onnx") + ".hccs.json")
    chosen, engine = fit_options(options), _engine(options)
    check_targets(options.sketch_out, output, options.model, *matches(options.data), *options.resume)
    sketch = workflow.sketch(
        options.model,
        options.data,
        keep_rows=chosen.needs_rows,
        engine=engine,
        resume=options.resume,
        allow_repeats=options.allow_repeats,
    )
    write(sketch, chosen, options.sketch_out, output, options.model, str(options.model))
    return ExitStatus.OK


def check_targets(sketch_out: Path | None, output: Path | None, *sources: Path) -> None:
    """Refuse, before any long work, what could not be written."""
    if sketch_out is not None:
        check_target(sketch_out, *sources)
    if output is not None:
        check_target(output, *sources, *([sketch_out] if sketch_out is not None else []))


def write(
    sketch: ModelSketch, chosen: FitOptions, sketch_out: Path | None, output: Path | None, model: Path, subject: str
) -> None:
    """Write the sketch, fit, write the calibration: what is asked for, with a summary on stdout.

    `model` is what the next step is shown with, `subject` whom errors are about.
    """
    if sketch_out is not None:
        sketch_file.save(sketch, sketch_out)
        say(f"{sketch.feeds} feeds, {sketch.rows} rows in {len(sketch.parts)} part{'s' * (len(sketch.parts) != 1)}")
        note(f"wrote {sketch_out}; next: python -m hccs_onnx merge {sketch_out} ... -o CALIB.json")
    if output is not None:
        calibration = fit(sketch, chosen, subject)
        calibration.save(output)
        print(summary(calibration))
        note(f"wrote {output}; next: python -m hccs_onnx rewrite {model} --calibration {output}")


def _engine(options: argparse.Namespace) -> Engine:
    if options.engine == "ray":
        return RayEngine(options.address, options.shards)
    if options.address is not None:
        raise HccsError("--address", "means nothing for the local engine", remedy="Leave it out, or use --engine ray")
    return LocalEngine(os.cpu_count() or 1, options.shards)


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def summary(calibration: Calibration) -> str:
    """A line for each Softmax: heads, longest row, clip ranges, KL; for integers codes and row mass as well."""
    rows = []
    for softmax in calibration.softmaxes:
        clips = [fit.params.clip_range for fit in softmax.heads]
        kl = [fit.kl for fit in softmax.heads]
        rows.append(
            [
                softmax.node,
                str(len(softmax.heads)),
                str(softmax.longest),
                f"{min(clips):.2f} to {max(clips):.2f}",
                f"{np.mean(kl):.4f}",
                f"{max(kl):.4f}",
            ]
        )
        if calibration.output != "float":
            rows[-1].append(f"{np.median([fit.params.Dmax for fit in softmax.heads]):.0f}")
            rows[-1] += mean_and_worst([fit.deficit for fit in softmax.heads])
    columns = [words.LONGEST, words.CLIP_RANGE, words.MEAN_KL, words.WORST_KL]
    header = [words.NODE.heading, "heads", *(word.heading for word in columns)]
    if calibration.output != "float":
        header += [f"median {words.CLIP_DISTANCE.heading}", words.MEAN_DEFICIT.heading, words.WORST_DEFICIT.heading]
    return table(header, rows)
