"""What corrections of the output projections do to sentence embeddings: MiniLM L6 on Reuters R8, without retraining."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common import (
    MINILM_L6,
    Array,
    Feed,
    embed,
    log,
    package_file,
    parser,
    publish,
    reuters,
    table,
    token_feeds,
    verdict,
)

from hccs_onnx.calibration.file import Calibration
from hccs_onnx.correction.correct import LayerCorrection
from hccs_onnx.workflow import Correction, calibrate, rewrite

_METHODS: tuple[Correction, ...] = ("none", "bias", "least-squares")
_MEAN, _WORST = 0.975, 0.94  # wanted of least squares with float output


@dataclass(frozen=True)
class Corrected:
    """One rewritten model.

    Parameters
    ----------
    mean_cosine, worst_cosine : float
        To the float embeddings, over texts.
    seconds : float
        What the correction took, rewriting included.
    layers : tuple of LayerCorrection
        What was done.
    """

    mean_cosine: float
    worst_cosine: float
    seconds: float
    layers: tuple[LayerCorrection, ...]


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "correction")
    arguments.add_argument("--texts", type=int, default=400, help="test texts")
    arguments.add_argument(
        "--calibration-texts", type=int, default=200, help="training texts to calibrate and correct on"
    )
    options = arguments.parse_args()

    model = package_file(*MINILM_L6)
    feeds = list(token_feeds(model, reuters("test", options.texts)[0]))
    seen = list(token_feeds(model, reuters("train", options.calibration_texts, skip=2000)[0]))
    log("float embeddings")
    reference = embed(model, feeds)
    calibrations = {
        "float": calibrate(model, seen),
        "float, calibrated by squares": calibrate(model, seen, objective="squares"),
        "int8 logits, uint8 norm": calibrate(model, seen, to="uint8"),
    }
    results = {}
    for name, calibration in calibrations.items():
        for method in _METHODS:
            log(f"{name}: {method}")
            results[name, method] = it = _corrected(model, calibration, method, seen, feeds, reference)
            log(f"  cosine {it.mean_cosine:.4f}, worst {it.worst_cosine:.4f}, {it.seconds:.0f} s")
    body = _report(results, options.texts, options.calibration_texts)
    publish(options.out, "Corrections", body, {"results": {", ".join(key): asdict(it) for key, it in results.items()}})


def _corrected(
    model: Path, calibration: Calibration, method: Correction, seen: Sequence[Feed], feeds: Sequence[Feed],
    reference: Array,
) -> Corrected:  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        output = Path(folder) / "corrected.onnx"
        data = seen if method != "none" else None
        report = rewrite(model, output, calibration=calibration, correct=method, data=data)
        seconds = time.perf_counter() - start
        cosine = (embed(output, feeds) * reference).sum(axis=1)
    return Corrected(float(cosine.mean()), float(cosine.min()), seconds, report.corrections)


def _report(results: Mapping[tuple[str, Correction], Corrected], texts: int, calibration: int) -> str:
    rows = [
        (name, method, f"{it.mean_cosine:.4f}", f"{it.worst_cosine:.4f}", _span(it.layers), f"{it.seconds:.0f}")
        for (name, method), it in results.items()
    ]
    best = results["float", "least-squares"]
    targets = [
        ("float, least squares: mean cosine", best.mean_cosine, _MEAN),
        ("float, least squares: worst cosine", best.worst_cosine, _WORST),
    ]
    about = (
        f"all-MiniLM-L6-v2 (`{MINILM_L6[0]}`, int8 weights), every attention Softmax replaced by `hccs::HCCS`, then "
        "the six output projections corrected (`rewrite --correct`). Mean-pooled embeddings of the first "
        f"{texts:,} Reuters R8 test texts, cut at 128 tokens, in padded batches of 16; calibrated and corrected on "
        f"{calibration} training texts, the same for both. The error is that of a projection's output on texts held "
        "out, root mean square, relative to that of the output."
    )
    header = ["attention", "correction", "cosine to float, mean", "worst", "error of the six layers", "seconds"]
    sections = [
        about,
        table(header, rows),
        table(
            ["target", "measured", "needs", ""],
            [(what, f"{value:.4f}", f">= {needs}", verdict(value >= needs)) for what, value, needs in targets],
        ),
    ]
    return "\n\n".join(sections)


def _span(layers: Sequence[LayerCorrection]) -> str:
    """Smallest and largest error, before and after."""
    if not layers:
        return ""
    ends = [
        [f"{choose(getattr(layer, field) for layer in layers):.2f}" for choose in (min, max)]
        for field in ("before", "after")
    ]
    return " -> ".join(f"{low} to {high}" for low, high in ends)


if __name__ == "__main__":
    main()
