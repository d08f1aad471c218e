"""Models that onnx's shape inference would crash on, or never end with: rewritten without it, or refused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from graph.models import build, nodes

from hccs_onnx import HccsError, workflow
from hccs_onnx.graph.soundness import MAX_DEPTH, why_unsound

ATTENTION = """g (float[b,2,n,4] q, float[b,2,n,4] k, float[b,2,n,4] v) => (float[b,2,n,4] y)
    { kt = Transpose <perm = [0, 1, 3, 2]> (k) l = MatMul (q, kt) p = Softmax <axis = -1> (l) w = MatMul (p, v)
      y = f.f0 (w) }"""


def calling(*bodies: str) -> onnx.ModelProto:
    """Attention before a call of function f0; bodies of f0, f1, ... turn a into b."""
    functions = [
        f'<domain: "f", opset_import: ["": 17, "f": 1]> f{index} (a) => (b) {{ {body} }}'
        for index, body in enumerate(bodies)
    ]
    return build(ATTENTION, domains=', "f": 1', functions=" ".join(functions))


def rewritten(model: onnx.ModelProto, folder: Path) -> int:
    onnx.save(model, folder / "model.onnx")
    return len(workflow.rewrite(folder / "model.onnx").rewritten)


def test_model_with_functions_is_sound() -> None:
    assert why_unsound(calling("c = f.f1 (a) b = f.f1 (c)", "b = Neg (a)")) is None


def test_functions_that_double_at_every_level_are_not_gone_into(tmp_path: Path) -> None:
    model = calling(*(f"c = f.f{index} (a) b = f.f{index} (c)" for index in range(1, 41)), "b = Neg (a)")
    assert why_unsound(model) == "its functions call each other too often or too deeply"
    assert rewritten(model, tmp_path) == 1


def test_functions_that_call_each_other_deeply_are_not_gone_into(tmp_path: Path) -> None:
    levels = (f"b = f.f{index} (a)" for index in range(1, MAX_DEPTH + 1))
    model = calling(*levels, "b = Neg (a)")
    assert why_unsound(model) == "its functions call each other too often or too deeply"
    assert rewritten(model, tmp_path) == 1


def test_function_that_calls_another_of_its_name_is_sound() -> None:
    model = calling("b = f.f0 (a)", "b = Neg (a)")
    model.functions[0].node[0].overload = "inner"
    model.functions[1].name, model.functions[1].overload = "f0", "inner"
    assert why_unsound(model) is None


@pytest.mark.parametrize("bodies", [["b = f.f0 (a)"], ["b = f.f1 (a)", "b = f.f0 (a)"]], ids=["itself", "each_other"])
def test_function_that_calls_itself_is_refused(tmp_path: Path, bodies: list[str]) -> None:
    model = calling(*bodies)
    assert why_unsound(model) == "a function calls itself"
    with pytest.raises(HccsError, match="calls itself"):
        rewritten(model, tmp_path)


PLAIN = """g (float[b,2,n,4] q, float[b,2,n,4] k, float[b,2,n,4] v) => (float[b,2,n,4] y)
    { kt = Transpose <perm = [0, 1, 3, 2]> (k) l = MatMul (q, kt) p = Softmax <axis = -1> (l) y = MatMul (p, v)
      z = Reshape (y, shape) %s }"""


@pytest.mark.parametrize("change", ["shorter", "longer", "dims", "negative"])
def test_tensor_of_another_size_than_its_shape_is_not_inferred_from(tmp_path: Path, change: str) -> None:
    # onnx before 1.18 reads beyond the end of a Reshape's shape.
    model = build(PLAIN % "", {"shape": [0, 0, -1]})
    assert why_unsound(model) is None
    tensor = model.graph.initializer[0]
    if change in ("shorter", "longer"):
        tensor.raw_data = tensor.raw_data[:-1] if change == "shorter" else tensor.raw_data + b"\0"
    else:
        tensor.dims[0] = 4 if change == "dims" else -3
    assert why_unsound(model) == "tensor 'shape' holds other than its shape says"
    onnx.save(model, tmp_path / "model.onnx")
    assert [item.reason for item in workflow.inspect(tmp_path / "model.onnx")] != []


@pytest.mark.parametrize(
    ("line", "operator"),
    [("s = Scan (z)", "Scan"), ("s = Loop (z)", "Loop"), ("s = If (z)", "If"), ("s = Scan <body = 3> (z)", "Scan")],
)
def test_control_flow_without_its_graphs_is_not_inferred_from(tmp_path: Path, line: str, operator: str) -> None:
    # onnx before 1.18 reads attributes of Scan that are not there.
    model = build(PLAIN % line, {"shape": [0, 0, -1]})
    assert why_unsound(model) == f"{operator} '{nodes(model, operator)[0].name}' lacks an attribute"
    onnx.save(model, tmp_path / "model.onnx")
    assert len(workflow.inspect(tmp_path / "model.onnx")) == 1
