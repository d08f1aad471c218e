"""Peak memory of ``python -m hccs_onnx calibrate`` with ever more data: it must not grow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from common import (
    MINILM_L6,
    ROOT,
    SEED,
    ChildRun,
    Feed,
    log,
    package_file,
    parser,
    publish,
    reuters,
    run_module,
    table,
    token_feeds,
    verdict,
)

_DIGITS = ROOT / "models" / "digits"
_MOST_GROWTH = 0.05  # of the peak, from the least data to the most


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "calibration_memory")
    arguments.add_argument("--factors", type=int, nargs="+", default=[1, 4, 16], help="multiples of the data")
    arguments.add_argument("--digits", type=int, default=256, help="digits at 1x")
    arguments.add_argument(
        "--texts", type=int, default=16, help="Reuters R8 training texts at 1x, padded to 128 tokens"
    )
    options = arguments.parse_args()
    most = max(options.factors)
    l6 = package_file(*MINILM_L6)
    cases = {
        "digits": (_DIGITS / "digits_torchscript.onnx", _digits(options.digits * most), options.digits),
        "MiniLM L6": (l6, _texts(l6, options.texts * most), options.texts),
    }
    runs: dict[str, dict[int, ChildRun]] = {}
    for name, (model, data, unit) in cases.items():
        runs[name] = {}
        for factor in options.factors:
            runs[name][unit * factor] = _calibrate(model, {key: value[: unit * factor] for key, value in data.items()})
            log(f"{name}, {unit * factor} samples: {runs[name][unit * factor]}")
    numbers = {name: {str(count): asdict(run) for count, run in by.items()} for name, by in runs.items()}
    publish(options.out, "Calibration: memory", _report(runs), {"runs": numbers})


def _digits(count: int) -> Feed:
    """Training digits, drawn again and again."""
    with np.load(_DIGITS / "calibration.npz") as archive:
        data = {name: archive[name] for name in archive.files}
    available = len(next(iter(data.values())))
    chosen = np.random.default_rng(SEED).integers(0, available, count)
    return {name: value[chosen] for name, value in data.items()}


def _texts(model: Path, count: int) -> Feed:
    """Texts, all padded to one length."""
    texts, _ = reuters("train", count)
    return next(token_feeds(model, texts, batch=count))


def _calibrate(model: Path, data: Feed) -> ChildRun:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        np.savez(file, **data)  # type: ignore[arg-type]
        options = ["--shards", "1", "-o", Path(folder) / "calibration.json"]  # one process
        return run_module("hccs_onnx", "calibrate", model, "--data", file, *options)


def _report(runs: Mapping[str, Mapping[int, ChildRun]]) -> str:
    rows = [
        (name, f"{count:,}", f"{run.peak_mb:.1f}", f"{run.seconds:.1f}")
        for name, by_count in runs.items()
        for count, run in by_count.items()
    ]
    targets = []
    for name, by_count in runs.items():
        peaks: Sequence[float] = [by_count[count].peak_mb for count in sorted(by_count)]
        growth = peaks[-1] / peaks[0] - 1
        limit = f"<= {100 * _MOST_GROWTH:.0f} %"
        targets.append((f"{name}: growth of the peak", f"{100 * growth:.1f} %", limit, verdict(growth <= _MOST_GROWTH)))
    about = (
        "Peak resident memory (VmHWM) of a fresh `python -m hccs_onnx calibrate MODEL --data DATA.npz -o CALIB.json "
        "--shards 1`, that is one process. "
        "Logits are sketched feed by feed, and the `.npz` is read in rows."
    )
    return "\n\n".join(
        [
            about,
            table(["model", "samples", "peak, MB", "seconds"], rows),
            table(["target", "measured", "needs", ""], targets),
        ]
    )


if __name__ == "__main__":
    main()
