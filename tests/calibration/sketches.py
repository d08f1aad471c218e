"""Made-up model sketches: of logits, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hccs_onnx.calibration.model_sketch import ModelSketch, Observed, Subject
from hccs_onnx.calibration.row_sample import RowSample
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.reference import Array

HEADS = 2
OBSERVED = (
    Observed("one", "logits1", "", HEADS, -3, masked=True, self_attention=False, per_tensor=False, unit=1.0),
    Observed(
        "two", "logits2", "body of Loop 'l'", None, -3, masked=False, self_attention=True, per_tensor=True, unit=8.0
    ),
)
SUBJECT = Subject("ab" * 32, OBSERVED, keeps_rows=True)


def feed(seed: int) -> list[Array | None]:
    """Logits of each Softmax, of a length that depends on the seed; the second runs for every other one."""
    random = np.random.default_rng(seed)
    n = 3 + seed % 5
    logits = random.normal(0, 3, (1, HEADS, n, n)).astype(np.float32)
    logits[..., n // 2] = -1e4
    return [logits, random.normal(0, 1, (1, 3, 2, n)).astype(np.float32) if seed % 2 else None]


def sketch_of(seeds: Sequence[int], *, keep_rows: bool = True) -> ModelSketch:
    """The sketch of some feeds, as one part."""
    sketches = [Sketch.empty(0), Sketch.empty(0)]
    samples = [RowSample.empty(0), RowSample.empty(0)]
    fingerprint = 0
    for seed in seeds:
        fingerprint += int.from_bytes(hashlib.sha256(bytes([seed])).digest(), "big")
        for number, logits in enumerate(feed(seed)):
            if logits is None:
                continue
            if not sketches[number].rows.size:
                sketches[number], samples[number] = Sketch.empty(logits.shape[1]), RowSample.empty(logits.shape[1])
            for target in (sketches[number], samples[number]):
                target.add(logits, masked=OBSERVED[number].masked, self_attention=OBSERVED[number].self_attention)
    subject = Subject(SUBJECT.model_sha256, OBSERVED, keep_rows)
    part = f"{fingerprint % 2**256:064x}"
    return ModelSketch(subject, tuple(sketches), tuple(samples) if keep_rows else (), (part,), len(seeds))
