"""What HCCS does to sentence embeddings: MiniLM L6 on Reuters R8, data-free and calibrated, against the float model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import onnx
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
from sklearn.linear_model import LogisticRegression

from hccs_onnx.calibration.file import Granularity
from hccs_onnx.operator.schema import is_hccs
from hccs_onnx.params import OutputType, Reciprocal
from hccs_onnx.workflow import calibrate, rewrite

_UNMASKED = "per head, masked keys at the floor score"
_NAMES = {"head": "per head", "layer": "per layer", "global": "global"}
_INTEGERS: tuple[tuple[OutputType, Reciprocal], ...] = (
    ("uint8", "norm"), ("uint8", "div"), ("uint8", "clb"), ("int16", "norm"), ("int16", "div"),
)  # fmt: skip
_QUANTIZERS: dict[str, dict[str, Any]] = {
    "per tensor": {"scale_granularity": "tensor"},
    "per tensor, power of two": {"scale_granularity": "tensor", "logit_scale": "power-of-two"},
    "per tensor, power of two, zero point 0": {
        "scale_granularity": "tensor", "logit_scale": "power-of-two", "logit_zero_point": "zero",
    },
    "per head, power of two": {"logit_scale": "power-of-two"},
}  # fmt: skip
_HEAD_MEAN, _HEAD_WORST, _HEAD_POINTS, _FREE_MEAN = 0.965, 0.915, 1.0, 0.955
_INTEGER_MEAN, _INTEGER_WORST, _INTEGER_POINTS = 0.962, 0.89, 1.5


@dataclass(frozen=True)
class Fidelity:
    """How one variant compares with the float model.

    Parameters
    ----------
    accuracy : float
        Of the linear classifier that was trained on float embeddings.
    mean_cosine, worst_cosine : float
        To the float embeddings, over texts.
    """

    accuracy: float
    mean_cosine: float
    worst_cosine: float


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "embedding_fidelity")
    arguments.add_argument("--texts", type=int, default=400, help="test texts")
    arguments.add_argument("--training-texts", type=int, default=2000, help="training texts of the classifier")
    arguments.add_argument("--calibration-texts", type=int, default=200, help="training texts to calibrate on")
    options = arguments.parse_args()

    model = package_file(*MINILM_L6)
    test_texts, test_classes = reuters("test", options.texts)
    train_texts, train_classes = reuters("train", options.training_texts)
    calibration_texts, _ = reuters("train", options.calibration_texts, skip=options.training_texts)
    feeds = list(token_feeds(model, test_texts))
    log("float embeddings")
    classifier = LogisticRegression(max_iter=2000)  # C = 1, the default
    classifier.fit(embed(model, token_feeds(model, train_texts)), train_classes)
    reference = embed(model, feeds)
    results = {"float": _fidelity(reference, reference, classifier, test_classes)}
    with tempfile.TemporaryDirectory() as folder:
        variants = _variants(model, list(token_feeds(model, calibration_texts)), Path(folder))
        for name, variant in variants.items():
            log(f"embedding: {name}")
            results[name] = _fidelity(embed(variant, feeds), reference, classifier, test_classes)
    body = _report(results, options.texts, options.training_texts, options.calibration_texts)
    publish(options.out, "Embedding fidelity", body, {"results": {name: asdict(it) for name, it in results.items()}})


def _variants(model: Path, calibration_feeds: Sequence[Feed], folder: Path) -> dict[str, Path]:
    """Rewritten models by name."""
    variants = {"data-free": rewrite(model, folder / "data_free.onnx").output}
    for granularity in get_args(Granularity):
        start = time.perf_counter()
        calibration = calibrate(model, calibration_feeds, granularity=granularity)
        log(f"calibrated {_NAMES[granularity]} in {time.perf_counter() - start:.1f} s")
        output = folder / f"{granularity}.onnx"
        variants[_NAMES[granularity]] = rewrite(model, output, calibration=calibration).output
    for output_type, reciprocal in _INTEGERS:
        start = time.perf_counter()
        calibration = calibrate(model, calibration_feeds, to=output_type, reciprocal=reciprocal)
        name = _integer_name(output_type, reciprocal)
        log(f"calibrated {name} in {time.perf_counter() - start:.1f} s")
        output = folder / f"{output_type}_{reciprocal}.onnx"
        variants[name] = rewrite(model, output, calibration=calibration).output
    for quantizer, options in _QUANTIZERS.items():
        calibration = calibrate(model, calibration_feeds, to="uint8", **options)
        name = f"{_integer_name('uint8', 'norm')}; logit scale {quantizer}"
        log(f"calibrated {name}")
        output = folder / f"{quantizer.replace(' ', '_')}.onnx"
        variants[name] = rewrite(model, output, calibration=calibration).output
    variants[_UNMASKED] = _without_mask(variants["per head"], folder / "unmasked.onnx")
    return variants


def _integer_name(output: OutputType, reciprocal: Reciprocal) -> str:
    return f"per head, int8 logits, {output} {reciprocal}"


def _without_mask(rewritten: Path, output: Path) -> Path:
    """The same model with ``masked=0`` in every HCCS node: the operator as the paper has it."""
    proto = onnx.load(rewritten)
    for node in filter(is_hccs, proto.graph.node):
        for attribute in node.attribute:
            if attribute.name == "masked":
                attribute.i = 0
    onnx.save(proto, output)
    return output


def _fidelity(embeddings: Array, reference: Array, classifier: LogisticRegression, classes: Sequence[str]) -> Fidelity:
    cosine = (embeddings * reference).sum(axis=1)
    return Fidelity(float(classifier.score(embeddings, classes)), float(cosine.mean()), float(cosine.min()))


def _report(results: Mapping[str, Fidelity], texts: int, training: int, calibration: int) -> str:
    rows = [
        (name, f"{it.accuracy:.4f}", f"{it.mean_cosine:.4f}", f"{it.worst_cosine:.4f}") for name, it in results.items()
    ]
    head, free = results["per head"], results["data-free"]
    integer = results[_integer_name("uint8", "norm")]
    points = 100 * (results["float"].accuracy - head.accuracy)
    integer_points = 100 * (results["float"].accuracy - integer.accuracy)
    targets = [
        ("per head: mean cosine", f"{head.mean_cosine:.4f}", f">= {_HEAD_MEAN}", head.mean_cosine >= _HEAD_MEAN),
        ("per head: worst cosine", f"{head.worst_cosine:.4f}", f">= {_HEAD_WORST}", head.worst_cosine >= _HEAD_WORST),
        ("per head: accuracy lost, points", f"{points:.2f}", f"<= {_HEAD_POINTS}", points <= _HEAD_POINTS + 1e-9),
        (
            "uint8 norm: mean cosine",
            f"{integer.mean_cosine:.4f}",
            f">= {_INTEGER_MEAN}",
            integer.mean_cosine >= _INTEGER_MEAN,
        ),
        (
            "uint8 norm: worst cosine",
            f"{integer.worst_cosine:.4f}",
            f">= {_INTEGER_WORST}",
            integer.worst_cosine >= _INTEGER_WORST,
        ),
        (
            "uint8 norm: accuracy lost, points",
            f"{integer_points:.2f}",
            f"<= {_INTEGER_POINTS}",
            integer_points <= _INTEGER_POINTS + 1e-9,
        ),
        ("data-free: mean cosine", f"{free.mean_cosine:.4f}", f">= {_FREE_MEAN}", free.mean_cosine >= _FREE_MEAN),
    ]
    about = (
        f"all-MiniLM-L6-v2 (`{MINILM_L6[0]}`), every attention Softmax replaced by `hccs::HCCS`, with float output "
        "where no other is named, no "
        "retraining; the scale and zero point of int8 logits are fitted per head where no other is named. "
        f"Mean-pooled embeddings of the first {texts:,} Reuters R8 test texts, cut at 128 tokens, in padded batches of "
        f"16; a logistic regression (C = 1) trained on the float embeddings of {training:,} training texts; "
        f"calibrated on {calibration} other training texts. One seed, fixed."
    )
    sections = [
        about,
        table(["variant", "accuracy", "cosine to float, mean", "worst"], rows),
        table(["target", "measured", "needs", ""], [(*row[:3], verdict(row[3])) for row in targets]),
    ]
    return "\n\n".join(sections)


if __name__ == "__main__":
    main()
