"""``calibrate``: fit head parameters to data."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np

from hccs_onnx import words, workflow
from hccs_onnx.calibration import sketch_file
from hccs_onnx.calibration.data.shards import files
from hccs_onnx.calibration.engines import Engine, LocalEngine, RayEngine
from hccs_onnx.calibration.file import Calibration, Granularity
from hccs_onnx.calibration.fit_sketch import FitOptions, LogitScale, LogitZeroPoint, Objective, ScaleGranularity, fit
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.cli.arguments import new_file, positive
from hccs_onnx.cli.common import DATA_HELP, add_command, add_model, command_line, mean_and_worst, note, say, table
from hccs_onnx.errors import ExitStatus, UsageError
from hccs_onnx.graph.files import check_source, check_target, model_files
from hccs_onnx.params import OUTPUT_TYPES, PROFILES


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "fit the parameters of every attention head to data and write a calibration file"
    example = "python -m hccs_onnx calibrate model.onnx --data samples.npz -o model.hccs.json"
    parser = add_command(commands, "calibrate", help_text, example)
    add_model(parser)
    parser.add_argument("--data", required=True, type=Path, help=DATA_HELP)
    parser.add_argument("-o", "--output", type=new_file, help="calibration file (default: MODEL with .hccs.json)")
    add_fit_options(parser)
    add_sketch_options(parser)
    parser.add_argument(
        "--resume", nargs="+", default=[], type=Path, metavar="SKETCH", help="add DATA to what these sketches hold"
    )
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="where the model runs: here (default), or on a Ray cluster",
    )
    parser.add_argument("--address", help="of the Ray cluster (default: the one around, or a new one on this machine)")
    parser.add_argument(
        "--shards", type=positive, help="cut DATA into so many tasks (default: as suits; no number changes the result)"
    )
    parser.set_defaults(run=_run)


def add_sketch_options(parser: argparse.ArgumentParser) -> None:
    """``--sketch-out`` and ``--allow-repeats``."""
    parser.add_argument(
        "--sketch-out",
        type=new_file,
        metavar="SKETCH",
        help="write the collected statistics, for merge; no calibration then, unless -o is given too",
    )
    parser.add_argument("--allow-repeats", action="store_true", help="count data that several sketches hold each time")


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """What is fitted, an option for each field of `FitOptions`; None where nothing was typed."""
    parser.add_argument(
        "--granularity",
        choices=get_args(Granularity),
        help="what shares one set of parameters: a head (default), a layer, or all",
    )
    parser.add_argument(
        "--objective",
        choices=get_args(Objective),
        help="what is least: KL divergence (default), or for float output the squared difference of probabilities",
    )
    parser.add_argument(
        "--to",
        choices=OUTPUT_TYPES,
        help="what attention puts out: float (default), or integers, with the logits quantised to int8",
    )
    parser.add_argument(
        "--reciprocal",
        choices=["norm", "div", "clb"],
        help="how integer output inverts row sums: norm (default; exact to 15 bits), or the paper's div and clb",
    )
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        help="what is legal: extended (default), or paper, what the published kernels compute (no mask)",
    )
    parser.add_argument(
        "--logit-scale",
        choices=get_args(LogitScale),
        help="scale of the integer logits' quantiser: any (default), or a power of two",
    )
    parser.add_argument(
        "--logit-zero-point",
        choices=get_args(LogitZeroPoint),
        help="its zero point: fitted (default), or 0",
    )
    parser.add_argument(
        "--scale-granularity",
        choices=get_args(ScaleGranularity),
        help="one such quantiser for each head (default), or for the whole tensor",
    )


def calibrate(options: argparse.Namespace) -> Calibration:
    """The calibration that the options ask for."""
    engine = LocalEngine(os.cpu_count() or 1)
    return workflow.calibrate(options.model, options.data, **asdict(fit_options(options)), engine=engine)


def given_fit_options(options: argparse.Namespace) -> dict[str, Any]:
    """What was typed of the options that `add_fit_options` added."""
    values = {field.name: getattr(options, field.name) for field in fields(FitOptions)}
    return {name: value for name, value in values.items() if value is not None}


def fit_options(options: argparse.Namespace) -> FitOptions:
    """What `add_fit_options` added, with defaults.

    Raises
    ------
    UsageError
        If it makes no sense.
    """
    chosen = FitOptions(**given_fit_options(options))
    chosen.check()
    return chosen


def _run(options: argparse.Namespace) -> ExitStatus:
    check_source(options.model)
    output = options.output
    if output is None and options.sketch_out is None:
        output = options.model.with_name(options.model.name.removesuffix(".onnx") + ".hccs.json")
    chosen, engine = fit_options(options), _engine(options)
    if options.allow_repeats and not options.resume:
        raise UsageError("--allow-repeats", "means nothing without --resume", remedy="Leave it out")
    check_targets(options.sketch_out, output, *model_files(options.model), *files(options.data), *options.resume)
    if output is None:
        note_unused(options, used=("to", "objective"))
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


def note_unused(options: argparse.Namespace, used: Sequence[str] = ()) -> None:
    """Say which options a sketch does not depend on, where it is all that is written."""
    unused = [f"--{name.replace('_', '-')}" for name in given_fit_options(options) if name not in used]
    if unused:
        note(
            f"note: a sketch is the same for every {', '.join(unused)}; say so again when fitting to it, with merge -o"
        )


def check_targets(sketch_out: Path | None, output: Path | None, *sources: Path) -> None:
    """Refuse, before any long work, what could not be written."""
    targets = [path for path in (sketch_out, output) if path is not None]
    for path in targets:
        check_target(path, *sources)
    if len({os.path.realpath(path) for path in targets}) < len(targets):
        raise UsageError("-o", "and --sketch-out are one file", found=output, remedy="Give each its own name")


def write(
    sketch: ModelSketch, chosen: FitOptions, sketch_out: Path | None, output: Path | None, model: Path, subject: str
) -> None:
    """Write the sketch, fit, write the calibration: what is asked for, with a summary on stdout.

    `model` is what the next step is shown with, `subject` whom errors are about.
    """
    if sketch_out is not None:
        sketch_file.save(sketch, sketch_out)
        say(f"{sketch.feeds} feeds, {sketch.rows} rows in {len(sketch.parts)} part{'s' * (len(sketch.parts) != 1)}")
        note(f"wrote {sketch_out}; next: {command_line('merge', sketch_out)} ... -o CALIB.json")
    if output is not None:
        calibration = fit(sketch, chosen, subject)
        masked = sum(each.masked for each in sketch.subject.observed)
        if masked and chosen.profile == "paper":
            note(workflow.MASKS_LOST % masked)
        calibration.save(output)
        print(summary(calibration))
        note(f"wrote {output}; next: {command_line('rewrite', model, '--calibration', output)}")


def _engine(options: argparse.Namespace) -> Engine:
    if options.engine == "ray":
        return RayEngine(options.address, options.shards)
    if options.address is not None:
        raise UsageError("--address", "means nothing for the local engine", remedy="Leave it out, or use --engine ray")
    return LocalEngine(os.cpu_count() or 1, options.shards)


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
