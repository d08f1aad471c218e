"""Models as exporters of torch, Keras and scikit-learn write them: attention found and rewritten, masks exact.

Needs torch, onnxscript and transformers, keras and skl2onnx for their models: `pip install -e ".[exporters]"`, then
`pytest -m slow tests/exporters`. Exporting takes most of the time; `HCCS_EXPORTED=FOLDER` takes what
`export_models.py FOLDER` has written, and writes what is missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import nodes, op_types, tapped
from onnx import helper

from hccs_onnx import inspect, reference, verify, workflow
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.files import read_model
from hccs_onnx.operator.schema import is_hccs, read_attributes
from hccs_onnx.params import DATA_FREE

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("transformers")

from exporters.export_models import EXPORTS, Export, export

pytestmark = pytest.mark.slow

LOGITS_MODE = 2  # of qk_matmul_output_mode: with mask and cap, just before the Softmax

NO_HEADS = {
    r"(modernbert|llama|qwen2|gemma2)-.*-torchscript": "heads are None: behind a rotary embedding (Add of two Mul), so "
    "that only the values or the output projection tell",
    r"sam_vision-eager-.*": "heads are None: q, k and v are a Gather of one Reshape to (3, batch*heads, n, d)",
    r"multihead-weights-torchscript": "heads are None: Reshape to (n, batch*heads, d) with a computed shape",
}
CANNOT_RUN = {
    r"llama-sdpa-fused": "onnxruntime 1.32 does not broadcast the batch of RotaryEmbedding's caches; torch leaves 1",
    r"multihead-sdpa-fused": "onnxruntime 1.32 does not broadcast the query axis of Attention's mask; torch leaves 1",
}


class Exported:
    """An exported model and its rewritten copy, each made when first asked for."""

    def __init__(self, item: Export, results: Path) -> None:
        self.item, self.results = item, results
        self.folder = Path(os.environ.get("HCCS_EXPORTED", results))

    @cached_property
    def path(self) -> Path:
        present = self.folder / f"{self.item.name}.onnx"
        return present if present.exists() else export(self.item, self.folder)

    @cached_property
    def found(self) -> list[AttentionSoftmax]:
        return inspect(self.path)

    @cached_property
    def rewritten(self) -> Path:
        return workflow.rewrite(self.path, self.results / f"{self.item.name}.hccs.onnx").output

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        with np.load(self.path.with_suffix(".npz")) as data:
            return dict(data)

    @property
    def feed(self) -> dict[str, np.ndarray]:
        return {name: value for name, value in self.samples.items() if not name.startswith("out_")}

    def original(self, run: Run) -> list[tuple[np.ndarray, np.ndarray]]:
        """Logits and probabilities of each attention, in the order of its nodes."""
        model = read_model(self.path)
        names = [pair for node in list(model.graph.node) if (pair := logits_and_probabilities(model, node))]
        results = run(tapped(model, *(name for pair in names for name in pair)), self.feed)[-2 * len(names) :]
        return list(zip(results[::2], results[1::2], strict=True))

    def replaced(self, run: Run) -> tuple[list[onnx.NodeProto], list[np.ndarray]]:
        """HCCS nodes of the rewritten model and their probabilities."""
        model = read_model(self.rewritten)
        found = [node for node in model.graph.node if is_hccs(node)]
        return found, run(tapped(model, *(node.output[0] for node in found)), self.feed)[-len(found) :]


def logits_and_probabilities(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[str, str] | None:
    """Tensors of an attention's Softmax; for an ONNX Attention they are made by a second and a third one."""
    if node.op_type == "Softmax":
        return node.input[0], node.output[0]
    if node.op_type != "Attention":
        return None
    names = []
    for what, mode in (("logits", LOGITS_MODE), ("probabilities", 3)):
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        names.append(f"{node.output[0]}_{what}")
        twin.name = names[-1]
        twin.output[:] = [f"{names[-1]}_y", "", "", names[-1]]
        kept = [attribute for attribute in node.attribute if attribute.name != "qk_matmul_output_mode"]
        del twin.attribute[:]
        twin.attribute.extend(kept)
        twin.attribute.append(helper.make_attribute("qk_matmul_output_mode", mode))
        model.graph.node.append(twin)
    return names[0], names[1]


