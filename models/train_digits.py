"""Train a small transformer classifier on scikit-learn's digits and export it to ONNX twice.

The same weights are exported with the TorchScript exporter (attention written out) and with the dynamo exporter
(attention through ``scaled_dot_product_attention``), next to calibration and test data. Run without arguments, it
rebuilds the folder ``models/digits``.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from digits.network import TOKENS, Block, DigitsTransformer, shift_images
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

IR_VERSION = 8  # nothing newer is used, and the oldest supported onnxruntime takes it
SEED = 0
BATCH = 64
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.02
CALIBRATION_ROWS = 256
CHECKED_BATCHES = (1, 7, 360)
TOLERANCE = 1e-4
TORCHSCRIPT_NAME = "digits_torchscript.onnx"
DYNAMO_NAME = "digits_dynamo.onnx"


@dataclass(frozen=True)
class Digits:
    """Pixels in 0..1 as float32 ``[n, 64]`` and labels as int64 ``[n]``, split once and for all."""

    train_pixels: FloatArray
    train_labels: IntArray
    test_pixels: FloatArray
    test_labels: IntArray
    calibration_pixels: FloatArray


def load_data() -> Digits:
    """Load the digits and split them.

    Returns
    -------
    Digits
        The stratified 75/25 split with ``random_state=0``, and a stratified draw of 256 training rows.
    """
    bunch: Any = load_digits()
    pixels, labels = (bunch.data / 16).astype(np.float32), bunch.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        pixels, labels, test_size=0.25, stratify=labels, random_state=SEED
    )
    calibration, _ = train_test_split(train_x, train_size=CALIBRATION_ROWS, stratify=train_y, random_state=SEED)
    return Digits(train_x, train_y, test_x, test_y, calibration)


def train(data: Digits, epochs: int) -> DigitsTransformer:
    """Train the classifier on the training split only; the last weights are kept.

    Parameters
    ----------
    data
        The digits.
    epochs
        Passes over the training split.

    Returns
    -------
    DigitsTransformer
        The trained model, in evaluation mode.
    """
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = DigitsTransformer()
    pixels, labels = torch.from_numpy(data.train_pixels), torch.from_numpy(data.train_labels)
    steps = epochs * math.ceil(len(pixels) / BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels), generator=generator).split(BATCH):
            scores = model(shift_images(pixels[rows], generator))
            loss = functional.cross_entropy(scores, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def attention_peaks(model: DigitsTransformer, pixels: FloatArray) -> list[tuple[float, float]]:
    """Measure how peaked the attention is.

    Parameters
    ----------
    model
        The trained model.
    pixels
        Images ``[n, 64]``.

    Returns
    -------
    list of tuple of float
        Per layer: mean largest probability of a row (1/16 when uniform), and mean entropy of a row divided by that
        of a uniform row.
    """
    tokens = model.tokens(torch.from_numpy(pixels))
    peaks = []
    for block in model.blocks:
        assert isinstance(block, Block)
        probabilities = block.attention.probabilities(block.attention_norm(tokens))
        entropy = torch.special.entr(probabilities).sum(dim=-1).mean() / math.log(TOKENS)
        peaks.append((probabilities.amax(dim=-1).mean().item(), entropy.item()))
        tokens = block(tokens)
    return peaks


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the graphs nested in its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for nested in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _graphs(nested)


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove documentation strings and metadata entries (stack traces, scopes) from a model, in place.

    Parameters
    ----------
    model
        The model to clean.
    """
    holders: list[Any] = [model]
    for graph in _graphs(model.graph):
        holders += [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for function in model.functions:
        holders += [function, *function.node, *function.value_info]
    for holder in holders:
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")


def check_no_local_paths(model: onnx.ModelProto) -> None:
    """Refuse a model that names a folder of this machine.

    Parameters
    ----------
    model
        The cleaned model.

    Raises
    ------
    RuntimeError
        If a path of this machine is found in the serialized model.
    """
    content = model.SerializeToString()
    here = [Path.cwd(), Path.home(), Path(__file__).resolve().parent, Path(tempfile.gettempdir())]
    prefixes = [Path(sys.prefix), Path(sys.base_prefix), Path(torch.__file__).parent]
    for text in [*(str(path) for path in here + prefixes if len(path.parts) > 1), "site-packages"]:
        if text.encode() in content:
            raise RuntimeError(f"the exported model contains {text!r}")


def finish_model(path: Path) -> None:
    """Clean and check an exported file in place.

    Parameters
    ----------
    path
        The ONNX file.
    """
    model = onnx.load(path)
    strip_metadata(model)
    model.ir_version = IR_VERSION
    check_no_local_paths(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def export_models(model: DigitsTransformer, example: Tensor, folder: Path) -> None:
    """Export the same weights with both exporters.

    Parameters
    ----------
    model
        The trained model.
    example
        Pixels ``[n, 64]`` with ``n > 1``, to trace with.
    folder
        Where to write the two files.
    """
    names: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["scores"]}
    model.set_fused(False)
    torch.onnx.export(
        model,
        (example,),
        folder / TORCHSCRIPT_NAME,
        dynamo=False,
        opset_version=17,
        dynamic_axes={"pixels": {0: "batch"}, "scores": {0: "batch"}},
        **names,
    )
    model.set_fused(True)
    torch.onnx.export(
        model,
        (example,),
        folder / DYNAMO_NAME,
        dynamo=True,
        opset_version=20,
        external_data=False,
        dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
        verbose=False,
        **names,
    )
    model.set_fused(False)
    for name in (TORCHSCRIPT_NAME, DYNAMO_NAME):
        finish_model(folder / name)


def open_session(path: Path) -> ort.InferenceSession:
    """Open a model in onnxruntime on one CPU thread.

    Parameters
    ----------
    path
        The ONNX file.

    Returns
    -------
    onnxruntime.InferenceSession
        The session.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def largest_difference(model: DigitsTransformer, session: ort.InferenceSession, pixels: FloatArray) -> float:
    """Compare onnxruntime with torch on several batch sizes.

    Parameters
    ----------
    model
        The torch model.
    session
        The exported model.
    pixels
        At least 360 images.

    Returns
    -------
    float
        The largest absolute difference between scores.

    Raises
    ------
    RuntimeError
        If the difference exceeds the tolerance.
    """
    largest = 0.0
    for size in CHECKED_BATCHES:
        expected = model(torch.from_numpy(pixels[:size])).numpy()
        (scores,) = session.run(["scores"], {"pixels": pixels[:size]})
        if scores.shape != expected.shape or scores.dtype != np.float32:
            raise RuntimeError(f"batch {size}: unexpected scores {scores.dtype} {scores.shape}")
        largest = max(largest, float(np.abs(scores - expected).max()))
    if not largest <= TOLERANCE:
        raise RuntimeError(f"the exported model differs from torch by {largest}")
    return largest


def accuracy(session: ort.InferenceSession, pixels: FloatArray, labels: IntArray) -> float:
    """Measure the fraction of images classified correctly.

    Parameters
    ----------
    session
        The exported model.
    pixels
        Images ``[n, 64]``.
    labels
        Classes ``[n]``.

    Returns
    -------
    float
        The accuracy in 0..1.
    """
    (scores,) = session.run(["scores"], {"pixels": pixels})
    return float((scores.argmax(axis=1) == labels).mean())


def save_data(data: Digits, folder: Path) -> None:
    """Write the calibration and test arrays.

    Parameters
    ----------
    data
        The digits.
    folder
        Where to write the three files.
    """
    np.savez_compressed(folder / "calibration.npz", pixels=data.calibration_pixels)
    np.savez_compressed(folder / "test.npz", pixels=data.test_pixels)
    np.save(folder / "test_labels.npy", data.test_labels, allow_pickle=False)


def report(model: DigitsTransformer, data: Digits, folder: Path) -> None:
    """Check the exported models against torch and print parameters, accuracy and sizes.

    Parameters
    ----------
    model
        The trained model.
    data
        The digits.
    folder
        The folder that holds the files.
    """
    print(f"parameters: {sum(parameter.numel() for parameter in model.parameters())}")
    for layer, (peak, entropy) in enumerate(attention_peaks(model, data.test_pixels)):
        print(f"attention of layer {layer}: mean largest probability {peak:.3f}, relative entropy {entropy:.3f}")
    for name in (TORCHSCRIPT_NAME, DYNAMO_NAME):
        session = open_session(folder / name)
        difference = largest_difference(model, session, data.test_pixels)
        print(f"{name}: largest difference from torch {difference:.1e}")
        print(f"{name}: training accuracy {accuracy(session, data.train_pixels, data.train_labels):.4f}")
        print(f"{name}: test accuracy {accuracy(session, data.test_pixels, data.test_labels):.4f}")
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


def build(out: Path, epochs: int) -> None:
    """Train, export, check, and move the finished files into place.

    Parameters
    ----------
    out
        The folder to fill.
    epochs
        Passes over the training split.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data = load_data()
    start = time.perf_counter()
    model = train(data, epochs)
    print(f"training: {epochs} epochs in {time.perf_counter() - start:.1f} s")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=out) as name:
        folder = Path(name)
        save_data(data, folder)
        export_models(model, torch.from_numpy(data.train_pixels[:3]), folder)
        report(model, data, folder)
        for path in sorted(folder.iterdir()):
            path.replace(out / path.name)


def _positive(text: str) -> int:
    """Parse a positive integer of the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Train the digits transformer and export it to ONNX.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "digits", help="output folder")
    parser.add_argument("--epochs", type=_positive, default=150, help="passes over the training split (default: 150)")
    arguments = parser.parse_args()
    build(arguments.out, arguments.epochs)


if __name__ == "__main__":
    main()
