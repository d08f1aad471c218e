"""``demo``: the whole road on a bundled model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from hccs_onnx import demo
from hccs_onnx.backends import best_backend
from hccs_onnx.cli.common import add_command, command_line, table
from hccs_onnx.errors import ExitStatus

_RAN = {
    "native": "HCCS ran in the native library, registered with stock onnxruntime.",
    "function": (
        "HCCS ran by its function body\n"
        "on stock onnxruntime: the native library cannot be used here (python -m hccs_onnx doctor says why)."
    ),
}


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "walk the whole road on a bundled model: inspect, calibrate, rewrite, verify"
    parser = add_command(commands, "demo", help_text, "python -m hccs_onnx demo -o hccs-demo")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("hccs-demo"), help="folder to leave the files in (default: hccs-demo)"
    )
    parser.add_argument("--retrain", action="store_true", help="retrain the model with HCCS as well (needs torch)")
    parser.set_defaults(run=_run, when_interrupted="what was finished is in the output folder")


def _run(options: argparse.Namespace) -> ExitStatus:
    folder = options.output
    if options.retrain:
        demo.check_retraining()
    demo.prepare(folder, retrain=options.retrain)
    print("A transformer with 2 layers of 4 heads reads handwritten digits (scikit-learn's, 8x8 pixels).")
    print("Its attention Softmax is replaced by HCCS: integers and one clipped line, no exponential.\n")
    backend = best_backend()
    results = [demo.walk(folder, exporter, backend) for exporter in demo.EXPORTS]
    rows = []
    for result in results:
        attention = sum(item.reason is None for item in result.found)
        kl = np.mean([fit.kl for softmax in result.calibration.softmaxes for fit in softmax.heads])
        rows.append(
            [
                f"torch {result.exporter} export",
                f"{attention} of {len(result.found)}",
                f"{result.float_accuracy:.1%}",
                f"{result.data_free_accuracy:.1%}",
                f"{result.calibrated_accuracy:.1%}",
                f"{kl:.3f}",
                f"{result.verification.outputs[0].mean_cosine:.4f}",
            ]
        )
    header = [
        "model",
        "Softmax found",
        "float",
        "HCCS data-free",
        "HCCS calibrated",
        "mean KL (nats)",
        "cosine to float",
    ]
    print(table(header, rows))
    print("\nfloat, data-free, calibrated: share of 450 test images read right. Data-free needs no samples;")
    print(f"calibrated was fitted to 256 training images. {_RAN[backend]}")
    if options.retrain:
        print("\nRetrained for 150 passes over the same 256 images, without labels, to give the float model's scores:")
        print(demo.retrain(folder), end="")
        print(f"The script is {folder}/retrain.py, the result {folder}/digits_retrained.onnx.")
    print(f"\nThe models, calibration files and data are in {folder}/. Try it yourself:")
    model, rewritten = folder / "digits_dynamo.onnx", folder / "digits_dynamo.hccs.onnx"
    print(f"  {command_line('inspect', model)}")
    print(f"  {command_line('verify', model, rewritten, '--data', folder / 'test.npz', '--backend', backend)}")
    return ExitStatus.OK
