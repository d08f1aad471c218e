"""The whole road on a small bundled model: a transformer that reads handwritten digits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hccs_onnx import workflow
from hccs_onnx.backends import Backend, open_session
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.demo_files import check_own, recorded
from hccs_onnx.errors import HccsError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.files import atomic_file, read_model, writing_errors
from hccs_onnx.verify import Verification, verify

_FILES = ("digits_torchscript.onnx", "digits_dynamo.onnx", "calibration.npz", "test.npz", "test_labels.npy")
_SCRIPTS = ("network.py", "retrain.py")
EXPORTS = {"TorchScript": "digits_torchscript", "dynamo": "digits_dynamo"}
_MADE = (".data-free.onnx", ".hccs.json", ".hccs.onnx")  # of each export
_RETRAINED = "digits_retrained.onnx"


@dataclass(frozen=True)
class DemoResult:
    """What the road led to for one export of the model.

    Parameters
    ----------
    exporter : str
        Which of torch's exporters wrote the model.
    found : list of AttentionSoftmax
        What `inspect` found.
    calibration : Calibration
        Fitted parameters.
    float_accuracy, data_free_accuracy, calibrated_accuracy : float
        Share of the test images that are read right, 0..1.
    verification : Verification
        Calibrated against original.
    """

    exporter: str
    found: list[AttentionSoftmax]
    calibration: Calibration
    float_accuracy: float
    data_free_accuracy: float
    calibrated_accuracy: float
    verification: Verification


def bundled_models() -> Path:
    """Folder of the bundled model and its data: in the installed package, or in the source tree.

    Raises
    ------
    HccsError
        If neither is there.
    """
    installed = Path(str(resources.files("hccs_onnx"))) / "models" / "digits"
    source = Path(__file__).parent.parent / "models" / "digits"
    for folder in (installed, source):
        if folder.is_dir():
            return folder
    raise HccsError("demo", "the bundled model is missing", remedy="Install hccs-onnx again")


def prepare(folder: Path, *, retrain: bool = False) -> None:
    """Put the bundled files into `folder`, which is made.

    Parameters
    ----------
    folder : pathlib.Path
        Where to.
    retrain : bool
        The scripts that `retrain` runs, too.

    Raises
    ------
    ModelError
        If it cannot be written, or holds what is not the demo's where the demo would write.
    """
    bundled = {name: bundled_models() / name for name in (*_FILES, *(_SCRIPTS if retrain else ()))}
    made = [name + suffix for name in EXPORTS.values() for suffix in _MADE]
    check_own(folder, bundled, [*made, *([_RETRAINED] if retrain else [])])
    with writing_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in bundled.items():
            with atomic_file(folder / name) as file:
                file.write(source.read_bytes())


def walk(folder: Path, exporter: str, backend: Backend = "function") -> DemoResult:
    """Inspect, calibrate, rewrite and verify one export of the model in `folder`.

    Parameters
    ----------
    folder : pathlib.Path
        Prepared with `prepare`; the new files are left there.
    exporter : str
        A key of `EXPORTS`.
    backend : {'function', 'native', 'python'}
        What runs HCCS nodes.

    Examples
    --------
    >>> walk(Path("hccs-demo"), "dynamo").calibrated_accuracy  # doctest: +SKIP
    0.97
    """
    name = EXPORTS[exporter]
    model = folder / f"{name}.onnx"
    made = [name + suffix for suffix in _MADE]
    data_free, fitted, calibrated = (folder / each for each in made)
    with recorded(folder, made):
        workflow.rewrite(model, data_free)
        calibration = workflow.calibrate(model, folder / "calibration.npz")
        calibration.save(fitted)
        workflow.rewrite(model, calibrated, calibration=calibration)
    return DemoResult(
        exporter=exporter,
        found=workflow.inspect(model),
        calibration=calibration,
        float_accuracy=_accuracy(model, folder, "function"),
        data_free_accuracy=_accuracy(data_free, folder, backend),
        calibrated_accuracy=_accuracy(calibrated, folder, backend),
        verification=verify(model, calibrated, folder / "test.npz", backend=backend),
    )


def check_retraining() -> None:
    """Refuse to retrain without torch.

    Raises
    ------
    HccsError
        With what to install.
    """
    if find_spec("torch") is None:
        raise HccsError("demo", "retraining needs torch, which is not installed", remedy="pip install hccs-onnx[torch]")


def retrain(folder: Path) -> str:
    """Run the bundled example of retraining in `folder`, prepared for it; a minute or less.

    Returns
    -------
    str
        What it prints: three accuracies.

    Raises
    ------
    HccsError
        If it fails; it has said why on stderr.
    """
    command = [sys.executable, str(folder / "retrain.py"), "--folder", str(folder)]
    with recorded(folder, [_RETRAINED]):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise HccsError("demo", "retraining failed", found=f"exit status {done.returncode}", remedy="See above")
    return done.stdout


def _accuracy(model: Path, folder: Path, backend: Backend) -> float:
    with np.load(folder / "test.npz") as data:
        pixels = data["pixels"]
    scores = open_session(read_model(model), model, backend).run(None, {"pixels": pixels})[0]
    return float(np.mean(np.argmax(scores, axis=1) == np.load(folder / "test_labels.npy")))
