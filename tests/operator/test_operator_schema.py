from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from operator_models import PROFILES, hccs_model

from hccs_onnx.errors import ParameterError
from hccs_onnx.operator.schema import (
    ATTRIBUTES,
    DOMAIN,
    OP_TYPE,
    VERSION,
    is_hccs,
    make_node,
    op_schema,
    read_attributes,
)
from hccs_onnx.params import DATA_FREE, HccsParams, HeadParams

FIRST, SECOND = HeadParams(300, 2, 100, 0.5), HeadParams(16259, 127, 127, 0.25)


@pytest.mark.parametrize(
    "params",
    [
        HccsParams((FIRST,)),
        HccsParams((FIRST, SECOND), head_axis=1, reciprocal="clb", masked=True, mask_gap=32.5),
        HccsParams((HeadParams(1, 0, 1, 2.0**-149), HeadParams(32767, 127, 127, 2.0**127)), reciprocal="div"),
    ],
    ids=["defaults", "all changed", "extremes"],
)
def test_node_gives_back_the_parameters_it_was_made_from(params: HccsParams) -> None:
    node = make_node(params, "x", "zero", "y", name="attention")
    assert read_attributes(onnx.NodeProto.FromString(node.SerializeToString())) == params


def test_node_has_all_attributes_and_the_names_given() -> None:
    node = make_node(HccsParams((FIRST,)), "x", "zero", "y", name="attention")
    assert {attribute.name for attribute in node.attribute} == set(ATTRIBUTES)
    assert (list(node.input), list(node.output), node.name) == (["x", "zero"], ["y"], "attention")
    assert (node.domain, node.op_type) == (DOMAIN, OP_TYPE)
    assert is_hccs(node)


@pytest.mark.parametrize(("op_type", "domain"), [("HCCS", ""), ("HCCS", "other"), ("Softmax", "hccs")])
def test_node_is_not_hccs_when_name_or_domain_differ(op_type: str, domain: str) -> None:
    assert not is_hccs(helper.make_node(op_type, ["x"], ["y"], domain=domain))


def test_node_lists_have_one_entry_when_all_heads_agree() -> None:
    assert read_attributes(make_node(HccsParams((FIRST,) * 3), "x", "zero", "y")).heads == (FIRST,)
    assert read_attributes(make_node(HccsParams((FIRST, FIRST, SECOND)), "x", "zero", "y")).heads == (
        FIRST,
        FIRST,
        SECOND,
    )


def test_node_holds_scale_and_mask_gap_rounded_to_float32() -> None:
    params = read_attributes(make_node(HccsParams((DATA_FREE,), mask_gap=0.1), "x", "zero", "y"))
    assert params.heads[0].scale == float(np.float32(3.3 / 127)) != 3.3 / 127
    assert params.mask_gap == float(np.float32(0.1)) != 0.1


def node_with(**attributes: object) -> onnx.NodeProto:
    return helper.make_node(OP_TYPE, ["x", "zero"], ["y"], name="sm", domain=DOMAIN, **attributes)


def test_attributes_have_the_defaults_of_the_specification_when_left_out() -> None:
    assert read_attributes(node_with(B=[300], S=[2], Dmax=[100])) == HccsParams(
        (HeadParams(300, 2, 100, 1.0),), head_axis=-3, reciprocal="norm", masked=False, mask_gap=64.0
    )


def test_short_lists_serve_all_heads() -> None:
    params = read_attributes(node_with(B=[300, 400, 500], S=[2], Dmax=[100], scale=[0.5, 0.25, 0.125]))
    assert params.heads == (HeadParams(300, 2, 100, 0.5), HeadParams(400, 2, 100, 0.25), HeadParams(500, 2, 100, 0.125))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "node 'sm': attribute B, S, Dmax is missing. Write B, S and Dmax."),
        ({"B": [300], "Dmax": [100]}, "node 'sm': attribute S is missing. Write B, S and Dmax."),
        (
            {"B": [300, 300], "S": [1, 2, 3], "Dmax": [100]},
            "node 'sm': attribute lists differ in length (B 2, S 3, Dmax 1, scale 1, needs 1 or 3 each).",
        ),
        (
            {"B": [300, 300], "S": [1], "Dmax": [100], "scale": [1.0, 1.0, 1.0]},
            "node 'sm': attribute lists differ in length (B 2, S 1, Dmax 1, scale 3, needs 1 or 3 each).",
        ),
    ],
)
def test_reading_fails_with_a_reason_when_lists_do_not_fit(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        read_attributes(node_with(**attributes))
    assert str(caught.value) == message


def test_reading_fails_when_a_list_is_empty() -> None:
    node = node_with(S=[2], Dmax=[100])
    node.attribute.append(helper.make_attribute("B", [], attr_type=onnx.AttributeProto.INTS))
    with pytest.raises(ParameterError, match="differ in length"):
        read_attributes(node)


@pytest.mark.parametrize(
    "changes",
    [{"B": 300}, {"B": 300.5}, {"scale": 0.5}, {"head_axis": [1]}, {"masked": "yes"}, {"mask_gap": [64.0]}],
    ids=str,
)
def test_reading_fails_with_a_reason_when_an_attribute_has_another_type(changes: dict[str, object]) -> None:
    node = node_with(**{"B": [300], "S": [2], "Dmax": [100], **changes})
    with pytest.raises(ParameterError, match="node 'sm': attribute"):
        read_attributes(node)


def test_schema_has_the_signature_of_the_specification() -> None:
    schema = op_schema()
    assert (schema.name, schema.domain, schema.since_version) == (OP_TYPE, DOMAIN, VERSION)
    assert [value.name for value in schema.inputs] == ["X", "y_zero_point"]
    assert [value.name for value in schema.outputs] == ["Y"]
    assert set(schema.attributes) == set(ATTRIBUTES)
    required = {name for name, attribute in schema.attributes.items() if attribute.required}
    assert required == {"B", "S", "Dmax"}
    for name in set(ATTRIBUTES) - required:
        default = helper.get_attribute_value(schema.attributes[name].default_value)
        expected = ATTRIBUTES[name]
        assert default == (expected.encode() if isinstance(expected, str) else pytest.approx(expected))


@pytest.fixture
def registered_schema():  # type: ignore[no-untyped-def]
    onnx.defs.register_schema(op_schema())
    yield
    onnx.defs.deregister_schema(OP_TYPE, VERSION, DOMAIN)


@pytest.mark.usefixtures("registered_schema")
@pytest.mark.parametrize(("output", "reciprocal"), PROFILES)
def test_schema_accepts_our_nodes_when_registered(output: str, reciprocal: str) -> None:
    assert onnx.defs.has(OP_TYPE, DOMAIN)
    params = HccsParams((FIRST, SECOND), reciprocal=reciprocal)  # type: ignore[arg-type]
    model = hccs_model(params, output, body=False)  # type: ignore[arg-type]
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.usefixtures("registered_schema")
def test_schema_refuses_nodes_without_slope_when_registered() -> None:
    model = hccs_model(HccsParams((FIRST,)), "uint8", body=False)
    (slope,) = (attribute for attribute in model.graph.node[0].attribute if attribute.name == "S")
    model.graph.node[0].attribute.remove(slope)
    with pytest.raises(onnx.checker.ValidationError, match="Required attribute 'S' is missing"):
        onnx.checker.check_model(model)


def test_schema_is_gone_after_deregistration() -> None:
    onnx.defs.register_schema(op_schema())
    onnx.defs.deregister_schema(OP_TYPE, VERSION, DOMAIN)
    assert not onnx.defs.has(OP_TYPE, DOMAIN)
