"""QDQ models rewritten to integers, without data and with: MiniLM L3 on Reuters R8, and the digits model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from common import MINILM_L3, ROOT, Array, Feed, embed, log, package_file, parser, publish, reuters, table, token_feeds
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from hccs_onnx.errors import HccsError
from hccs_onnx.workflow import calibrate, rewrite

DIGITS = ROOT / "models" / "digits"
ACTIVATIONS = {
    "uint8": (QuantType.QUInt8, False),
    "int8": (QuantType.QInt8, False),
    "int8, symmetric": (QuantType.QInt8, True),
}
HEADER = ("activations", "QDQ model", "uint8, without data", "int16, without data", "uint8, with data")


class _Reader:
    """Feeds as onnxruntime's quantiser asks for them."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "qdq_models")
    arguments.add_argument("--texts", type=int, default=200, help="test texts")
    arguments.add_argument(
        "--calibration", type=int, default=64, help="training texts, and digits, for quantiser and fit"
    )
    options = arguments.parse_args()
    encoder, encoder_numbers = _encoder(options.texts, options.calibration)
    digits, digits_numbers = _digits(options.calibration)
    body = "\n\n".join([
        "`quantize_static` (QDQ, int8 weights, MinMax), then `rewrite`: without data logits keep the codes that the "
        f"model gives them, with data codes are fitted. Quantiser and fit take the same {options.calibration} samples.",
        f"paraphrase-MiniLM-L3-v2, {options.texts} Reuters R8 test texts, sixteen a feed and padded to its longest: "
        "cosine of the mean-pooled embedding to the float model's, mean (worst text). Symmetric codes make -inf of "
        "this model's mask, -3.4e38, and NaN of 0 times that: there is nothing to save.",
        table(HEADER, encoder),
        "Digits transformer: share of the 450 test digits that are recognised; "
        f"{digits_numbers['float']:.3f} by the float model.",
        table(HEADER, digits),
    ])  # fmt: skip
    publish(options.out, "QDQ models in integers", body, {"encoder": encoder_numbers, "digits": digits_numbers})


def _encoder(count: int, calibration: int) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    model = package_file(*MINILM_L3)
    texts, samples = reuters("test", count)[0], reuters("train", calibration)[0]
    feeds = list(token_feeds(model, texts))
    reference = embed(model, feeds)

    def judge(path: Path) -> tuple[str, Any]:
        cosines = (embed(path, feeds) * reference).sum(axis=1)
        return f"{cosines.mean():.3f} ({cosines.min():.3f})", {
            "mean": float(cosines.mean()),
            "worst": float(cosines.min()),
        }

    return _rows(model, list(token_feeds(model, samples)), judge)


def _digits(calibration: int) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    model = DIGITS / "digits_torchscript.onnx"
    labels = np.load(DIGITS / "test_labels.npy")
    with np.load(DIGITS / "test.npz") as data:
        pixels: Array = data["pixels"]
    with np.load(DIGITS / "calibration.npz") as data:
        feeds = [{"pixels": data["pixels"][i : i + 1]} for i in range(calibration)]

    def judge(path: Path) -> tuple[str, Any]:
        (scores,) = _session(path).run(None, {"pixels": pixels})
        share = float((scores.argmax(axis=1) == labels).mean())
        return f"{share:.3f}", share

    rows, numbers = _rows(model, feeds, judge)
    return rows, {**numbers, "float": judge(model)[1]}


def _rows(
    model: Path, samples: list[Feed], judge: Callable[[Path], tuple[str, Any]]
) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    """A row for each kind of activations: the QDQ model, and what `rewrite` makes of it."""
    rows, numbers = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (activation, symmetric) in ACTIVATIONS.items():
            log(f"{model.name}, {name}")
            source, target = Path(folder) / "qdq.onnx", Path(folder) / "hccs.onnx"
            quantize_static(
                str(model), str(source), _Reader(samples), quant_format=QuantFormat.QDQ, activation_type=activation,
                weight_type=QuantType.QInt8, extra_options={"ActivationSymmetric": symmetric},
            )  # fmt: skip
            results = {"QDQ model": judge(source)}
            for title, make in _variants(source, target, samples).items():
                try:
                    make()
                except HccsError as error:
                    log(f"{title}: {error}")
                    results[title] = ("-", None)
                    continue
                results[title] = judge(target)
            rows.append((name, *(text for text, _ in results.values())))
            numbers[name] = {title: number for title, (_, number) in results.items()}
    return rows, numbers


def _variants(source: Path, target: Path, samples: list[Feed]) -> dict[str, Callable[[], object]]:
    return {
        "uint8, without data": lambda: rewrite(source, target, to="uint8"),
        "int16, without data": lambda: rewrite(source, target, to="int16"),
        "uint8, with data": lambda: rewrite(source, target, calibration=calibrate(source, samples, to="uint8")),
    }


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
