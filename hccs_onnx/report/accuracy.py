"""Labels against original and rewritten model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hccs_onnx.calibration.collect import run
from hccs_onnx.calibration.data import Samples
from hccs_onnx.errors import DataError
from hccs_onnx.progress import progress
from hccs_onnx.reference import Array
from hccs_onnx.report.content import Accuracy

if TYPE_CHECKING:
    import onnxruntime as ort

    from hccs_onnx.operator.python_op import PythonSession


def read_labels(path: Path) -> Array:
    """Class of each sample, int64 of shape (sample,).

    Raises
    ------
    DataError
        If the file is not such an ``.npy``.

    Examples
    --------
    >>> read_labels(Path("missing.npy"))
    Traceback (most recent call last):
    hccs_onnx.errors.DataError: missing.npy: cannot be read (No such file or directory). Check --labels.
    """
    try:
        labels = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror or error})", remedy="Check --labels") from error
    except (ValueError, EOFError) as error:
        raise DataError(str(path), "is not an .npy file", remedy="Write it with numpy.save") from error
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        found = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, np.ndarray) else "an archive"
        remedy = "Write the class of each sample with numpy.save"
        raise DataError(
            str(path), "holds no labels", found=found, needs="integers of shape [samples]", remedy=remedy
        )  # fmt: skip
    return labels.astype(np.int64)


def compare_labels(
    original: ort.InferenceSession | PythonSession,
    rewritten: ort.InferenceSession | PythonSession,
    samples: Samples,
    labels: Array,
    subject: str,
) -> Accuracy:
    """Run both models and count what they read right.

    Parameters
    ----------
    original, rewritten : session
        Both models.
    samples : Samples
        Feeds, in the order of `labels`.
    labels : ndarray of int64, shape (sample,)
        Classes.
    subject : str
        Where the labels come from.

    Raises
    ------
    DataError
        If no output holds class scores, or labels and samples do not go together.

    Examples
    --------
    >>> compare_labels(original, rewritten, samples, labels, "labels.npy").rewritten  # doctest: +SKIP
    0.976
    """
    names = [output.name for output in original.get_outputs()]
    right: list[Array] = []
    output, taken = "", 0
    for feed in progress(samples, "comparing labels", len(samples)):
        scores = [run(session, names, feed) for session in (original, rewritten)]
        output, pair = _class_scores(names, scores, subject)
        wanted = labels[taken : taken + pair[0].shape[0]]
        taken += pair[0].shape[0]
        if wanted.size < pair[0].shape[0]:
            break
        if wanted.min(initial=0) < 0 or wanted.max(initial=0) >= pair[0].shape[1]:
            found, needs = f"{wanted.min()} to {wanted.max()}", f"0..{pair[0].shape[1] - 1}"
            raise DataError(subject, "labels are no classes of the model", found=found, needs=needs)
        right.append(np.stack([scores.argmax(axis=1) == wanted for scores in pair]))
    if taken != labels.size:
        needs = f"{taken}, as many as there are samples" if taken < labels.size else f"at least {taken}"
        raise DataError(subject, "holds a wrong number of labels", found=labels.size, needs=needs)
    first, second = np.concatenate(right, axis=1)
    cases = (first & second, first & ~second, ~first & second, ~first & ~second)
    return Accuracy(output, *(int(np.count_nonzero(case)) for case in cases))


def _class_scores(names: list[str], outputs: list[list[Array]], subject: str) -> tuple[str, list[Array]]:
    """The first output (batch, class), of both models."""
    for name, *pair in zip(names, *outputs, strict=True):
        if pair[0].ndim == 2 and pair[0].shape[1] > 1 and np.issubdtype(pair[0].dtype, np.floating):
            return name, pair
    remedy = "Leave out --labels"
    raise DataError(subject, "no output holds class scores (batch, class) to compare with", remedy=remedy)
