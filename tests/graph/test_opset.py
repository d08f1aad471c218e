"""Raising a model from opset 11 to 12."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from conftest import Run
from graph.models import build, copied, nodes
from onnx import helper, numpy_helper

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.opset import default_opset, raise_opset

IDENTITY = "g (float[n] x) => (float[n] y) { y = Identity (x) }"


@pytest.mark.parametrize("opset", [12, 13, 17, 20])
def test_model_stays_as_it_is_when_its_opset_is_new_enough(opset: int) -> None:
    model = build(IDENTITY, opset=opset)
    before = model.SerializeToString(deterministic=True)
    assert raise_opset(model) == opset
    assert model.SerializeToString(deterministic=True) == before


def test_opset_11_becomes_12_and_other_domains_stay() -> None:
    model = build(IDENTITY, opset=11, domains=', "ai.onnx.ml": 2, "custom": 11')
    assert raise_opset(model) == 12
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 12, "ai.onnx.ml": 2, "custom": 11}


def test_opset_under_its_other_name_is_raised_too() -> None:
    model = build(IDENTITY, opset=11)
    model.opset_import[0].domain = "ai.onnx"
    assert default_opset(model) == 11
    assert raise_opset(model) == 12
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("ai.onnx", 12)]


@pytest.mark.parametrize("opset", [7, 10])
def test_opset_below_11_is_refused_with_a_remedy(opset: int) -> None:
    model = build(IDENTITY, opset=opset)
    with pytest.raises(ModelError, match=rf"^graph 'g': opset is too old \({opset}, needs >= 11\)\. Convert it with"):
        raise_opset(model)


def test_model_without_the_default_domain_has_opset_0() -> None:
    model = onnx.ModelProto(opset_import=[helper.make_opsetid("custom", 3)])
    assert default_opset(model) == 0


DROPOUTS = """g (float[2,3] x, bool flag) => (float[2,3] y, float[2,3] z) {
    a = Dropout <ratio = 0.25> (x) y = Dropout (a) dropout_ratio, mask = Dropout <ratio = 0.75> (x)
    z = If (flag) <then_branch = p () => (float[2,3] u) { u = Dropout <ratio = 0.125> (dropout_ratio) },
                   else_branch = q () => (float[2,3] v) { v = Neg (x) }> }"""


def test_dropout_ratio_becomes_an_input_also_in_branches(run: Run) -> None:
    model = build(DROPOUTS, opset=11)
    raised = copied(model)
    raise_opset(raised)
    onnx.checker.check_model(raised, full_check=True)
    values = {tensor.name: float(numpy_helper.to_array(tensor)) for tensor in raised.graph.initializer}
    inner = nodes(raised, "If")[0].attribute[0].g.node[0]
    assert [[values[name] for name in node.input[1:]] for node in (*nodes(raised, "Dropout"), inner)] == [
        [0.25], [], [0.75], [0.125],
    ]  # fmt: skip
    assert "dropout_ratio" not in values
    feed = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "flag": np.array(True)}
    for before, after in zip(run(model, feed), run(raised, feed), strict=True):
        np.testing.assert_array_equal(before, after)


def test_dropout_of_another_domain_is_left_alone() -> None:
    model = build("g (float[n] x) => (y) { y = custom.Dropout <ratio = 0.5> (x) }", opset=11, domains=', "custom": 1')
    raise_opset(model)
    assert [attribute.name for attribute in model.graph.node[0].attribute] == ["ratio"]


def test_dropout_in_a_function_of_opset_11_still_runs(run: Run) -> None:
    # onnxruntime reads functions by the opset of the model, whatever they import.
    text = "g (float[n] x) => (float[n] y) { y = local.drop (x) }"
    function = '<domain: "local", opset_import: ["": 11]> drop (a) => (b) { b = Dropout <ratio = 0.5> (a) }'
    model = build(text, opset=11, domains=', "local": 1', functions=function)
    raised = copied(model)
    raise_opset(raised)
    feed = {"x": np.arange(3, dtype=np.float32)}
    np.testing.assert_array_equal(run(raised, feed)[0], run(model, feed)[0])


def changed_between_11_and_12() -> dict[str, tuple[onnx.defs.OpSchema, onnx.defs.OpSchema]]:
    """Default-domain operators whose schema of opset 12 is not that of opset 11."""
    versions: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= 12:
            versions.setdefault(schema.name, []).append(schema)
    pairs = {}
    for name, schemas in versions.items():
        *older, newest = sorted(schemas, key=lambda schema: schema.since_version)
        if newest.since_version == 12 and older:
            pairs[name] = (older[-1], newest)
    return pairs


def accepts(older: onnx.defs.OpSchema, newer: onnx.defs.OpSchema) -> bool:
    """Whether every node of the older schema means the same in the newer."""
    if newer.deprecated:
        return False
    for name, old in older.attributes.items():
        new = newer.attributes.get(name)
        if new is None or new.type != old.type or (new.required and not old.required):
            return False
        if new.default_value.SerializeToString() != old.default_value.SerializeToString():
            return False
    if any(new.required and name not in older.attributes for name, new in newer.attributes.items()):
        return False
    for side in ("inputs", "outputs"):
        before, after = getattr(older, side), getattr(newer, side)
        if [(p.name, p.option) for p in before] != [(p.name, p.option) for p in after[: len(before)]]:
            return False
        if any(p.option == onnx.defs.OpSchema.FormalParameterOption.Single for p in after[len(before) :]):
            return False
        for old_parameter, new_parameter in zip(before, after, strict=False):
            if not old_parameter.types <= new_parameter.types:
                return False
    return True


def test_dropout_alone_changed_from_opset_11_to_12_in_a_way_that_a_model_notices() -> None:
    pairs = changed_between_11_and_12()
    assert {"Clip", "Constant", "GatherND", "MaxPool", "Pow", "ReduceMax"} <= set(pairs)
    assert {name for name, (older, newer) in pairs.items() if not accepts(older, newer)} == {"Dropout"}


def test_operators_whose_inputs_changed_later_are_told_apart() -> None:
    older = onnx.defs.get_schema("Squeeze", 12)
    assert not accepts(older, onnx.defs.get_schema("Squeeze", 13))
    assert accepts(older, older)
