"""What aie4ml's integers cost: models with every attention block replaced by the graph that aie4ml compiles."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from common import LENGTH, MINILM_L6, ROOT, Array, Feed, log, package_file, parser, publish, reuters, table, token_feeds

from hccs_onnx import workflow
from hccs_onnx.aie.aie4ml_flow import write_project
from hccs_onnx.backends import best_backend, open_session
from hccs_onnx.params import OutputType, Reciprocal

PROFILES: tuple[tuple[OutputType, Reciprocal], ...] = (
    ("uint8", "clb"), ("uint8", "div"), ("int16", "div"), ("int16", "clb"),
)  # fmt: skip
DIGITS = ROOT / "models" / "digits"
CALIBRATION_TEXTS = 16


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "aie4ml_blocks")
    arguments.add_argument("--texts", type=int, default=40, help="test texts of 128 tokens or more, cut at 128")
    arguments.add_argument("--images", type=int, default=450, help="test images")
    options = arguments.parse_args()
    digits, digits_numbers = _digits(options.images)
    minilm, minilm_numbers = _minilm(options.texts)
    header = ["attention puts out", "HCCS in the model", "blocks in aie4ml's integers", "error of a block's output"]
    body = "\n\n".join([
        "All attention blocks of a model run as the graphs that `codegen --flow aie4ml` writes, in onnxruntime, whose "
        "integers are those of aie4ml's firmware (tests/aie/test_aie4ml_firmware.py); the rest of the model in floats. "
        "Calibrated per head, no retraining. The error is relative, in the 2-norm, against the same block in the "
        "rewritten model.",
        f"Digits transformer, share of {options.images} test images read right (float: {digits_numbers['float']:.1%}):",
        table(header, digits),
        f"MiniLM-L6, {options.texts} Reuters R8 test texts of {LENGTH} tokens, cosine of the mean-pooled embedding to "
        "that of the float model, mean and worst:",
        table(header, minilm),
    ])  # fmt: skip
    publish(
        options.out, "Attention blocks in aie4ml's integers", body, {"digits": digits_numbers, "minilm": minilm_numbers}
    )


def _digits(count: int) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    model = DIGITS / "digits_dynamo.onnx"
    with np.load(DIGITS / "test.npz") as data:
        feeds = [{"pixels": pixels[None]} for pixels in data["pixels"][:count]]
    labels = np.load(DIGITS / "test_labels.npy")[:count]

    def accuracy(outputs: Sequence[Array]) -> float:
        return float((np.concatenate(outputs).argmax(axis=1) == labels).mean())

    rows, numbers = [], {"float": accuracy([_whole(model, feed) for feed in feeds])}
    for output, reciprocal in PROFILES:
        log(f"digits: {output} {reciprocal}")
        with tempfile.TemporaryDirectory() as folder:
            spliced = _Spliced.make(model, DIGITS / "calibration.npz", Path(folder), output, reciprocal)
            in_model = accuracy([spliced.original(feed) for feed in feeds])
            in_blocks = accuracy([spliced.run(feed) for feed in feeds])
        name = f"{output} {reciprocal}"
        numbers[name] = {"model": in_model, "blocks": in_blocks, "relative_error": spliced.errors}
        rows.append((name, f"{in_model:.1%}", f"{in_blocks:.1%}", _range(spliced.errors)))
    return rows, numbers


def _minilm(count: int) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    model = package_file(*MINILM_L6)
    feeds = _long(model, "test", count)
    data = _long(model, "train", CALIBRATION_TEXTS)
    wanted = [_embedding(_whole(model, feed)) for feed in feeds]
    rows, numbers = [], {}
    for output, reciprocal in PROFILES:
        log(f"MiniLM: {output} {reciprocal}")
        with tempfile.TemporaryDirectory() as folder:
            spliced = _Spliced.make(model, data, Path(folder), output, reciprocal)
            cosines = [
                [float(a @ b) for a, b in zip(wanted, map(_embedding, map(run, feeds)), strict=True)]
                for run in (spliced.original, spliced.run)
            ]
        name = f"{output} {reciprocal}"
        numbers[name] = {"model": cosines[0], "blocks": cosines[1], "relative_error": spliced.errors}
        cells = [f"{np.mean(each):.3f}, {min(each):.3f}" for each in cosines]
        rows.append((name, *cells, _range(spliced.errors)))
    return rows, numbers


def _long(model: Path, split: str, count: int) -> list[Feed]:
    """Feeds of single texts that fill the whole length, so that nothing is padded."""
    texts, _ = reuters(split, 20 * count)
    feeds = [feed for feed in token_feeds(model, texts, batch=1) if feed["input_ids"].shape[1] == LENGTH]
    if len(feeds) < count:
        raise SystemExit(f"only {len(feeds)} of {len(texts)} texts have {LENGTH} tokens, fewer than {count}")
    return feeds[:count]


@dataclass
class _Spliced:
    """A rewritten model, and the same with its attention blocks replaced."""

    whole: Any
    opened: Any
    cuts: list[tuple[str, str]]
    blocks: list[ort.InferenceSession]
    output: str
    errors: list[float]

    @classmethod
    def make(cls, model: Path, data: Any, folder: Path, output: OutputType, reciprocal: Reciprocal) -> _Spliced:
        calibration = workflow.calibrate(model, data, to=output, reciprocal=reciprocal, profile="paper")
        rewritten = workflow.rewrite(model, folder / "rewritten.onnx", calibration=calibration).output
        report = write_project(rewritten, folder / "aie", "vek280", data=data, assume_unmasked=True)
        entries = [_entry(folder / "aie", block.folder) for block in report.blocks]
        cuts = [(entry["input"], entry["output"]) for entry in entries]
        proto = onnx.load(rewritten)
        result = proto.graph.output[0].name
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # as in write_project
        blocks = [
            open_session(onnx.load(path := folder / "aie" / block.folder / "model.onnx"), path, best_backend(), options)
            for block in report.blocks
        ]
        whole = open_session(onnx.load(rewritten), rewritten, best_backend())
        opened = open_session(_opened(proto, cuts), rewritten, best_backend())
        errors = [block.fidelity.relative_error for block in report.blocks]
        return cls(whole, opened, cuts, blocks, result, errors)

    def original(self, feed: Feed) -> Array:
        """Output of the rewritten model."""
        result: Array = self.whole.run([self.output], feed)[0]
        return result

    def run(self, feed: Feed) -> Array:
        """Its output with every block in integers, one after the other."""
        ys: dict[str, Array] = {}
        for (x, y), block in zip(self.cuts, self.blocks, strict=True):
            known = {
                **feed,
                **{f"{name}/block": ys.get(name, np.zeros((1, 1, 1), np.float32)) for _, name in self.cuts},
            }
            value = self.opened.run([x], known)[0]
            ys[y] = block.run(["y"], {"x": value.reshape(value.shape[-2:])})[0].reshape(value.shape)
        known = {**feed, **{f"{name}/block": ys[name] for _, name in self.cuts}}
        result: Array = self.opened.run([self.output], known)[0]
        return result


def _entry(folder: Path, block: str) -> dict[str, Any]:
    blocks = json.loads((folder / "manifest.json").read_text())["blocks"]
    return next(entry for entry in blocks if entry["folder"] == block)


def _opened(model: onnx.ModelProto, cuts: Sequence[tuple[str, str]]) -> onnx.ModelProto:
    """The model with the outputs of its blocks as inputs, and their inputs as outputs."""
    renamed = {y: f"{y}/block" for _, y in cuts}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = renamed.get(name, name)
    for name in renamed.values():
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    model.graph.output.extend(onnx.ValueInfoProto(name=x) for x, _ in cuts)
    return model


@cache
def _session(model: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def _whole(model: Path, feed: Feed) -> Array:
    result: Array = _session(model).run(None, feed)[0]
    return result


def _embedding(states: Array) -> Array:
    """Mean-pooled, of unit length."""
    mean = states[0].mean(axis=0)
    result: Array = mean / np.linalg.norm(mean)
    return result


def _range(errors: Sequence[float]) -> str:
    return f"{min(errors):.2f} to {max(errors):.2f}"


if __name__ == "__main__":
    main()
