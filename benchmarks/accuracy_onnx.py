"""Classifiers as ONNX models, for what the table measures without retraining: the tool's own road, in onnxruntime."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from accuracy_data import LENGTH, Split
from accuracy_models import Classifier
from common import Feed

CALIBRATION_TEXTS = 200


def export(classifier: Classifier, path: Path) -> Path:
    """Write a classifier by torch's TorchScript exporter, with any number and length of texts."""
    ids = torch.ones(2, LENGTH, dtype=torch.int64)
    axes = {name: {0: "text", 1: "token"} for name in ("input_ids", "attention_mask")} | {"logits": {0: "text"}}
    mask = ids.clone()
    mask[1, LENGTH // 2 :] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            classifier.cpu().eval(), (ids, mask), str(path), dynamo=False, opset_version=17,
            input_names=["input_ids", "attention_mask"], output_names=["logits"], dynamic_axes=axes,
        )  # fmt: skip
    return path


def calibration_feeds(data: Split, batch: int = 8) -> list[Feed]:
    """Some training texts, the same for every variant."""
    rows = np.random.default_rng(0).permutation(len(data))[:CALIBRATION_TEXTS]
    batches = (data.batch(rows[start : start + batch]) for start in range(0, len(rows), batch))
    return [{"input_ids": ids, "attention_mask": mask} for ids, mask in batches]


def accuracy(model: Path, data: Split, batch: int = 32) -> float:
    """Share of texts whose class an ONNX model gets right, with the native library if it is there."""
    from hccs_onnx import library_path

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # as many rows as there are cores are measured at once
    options.register_custom_ops_library(str(library_path()))
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    right = 0
    order = np.argsort(data.lengths, kind="stable")
    for start in range(0, len(data), batch):
        rows = order[start : start + batch]
        ids, mask = data.batch(rows)
        logits = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        right += int((logits.argmax(axis=-1) == data.classes[rows]).sum())
    return right / len(data)
