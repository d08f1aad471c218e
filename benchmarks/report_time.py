"""What a report takes: MiniLM L6 on Reuters R8 texts, time, memory and size of the page."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import numpy as np
from common import (
    LENGTH,
    MINILM_L6,
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

_MOST_SECONDS, _MOST_MB = 30.0, 5.0


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "report_time")
    arguments.add_argument("--texts", type=int, default=32, help="test texts in the report")
    arguments.add_argument("--calibration-texts", type=int, default=64, help="training texts to calibrate on")
    options = arguments.parse_args()

    model = package_file(*MINILM_L6)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calibration, page = folder / "calibration.json", folder / "report.html"
        training, test = folder / "training.npz", folder / "test.npz"
        _write(model, reuters("train", options.calibration_texts)[0], training)
        _write(model, reuters("test", options.texts)[0], test)
        log("calibrating")
        run_module("hccs_onnx", "calibrate", model, "--data", training, "-o", calibration)
        log("report")
        before = _cpu_seconds()
        run = run_module("hccs_onnx", "report", model, "--calibration", calibration, "--data", test, "-o", page)
        cpu, size = _cpu_seconds() - before, page.stat().st_size / 1e6
    rows = [
        ("time, s", f"{run.seconds:.1f}", f"< {_MOST_SECONDS:g}", verdict(run.seconds < _MOST_SECONDS)),
        ("CPU time, s", f"{cpu:.1f}", "", ""),
        ("peak memory, MB", f"{run.peak_mb:.0f}", "", ""),
        ("size of the page, MB", f"{size:.2f}", f"< {_MOST_MB:g}", verdict(size < _MOST_MB)),
    ]
    about = (
        f"`python -m hccs_onnx report` on all-MiniLM-L6-v2 (`{MINILM_L6[0]}`, 6 layers of 12 heads) with the first "
        f"{options.texts} Reuters R8 test texts, padded to {LENGTH} tokens, after calibration on "
        f"{options.calibration_texts} training texts. Start of the interpreter and the rewrite are part of it."
    )
    numbers = {"seconds": run.seconds, "cpu_seconds": cpu, "peak_mb": run.peak_mb, "page_mb": size}
    body = f"{about}\n\n{table(['', 'measured', 'needs', ''], rows)}"
    publish(options.out, "Time of a report", body, numbers, ["jinja2", "matplotlib"])


def _write(model: Path, texts: list[str], target: Path) -> None:
    """Texts as an ``.npz``, one row each, padded."""
    feeds = list(token_feeds(model, texts, batch=1))
    padded = {
        name: np.stack([np.pad(feed[name][0], (0, LENGTH - feed[name].shape[1])) for feed in feeds])
        for name in feeds[0]
    }
    np.savez_compressed(target, **padded)


def _cpu_seconds() -> float:
    """CPU time of all child processes so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