def entries(problems: Mapping[str, str]) -> list[Any]:
    """All exports; those whose names match are expected to fail."""
    listed = []
    for item in EXPORTS:
        reason = next((reason for name, reason in problems.items() if re.fullmatch(name, item.name)), None)
        mark = pytest.mark.xfail(strict=True, reason=reason or "")
        listed.append(pytest.param(item, id=item.name, marks=[mark] if reason else []))
    return listed


@pytest.fixture(scope="session")
def made() -> dict[str, Exported]:
    """Those that a test has asked for."""
    return {}


@pytest.fixture
def exported(
    request: pytest.FixtureRequest, made: dict[str, Exported], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """The exported model of the test's parameter."""
    item: Export = request.param
    if item.exporter in ("keras", "skl2onnx"):
        pytest.importorskip(item.exporter)
    if item.name not in made:
        made[item.name] = Exported(item, tmp_path_factory.mktemp(item.name))
    return made[item.name]


def every(problems: Mapping[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("exported", entries(problems), indirect=True)


@every(CANNOT_RUN)
def test_exported_model_computes_what_torch_does(exported: Exported, run: Run) -> None:
    for index, output in enumerate(run(exported.path, exported.feed)):
        np.testing.assert_allclose(output, exported.samples[f"out_{index}"], rtol=1e-3, atol=1e-4)


@every({})
def test_inspect_finds_every_attention_and_nothing_else(exported: Exported) -> None:
    item, found = exported.item, exported.found
    assert [entry.reason for entry in found if entry.reason] == [] or item.others
    assert len([entry for entry in found if entry.reason is None]) == item.attentions
    assert len([entry for entry in found if entry.reason is not None]) == item.others


@every(NO_HEADS)
def test_inspect_knows_how_many_heads_there_are(exported: Exported) -> None:
    assert {entry.heads for entry in exported.found if entry.reason is None} == set(exported.item.heads)


@every({})
def test_rewrite_replaces_every_attention(exported: Exported) -> None:
    before, after = (op_types(read_model(path)) for path in (exported.path, exported.rewritten))
    assert after.count("HCCS") == exported.item.attentions
    assert after.count("Softmax") == exported.item.others
    assert "Attention" not in after
    assert before.count("Softmax") + before.count("Attention") == after.count("HCCS") + after.count("Softmax")


@every(CANNOT_RUN)
def test_masked_positions_get_no_probability_and_the_others_some(exported: Exported, run: Run) -> None:
    original, (_, replaced) = exported.original(run), exported.replaced(run)
    masked = 0
    for (_, p), y in zip(original, replaced, strict=True):
        hidden = ~(p > 1e-20)  # NaN, too: rows that are masked throughout
        np.testing.assert_array_equal(y.reshape(p.shape) == 0, hidden)
        masked += bool(hidden.any())
    assert masked == exported.item.masked


@every(CANNOT_RUN)
def test_probabilities_of_the_first_attention_equal_the_reference(exported: Exported, run: Run) -> None:
    logits = exported.original(run)[0][0]
    found, replaced = exported.replaced(run)
    head = DATA_FREE
    expected = reference.hccs(
        logits, np.float32, B=[head.B], S=[head.S], Dmax=[head.Dmax], scale=[head.scale],
        masked=read_attributes(found[0]).masked,
    )  # fmt: skip
    probabilities = replaced[0].reshape(expected.shape)
    assert np.ptp(expected[expected > 0]) > 0.1  # neither flat
    # Where a scale is absorbed, a gap may be rounded to the next code, rarely.
    assert np.isclose(probabilities, expected, rtol=0, atol=1e-6).mean() > 0.98
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=2 * head.S / head.B)


@every({name: CANNOT_RUN[name] for name in CANNOT_RUN if name.startswith("llama")})
def test_outputs_of_the_rewritten_model_stay_close(exported: Exported) -> None:
    result = verify(exported.path, exported.rewritten, [exported.feed])
    assert len(result.heads) >= exported.item.attentions
    assert all(np.isfinite(head.kl) for head in result.heads)
    for output in result.outputs:
        assert np.isfinite(output.max_difference)
        assert output.mean_cosine > 0.9


def test_every_kind_of_node_is_exported(made: dict[str, Exported]) -> None:
    """That `fused` exports hold ONNX Attention nodes, and only those; runs last, on what was exported above."""
    for exported in made.values():
        attention = nodes(read_model(exported.path), "Attention")
        assert bool(attention) == (exported.item.exporter == "fused")
