"""Retrain the digits transformer with HCCS in seconds: distillation from the float model, on 256 images, no labels.

    python retrain.py [--to float|uint8|int16] [--reciprocal norm|div|clb] [--folder FOLDER]

reads the float model, the calibration images and the test images from the folder (this file's, by default), and leaves
``digits_retrained.onnx`` there, which runs on stock onnxruntime. Needs ``pip install hccs-onnx[torch]``.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from network import Attention, DigitsTransformer, shift_images
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

import hccs_onnx
import hccs_onnx.torch

SEED = 0
EPOCHS = 150
BATCH = 64
PEAK_LEARNING_RATE = 1e-3


def load_float(path: Path) -> DigitsTransformer:
    """The network with the weights that an ONNX file holds.

    Parameters
    ----------
    path
        The TorchScript export, whose tensors have the names of the parameters; weights of products that are not named
        are those in front of the biases.

    Returns
    -------
    DigitsTransformer
        In evaluation mode.
    """
    graph = onnx.load(path).graph
    tensors = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        for bias, product in (node.input, reversed(node.input)) if node.op_type == "Add" else ():
            if bias in tensors and product in products:
                tensors[bias.replace("bias", "weight")] = tensors[products[product]].T.contiguous()
    model = DigitsTransformer()
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    return model.eval()


def with_hccs(teacher: DigitsTransformer, calibration: hccs_onnx.Calibration) -> DigitsTransformer:
    """A copy of the float network with HCCS in its attention, clip ranges and floors trained where that is possible."""
    student = copy.deepcopy(teacher)
    for module in student.modules():
        if isinstance(module, Attention):
            module.softmax = nn.Softmax(dim=-1)
    learn = calibration.output == "float" or calibration.reciprocal == "norm"
    hccs_onnx.torch.swap(student, calibration, softmax=r"\.softmax$", learn=learn)
    return student


def distil(student: DigitsTransformer, teacher: DigitsTransformer, images: Tensor, epochs: int) -> None:
    """Train the student to give the teacher's scores, on images moved at random by up to a pixel.

    Parameters
    ----------
    student
        Trained in place.
    teacher
        The float network.
    images
        Pixels ``[n, 64]``.
    epochs
        Passes over them.
    """
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(student.parameters(), PEAK_LEARNING_RATE)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(BATCH):
            pixels = shift_images(images[rows], generator)
            with torch.no_grad():
                wanted = teacher(pixels)
            loss = functional.mse_loss(student(pixels), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def accuracy(path: Path, folder: Path) -> float:
    """Share of the test images that a model in onnxruntime reads right, 0..1."""
    with np.load(folder / "test.npz") as data:
        pixels = data["pixels"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores = session.run(None, {"pixels": pixels})[0]
    return float((scores.argmax(axis=1) == np.load(folder / "test_labels.npy")).mean())


def main() -> None:
    """Calibrate, retrain, export, compare."""
    parser = argparse.ArgumentParser(description="Retrain the digits transformer with HCCS in its attention.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="with the model and its data")
    parser.add_argument("--to", choices=["float", "uint8", "int16"], default="float", help="what attention puts out")
    parser.add_argument(
        "--reciprocal", choices=["norm", "div", "clb"], default="norm", help="needs --to uint8 or int16"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over the 256 images (default {EPOCHS})")
    options = parser.parse_args()
    if options.to == "float" and options.reciprocal != "norm":
        parser.error(f"--reciprocal {options.reciprocal} is for integers (found --to float, needs --to uint8 or int16)")
    torch.set_num_threads(1)  # the same result everywhere, and no slower for a network this small
    folder: Path = options.folder
    float_model = folder / "digits_torchscript.onnx"
    calibration = hccs_onnx.calibrate(
        float_model, folder / "calibration.npz", to=options.to, reciprocal=options.reciprocal
    )
    teacher = load_float(float_model)
    student = with_hccs(teacher, calibration)
    with np.load(folder / "calibration.npz") as data:
        images = torch.from_numpy(data["pixels"])
    distil(student, teacher, images, options.epochs)
    retrained = hccs_onnx.torch.export(
        student, (images[:2],), folder / "digits_retrained.onnx", dynamo=False, input_names=["pixels"],
        output_names=["scores"], dynamic_axes={"pixels": {0: "batch"}, "scores": {0: "batch"}},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        before = hccs_onnx.rewrite(float_model, Path(scratch) / "before.onnx", calibration=calibration).output
        for name, path in (("float", float_model), ("HCCS calibrated", before), ("HCCS retrained", retrained)):
            print(f"{name}: {accuracy(path, folder):.1%} of 450 test images read right")


if __name__ == "__main__":
    main()
