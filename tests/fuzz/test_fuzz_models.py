"""Damaged models are rewritten or refused, within bounds of time and memory, whatever the damage. See `make fuzz`."""

from __future__ import annotations

import os
import random
from pathlib import Path

import onnx
import pytest
from conftest import DIGITS
from graph.models import Attention
from onnx import TensorProto

from fuzz.mutations import damaged
from fuzz.search import search

SECONDS = float(os.environ.get("HCCS_FUZZ_SECONDS", "0"))
SEED = int(os.environ.get("HCCS_FUZZ_SEED", "0"))
LARGE = 256  # bytes; larger weights of MiniLM are left out, so that mutations hit its structure

VARIANTS = {
    "plain": Attention(),
    "guarded": Attention(mask="where", guard=True, dropout=True, scale="query"),
    "half": Attention(dtype="float16", cast=True, mask="computed", scale="mul"),
    "folded": Attention(layout="folded", projection="split", mask=None),
    "opset_11": Attention(opset=11, ir_version=6, dropout=True, identity=True),
}


@pytest.fixture
def originals() -> dict[str, bytes]:
    models = {path.stem: path.read_bytes() for path in sorted(DIGITS.glob("*.onnx"))}
    return models | {name: variant.model().SerializeToString() for name, variant in VARIANTS.items()}


def without_weights(path: Path) -> bytes:
    """A model whose large initializers lie in a file that is not there."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > LARGE:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.bin")
    return model.SerializeToString()


def assert_nothing_found(originals: dict[str, bytes], folder: Path, **bounds: float) -> None:
    folder.mkdir()
    findings, answers = search(originals, folder, seed=SEED, **bounds)
    for finding in findings:
        name = f"{finding.original}-{finding.seed.replace(':', '-')}.onnx"
        (folder.parent / name).write_bytes(finding.model)
        print(f"{folder.parent / name}: {finding}")
    print(dict(answers))
    assert findings == []
    assert min(answers["ok"], answers["refused"]) > 0.1 * answers.total()  # neither all harmless nor all broken


def test_damaged_models_are_rewritten_or_refused(originals: dict[str, bytes], tmp_path: Path) -> None:
    assert_nothing_found(originals, tmp_path / "worker", count=200, seconds=SECONDS / 2)


def test_damaged_encoder_is_rewritten_or_refused(minilm_l6: Path, tmp_path: Path) -> None:
    models = {"minilm": without_weights(minilm_l6)}
    assert_nothing_found(models, tmp_path / "worker", count=10, seconds=SECONDS / 2)


def test_damage_is_the_same_for_the_same_seed(originals: dict[str, bytes]) -> None:
    for original in originals.values():
        assert damaged(original, random.Random("1:2")) == damaged(original, random.Random("1:2"))
        assert damaged(original, random.Random("1:2")) != damaged(original, random.Random("1:3"))
