"""From a rewritten model to a project."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DIGITS

from aie.conftest import Rewrite
from aie.made_up_node import save_model
from hccs_onnx import workflow
from hccs_onnx.aie import manifest
from hccs_onnx.aie.devices import device
from hccs_onnx.aie.model_estimate import estimate_model
from hccs_onnx.aie.project import write_project
from hccs_onnx.aie.vectors import from_text
from hccs_onnx.errors import CodegenError
from hccs_onnx.reference import hccs

SHAPES = {"pixels": (1, 64)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_vectors_are_what_the_model_computes_on_the_data(digits: Rewrite, tmp_path: Path) -> None:
    data = [{"pixels": np.load(DIGITS / "test.npz")["pixels"][:1]}]
    report = write_project(digits(), tmp_path / "aie", "vek385", data=data, tiles=2)
    project = report.nodes[0]
    plan = project.plan
    for tile, place in enumerate(plan.tiles):
        folder = tmp_path / "aie" / project.folder / "data"
        shape = (plan.iterations, plan.slots, plan.rows, plan.work.columns)
        x = from_text((folder / f"x_{tile}.txt").read_text(), "uint8").astype(np.int8).reshape(shape)
        golden = from_text((folder / f"golden_{tile}.txt").read_text(), "uint8").reshape(shape)
        for number, slot in enumerate(place.slots):
            head = project.node.params.heads[slot.head]
            codes = x[:, number, :, : plan.work.n]
            assert np.ptp(codes.astype(int)) > 10
            y = hccs(codes, np.uint8, B=[head.B], S=[head.S], Dmax=[head.Dmax], reciprocal="norm")
            np.testing.assert_array_equal(golden[:, number, :, : plan.work.n], y)
            assert not golden[:, number, :, plan.work.n :].any()


def test_project_is_the_same_bytes_again_and_replaces_itself(digits: Rewrite, tmp_path: Path) -> None:
    first = contents(write_project(digits(), tmp_path / "a", "vek280", shapes=SHAPES).folder)
    second = contents(write_project(digits(), tmp_path / "b", "vek280", shapes=SHAPES).folder)
    assert first == second
    assert contents(write_project(digits(), tmp_path / "a", "vek280", shapes=SHAPES).folder) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_manifest_is_valid_and_lists_every_file(digits: Rewrite, tmp_path: Path) -> None:
    folder = write_project(digits(), tmp_path / "aie", "vek280", shapes=SHAPES).folder
    written = manifest.read(folder)
    assert set(written.files) == set(contents(folder)) - {"manifest.json"}
    assert written.changed(folder) == []
    content = json.loads((folder / "manifest.json").read_text())
    assert content["nodes"][0]["shape"] == [1, 4, 16, 16]
    assert [len(node["heads"]) for node in content["nodes"]] == [4, 4]
    assert [node["estimate"]["kind"] for node in content["nodes"]] == ["modelled", "modelled"]
    content["nodes"][0]["heads"][0]["B"] = 0
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CodegenError, match="Write the project again"):
        manifest.read(folder)


def test_fewer_tiles_with_wider_ports_are_taken_where_that_is_faster(tmp_path: Path) -> None:
    """3072 rows of 128 codes: 96 tiles could have one for every 32, but only with ports of 64 bits, half as fast."""
    save_model(tmp_path / "m.onnx")
    options = {"target": "vek280", "shapes": {"x": (2, 12, 128, 128)}}
    (chosen,) = write_project(tmp_path / "m.onnx", tmp_path / "chosen", **options).nodes  # type: ignore[arg-type]
    (told,) = write_project(tmp_path / "m.onnx", tmp_path / "told", **options, tiles=96).nodes  # type: ignore[arg-type]
    assert (len(told.plan.tiles), told.plan.port_bits) == (96, 64)
    assert (len(chosen.plan.tiles) <= 84, chosen.plan.port_bits) == (True, 128)
    assert chosen.estimate and told.estimate and chosen.estimate.microseconds < 0.8 * told.estimate.microseconds
    assert "PL_FREQ_MHZ ?= 312.5" in (tmp_path / "told" / "Makefile").read_text()


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (("a", "a", ""), ["y_0", "y_1", "y_2"]),
        (("a", "", "b"), ["a", "y_1", "b"]),
        (("y_1", "", "b"), ["y_0", "y_1", "y_2"]),
    ],
)
def test_no_node_is_lost_where_names_are_missing_or_the_same(
    tmp_path: Path, names: tuple[str, ...], called: list[str]
) -> None:
    save_model(tmp_path / "m.onnx", names=names)
    report = write_project(tmp_path / "m.onnx", tmp_path / "aie", "vek280", shapes={"x": (1, 12, 8, 8)})
    assert [(project.node.name, project.node.y) for project in report.nodes] == list(
        zip(called, ["y_0", "y_1", "y_2"], strict=True)
    )
    estimates = estimate_model(tmp_path / "m.onnx", device("vek280"), shapes={"x": (1, 12, 8, 8)})
    assert [item.node for item in estimates] == called


def test_node_that_is_named_twice_is_written_once_in_graph_order(tmp_path: Path) -> None:
    save_model(tmp_path / "m.onnx", names=("a", "b", "c"))
    options = {"target": "vek280", "shapes": {"x": (1, 12, 8, 8)}, "nodes": ["c", "a", "c"]}
    report = write_project(tmp_path / "m.onnx", tmp_path / "aie", **options)  # type: ignore[arg-type]
    assert [project.folder for project in report.nodes] == ["00_a", "01_c"]


def test_nodes_in_bodies_are_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_model(tmp_path / "m.onnx", names=("a", "b"))
    model = onnx.load(tmp_path / "m.onnx")
    inner = model.graph.node.pop()
    value = onnx.helper.make_tensor_value_info(inner.output[0], onnx.TensorProto.UINT8, None)
    body = onnx.helper.make_graph([inner], "body", [], [value])
    model.graph.input.append(onnx.helper.make_tensor_value_info("which", onnx.TensorProto.BOOL, []))
    model.graph.node.append(
        onnx.helper.make_node("If", ["which"], ["y_1"], then_branch=body, else_branch=body, name="if")
    )
    onnx.save(model, tmp_path / "m.onnx")
    report = write_project(tmp_path / "m.onnx", tmp_path / "aie", "vek280", shapes={"x": (1, 12, 8, 8)})
    assert [project.node.name for project in report.nodes] == ["a"]
    assert "2 HCCS nodes in bodies of If, Loop or Scan are left out" in caplog.text


@pytest.mark.parametrize("axis", [-5, 3, 4])
def test_heads_along_no_axis_before_the_last_are_refused(tmp_path: Path, axis: int) -> None:
    save_model(tmp_path / "m.onnx", heads=12, head_axis=axis)
    with pytest.raises(CodegenError, match=rf"node 'attention': head_axis {axis} is no axis before the last"):
        write_project(tmp_path / "m.onnx", tmp_path / "aie", "vek280", shapes={"x": (1, 12, 12, 12)})


def test_node_without_rows_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    for axis, size in enumerate((0, 12, 8, 8)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(CodegenError, match=r"node 'attention': has no rows"):
        write_project(tmp_path / "m.onnx", tmp_path / "aie", "vek280")


@pytest.mark.parametrize("present", ["notes.txt", "manifest.json"])
def test_folder_that_is_not_a_project_is_left_alone(digits: Rewrite, tmp_path: Path, present: str) -> None:
    folder = tmp_path / "aie"
    folder.mkdir()
    (folder / present).write_text("{}")
    with pytest.raises(CodegenError):
        write_project(digits(), folder, "vek280", shapes=SHAPES)
    assert contents(folder) == {present: b"{}"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": None}, "shape is not static (input 'pixels' is [batch, 64]). Bind it, as in --shape pixels=1,64"),
        ({"shapes": {"image": (1, 64)}}, "--shape image: is no input of the model (needs one of pixels)."),
        ({"shapes": {"pixels": (1, 65)}}, "--shape pixels: does not fit the input"),
        ({"target": "vek281"}, "vek281"),
        ({"tiles": 1000}, "--tiles out of range (1000, needs 1.."),
        ({"nodes": ["nothing"]}, "nothing"),
        ({"kernel": "other"}, "--kernel: unknown (other, needs one of fast, reference)."),
    ],
)
def test_codegen_says_what_is_wrong(digits: Rewrite, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    options = {"target": "vek280", "shapes": SHAPES, **changes}
    with pytest.raises(CodegenError) as caught:
        write_project(digits(), tmp_path / "aie", **options)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert not (tmp_path / "aie").exists()


def test_codegen_refuses_float_attention_with_the_way_to_integers(tmp_path: Path) -> None:
    model = workflow.rewrite(DIGITS / "digits_torchscript.onnx", tmp_path / "float.onnx").output
    with pytest.raises(CodegenError, match="--to uint8"):
        write_project(model, tmp_path / "aie", "vek280", shapes=SHAPES)


def test_codegen_refuses_a_model_without_hccs(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="HCCS"):
        write_project(DIGITS / "digits_torchscript.onnx", tmp_path / "aie", "vek280", shapes=SHAPES)
