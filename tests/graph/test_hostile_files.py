"""Model files that lie about their data, or have none: refused, or read where they make sense, and never waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DIGITS, ROOT
from graph.models import Attention, build
from graph.test_external_data import contents, refer, saved
from onnx import TensorProto, numpy_helper

from hccs_onnx import workflow
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.external import byte_size, external_locations, with_external_data
from hccs_onnx.graph.files import read_model

PATIENCE = 120.0  # seconds; what hangs would hang for ever


def changed(path: Path, **entries: str) -> Path:
    """The model with other entries (location, offset, length) of the first external tensor."""
    model = onnx.load(path, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL)
    for entry in tensor.external_data:
        entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    return path


def in_a_child(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hccs_onnx", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


# places


@pytest.mark.parametrize(
    "location",
    ["..", "../w.bin", "a/../../w.bin", "/w.bin", "//host/w.bin", "..\\w.bin", "a\\..\\..\\w.bin", "\\w.bin",
     "C:\\w.bin", "C:w.bin", "C:/w.bin", "\\\\host\\share\\w.bin", "w.bin\0"],
)  # fmt: skip
def test_location_that_leads_out_is_refused_whatever_system_it_is_written_for(tmp_path: Path, location: str) -> None:
    source = changed(saved(tmp_path / "model.onnx"), location=location)
    before = contents(tmp_path)
    for step in (workflow.inspect, workflow.rewrite):
        with pytest.raises(ModelError, match="leads out of the model's folder"):
            step(source)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("location", ["a.b.bin", "a..b", "...", "ab:c.bin", "w (1).bin", "ü.bin", "a/./w.bin", "a\nb"])
def test_location_inside_the_folder_is_read_whatever_its_name(tmp_path: Path, location: str) -> None:
    assert len(workflow.rewrite(saved(tmp_path / "model.onnx", location)).rewritten) == 1


def test_location_is_read_when_it_is_no_text(tmp_path: Path) -> None:
    source = saved(tmp_path / "model.onnx", "w?.bin")
    source.write_bytes(source.read_bytes().replace(b"w?.bin", b"w\xff.bin"))
    (tmp_path / "w?.bin").rename(os.fsdecode(os.fsencode(tmp_path / "w") + b"\xff.bin"))
    (tmp_path / "there").mkdir()
    workflow.rewrite(source, tmp_path / "there" / "new.onnx")
    assert {os.fsencode(path.name) for path in (tmp_path / "there").iterdir()} == {b"new.onnx", b"w\xff.bin"}


def test_location_in_a_function_is_refused_when_it_leads_out(tmp_path: Path) -> None:
    call = """g (float[2] x) => (float[2] y) { y = f.shift (x) }"""
    shift = """<domain: "f", opset_import: ["": 17]> shift (a) => (b) {
        c = Constant <value = float[1] {2.0}> () b = Add (a, c) }"""
    model = build(call, domains=', "f": 1', functions=shift)
    refer(model.functions[0].node[0].attribute[0].t, "../w.bin", 0, 4)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'\.\./w\.bin': leads out"):
        read_model(tmp_path / "model.onnx")


def test_external_locations_include_those_of_sparse_tensors() -> None:
    model = build("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    refer(model.graph.sparse_initializer.add().values, "sparse.bin", 0, 4)
    sparse = model.graph.node[0].attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor
    refer(sparse.indices, "indices.bin", 0, 8)
    assert external_locations(model) == ["indices.bin", "sparse.bin"]


def test_linked_data_is_copied_as_a_file(tmp_path: Path) -> None:
    # As in a Hugging Face cache: model and data are links to ../blobs.
    blobs, snapshot, there = (tmp_path / name for name in ("blobs", "snapshot", "there"))
    for folder in (blobs, snapshot, there):
        folder.mkdir()
    saved(blobs / "model.onnx")
    for name in ("model.onnx", "weights.bin"):
        (snapshot / name).symlink_to(Path("..") / "blobs" / name)
    before = contents(blobs)
    workflow.rewrite(snapshot / "model.onnx", there / "new.onnx")
    assert (there / "weights.bin").read_bytes() == before["weights.bin"]
    assert not (there / "weights.bin").is_symlink()
    assert contents(blobs) == before


def test_link_is_replaced_not_followed_when_it_is_the_output(tmp_path: Path) -> None:
    source = saved(tmp_path / "model.onnx")
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "new.onnx").symlink_to(precious)
    (tmp_path / "out" / "weights.bin").symlink_to(tmp_path / "nowhere")
    workflow.rewrite(source, tmp_path / "out" / "new.onnx")
    assert precious.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("dangling", [False, True])
def test_data_is_not_written_through_a_link_out_of_the_outputs_folder(tmp_path: Path, dangling: bool) -> None:
    source = saved(tmp_path / "model.onnx", "data/weights.bin")
    outside, there = tmp_path / "outside", tmp_path / "there"
    there.mkdir()
    if not dangling:
        outside.mkdir()
    (there / "data").symlink_to(outside)
    with pytest.raises(ModelError, match=r"weights\.bin: lies behind a link out of the output's folder"):
        workflow.rewrite(source, there / "new.onnx")
    assert [path.name for path in there.iterdir()] == ["data"]
    assert dangling or list(outside.iterdir()) == []


# no files


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("command", ["inspect", "rewrite"])
def test_pipe_is_refused_not_waited_for_when_it_is_the_model(tmp_path: Path, command: str) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    result = in_a_child(command, str(tmp_path / "model.onnx"))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "model.onnx: is a device or pipe, not a file" in result.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_refused_not_waited_for_when_it_is_the_data(tmp_path: Path) -> None:
    source = saved(tmp_path / "model.onnx")
    (tmp_path / "weights.bin").unlink()
    os.mkfifo(tmp_path / "weights.bin")
    result = in_a_child("rewrite", str(source))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "external data 'weights.bin': is a folder, device or pipe" in result.stderr


@pytest.mark.parametrize("location", ["", ".", "folder"])
def test_folder_is_refused_when_it_is_the_data(tmp_path: Path, location: str) -> None:
    source = changed(saved(tmp_path / "model.onnx"), location=location)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="is a folder, device or pipe, not a file"):
        workflow.inspect(source)


# sizes


def external(dims: list[int], data_type: int = TensorProto.FLOAT, **entries: object) -> TensorProto:
    tensor = TensorProto(name="w", dims=dims, data_type=data_type, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w.bin", **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


@pytest.fixture
def data(tmp_path: Path) -> np.ndarray:
    values = np.arange(12, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(values.tobytes())
    return values


@pytest.mark.parametrize(
    ("dims", "entries", "start"),
    [([12], {}, 0), ([3, 4], {"offset": 0, "length": 48}, 0), ([2], {"offset": 40}, 10), ([0], {"offset": 48}, 12)],
)  # fmt: skip
def test_external_tensor_is_read_when_it_lies_in_its_file(
    tmp_path: Path, data: np.ndarray, dims: list[int], entries: dict[str, object], start: int
) -> None:
    loaded = numpy_helper.to_array(with_external_data(external(dims, **entries), tmp_path))
    np.testing.assert_array_equal(loaded, data[start : start + int(np.prod(dims))].reshape(dims))


@pytest.mark.parametrize(
    ("dims", "entries"),
    [
        ([12], {"offset": -4}), ([12], {"offset": 4}), ([1], {"offset": 2**70}), ([1], {"offset": "1e3"}),
        ([1], {"offset": ""}), ([12], {"length": -1}), ([12], {"length": 2**62}), ([12], {"length": 44}),
        ([12], {"length": "all"}), ([13], {}), ([-1], {}), ([-3, -4], {}), ([2**32, 2**32], {}),
        ([2**62, 4], {"length": 0}),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("data")
def test_external_tensor_is_not_read_when_it_does_not_lie_in_its_file(
    tmp_path: Path, dims: list[int], entries: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"external data of 'w'|tensor 'w' has no size|invalid literal"):
        with_external_data(external(dims, **entries), tmp_path)


@pytest.mark.parametrize("dims", [[2**32, 2**32], [2**62, 4], [-1], [2**63 - 1], [-(2**63), 2]])
@pytest.mark.parametrize("entries", [{}, {"offset": "-1"}, {"length": "x"}, {"offset": str(2**70)}])
def test_attention_is_rewritten_when_another_weight_is_absurd(
    tmp_path: Path, dims: list[int], entries: dict[str, str]
) -> None:
    model = Attention().model()
    model.graph.initializer.append(external(dims, **entries))
    (tmp_path / "w.bin").write_bytes(bytes(48))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert len(workflow.rewrite(tmp_path / "model.onnx").rewritten) == 1


@pytest.mark.parametrize(
    ("data_type", "size"),
    [("FLOAT", 28), ("DOUBLE", 56), ("BOOL", 7), ("INT8", 7), ("UINT16", 14), ("INT64", 56), ("BFLOAT16", 14),
     ("FLOAT16", 14), ("COMPLEX64", 56), ("COMPLEX128", 112), ("FLOAT8E4M3FN", 7), ("INT4", 4)],
)  # fmt: skip
def test_byte_size_of_seven_elements_is_that_of_packed_data(data_type: str, size: int) -> None:
    assert byte_size(TensorProto(dims=[7], data_type=TensorProto.DataType.Value(data_type))) == size


@pytest.mark.parametrize("data_type", [TensorProto.STRING, TensorProto.UNDEFINED])
def test_byte_size_is_refused_when_elements_have_none(data_type: int) -> None:
    with pytest.raises(ValueError, match="has no size"):
        byte_size(TensorProto(dims=[7], data_type=data_type))


def test_name_that_is_no_text_is_refused_where_it_would_be_written(tmp_path: Path) -> None:
    # The scale of the keys is taken out, so that what it read comes to be read by the product.
    model = build(
        """g (float[b,2,n,4] x, float[b,2,4,n] k) => (float[b,2,n,4] y) { s = Mul (k_, c) l = MatMul (x, s)
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }""",
        {"c": np.float32(0.5)},
    )
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString().replace(b"k_", b"k\xff"))
    with pytest.raises(ModelError, match="a name is no text"):
        workflow.rewrite(tmp_path / "model.onnx")


def test_name_that_is_no_text_is_refused_when_protobuf_has_no_extension(tmp_path: Path) -> None:
    data = DIGITS.joinpath("digits_dynamo.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(data.replace(b"view", b"\xbeiew", 1))
    environment = os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    command = [sys.executable, "-m", "hccs_onnx", "inspect", str(tmp_path / "m.onnx")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    problem = "is not an ONNX file, or is truncated. Export or copy the model again."
    assert done.stderr == f"error: {tmp_path / 'm.onnx'}: {problem}\n"
