"""Models whose weights lie in files beside them: never loaded, copied only where the output lies elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT, Run
from graph.models import Attention, build, nodes
from onnx import TensorProto, helper

from hccs_onnx import workflow
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.external import external_locations
from hccs_onnx.graph.files import read_model

VARIANT = Attention(mask="where", scale="query", guard=True)
FEED = VARIANT.feed()


def saved(path: Path, location: str = "weights.bin") -> Path:
    """A model with all floats in an external file, also those of one element (onnxruntime wants shapes inside)."""
    (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
    model = VARIANT.model()
    with (path.parent / location).open("wb") as file:
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                refer(tensor, location, file.tell(), file.write(tensor.raw_data))
    onnx.save_model(model, path)
    return path


def refer(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Make a tensor external."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))


def relocate(tensor: TensorProto, location: str) -> None:
    """Give an external tensor another file."""
    next(entry for entry in tensor.external_data if entry.key == "location").value = location


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def file_identity(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written; not when it was last read."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@pytest.fixture
def target(run: Run, tmp_path: Path) -> np.ndarray:
    """What the rewritten model computes when its weights are not external."""
    folder = tmp_path / "embedded"
    folder.mkdir()
    onnx.save_model(VARIANT.model(), folder / "model.onnx")
    return run(workflow.rewrite(folder / "model.onnx").output, FEED)[0]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


def test_external_data_is_shared_when_the_output_lies_beside_the_model(
    here: Path, run: Run, target: np.ndarray
) -> None:
    source = saved(here / "model.onnx")
    before, identity = contents(here), file_identity(here / "weights.bin")
    output = workflow.rewrite(source).output
    after = contents(here)
    assert set(after) == {*before, "model.hccs.onnx"}
    assert {name: after[name] for name in before} == before
    assert file_identity(here / "weights.bin") == identity
    np.testing.assert_array_equal(run(output, FEED)[0], target)


def test_written_model_holds_no_copy_of_external_data(here: Path) -> None:
    # see test_view: onnx 1.16 would load them
    model = read_model(workflow.rewrite(saved(here / "model.onnx")).output)
    external = [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    assert [tensor.name for tensor in external] == ["w_q", "w_k", "w_v", "fill", "w_out"]
    assert [tensor.name for tensor in external if tensor.raw_data] == []


@pytest.mark.parametrize("location", ["weights.bin", "data/deep/weights.bin"])
def test_external_data_is_copied_when_the_output_lies_elsewhere(
    here: Path, there: Path, run: Run, target: np.ndarray, location: str
) -> None:
    source = saved(here / "model.onnx", location)
    before = contents(here)
    output = workflow.rewrite(source, there / "new.onnx").output
    assert contents(here) == before
    assert set(contents(there)) == {"new.onnx", location}
    assert (there / location).read_bytes() == before[location]
    np.testing.assert_array_equal(run(output, FEED)[0], target)


def test_external_data_is_not_copied_when_the_folder_is_the_same_by_another_path(here: Path, there: Path) -> None:
    source = saved(here / "model.onnx")
    (there / "link").symlink_to(here, target_is_directory=True)
    identity = file_identity(here / "weights.bin")
    workflow.rewrite(source, there / "link" / "new.onnx")
    assert set(contents(here)) == {"model.onnx", "weights.bin", "new.onnx"}
    assert file_identity(here / "weights.bin") == identity


def test_external_data_is_taken_as_it_is_when_the_same_file_is_there_already(
    here: Path, there: Path, run: Run, target: np.ndarray
) -> None:
    source = saved(here / "model.onnx")
    (there / "weights.bin").write_bytes((here / "weights.bin").read_bytes())
    identity = file_identity(there / "weights.bin")
    output = workflow.rewrite(source, there / "new.onnx").output
    assert file_identity(there / "weights.bin") == identity
    np.testing.assert_array_equal(run(output, FEED)[0], target)


@pytest.mark.parametrize("alike", [False, True])
def test_other_file_of_the_same_name_is_not_overwritten(here: Path, there: Path, alike: bool) -> None:
    source = saved(here / "model.onnx")
    data = here / "weights.bin"
    precious = bytes(data.stat().st_size) if alike else b"precious"
    (there / "weights.bin").write_bytes(precious)
    os.utime(there / "weights.bin", ns=(data.stat().st_atime_ns, data.stat().st_mtime_ns))
    with pytest.raises(ModelError, match=r"weights\.bin: holds other data than the model's external data\. Remove it"):
        workflow.rewrite(source, there / "new.onnx")
    assert contents(there) == {"weights.bin": precious}


def two_files(folder: Path) -> Path:
    """A model with tensors in a.bin and b.bin."""
    path = folder / "model.onnx"
    model = onnx.load(saved(path, "b.bin"), load_external_data=False)
    (folder / "a.bin").write_bytes((folder / "b.bin").read_bytes())
    relocate(model.graph.initializer[0], "a.bin")
    path.write_bytes(model.SerializeToString())
    return path


def test_all_files_of_a_model_are_copied(here: Path, there: Path, run: Run, target: np.ndarray) -> None:
    source = two_files(here)
    assert external_locations(read_model(source)) == ["a.bin", "b.bin"]
    output = workflow.rewrite(source, there / "new.onnx").output
    assert set(contents(there)) == {"new.onnx", "a.bin", "b.bin"}
    np.testing.assert_array_equal(run(output, FEED)[0], target)


def test_no_file_is_copied_when_one_of_several_is_in_the_way(here: Path, there: Path) -> None:
    source = two_files(here)
    (there / "b.bin").write_bytes(b"precious")
    with pytest.raises(ModelError, match=r"b\.bin: holds other data"):
        workflow.rewrite(source, there / "new.onnx")
    assert contents(there) == {"b.bin": b"precious"}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_output_that_is_the_external_data_is_refused(here: Path, there: Path, elsewhere: bool) -> None:
    # Beside the model the weights would be lost.
    source = saved(here / "model.onnx")
    before = contents(here)
    with pytest.raises(ModelError, match=r"weights\.bin: "):
        workflow.rewrite(source, (there if elsewhere else here) / "weights.bin")
    assert contents(here) == before
    assert contents(there) == {}


def test_output_that_is_the_external_data_in_a_nested_folder_is_refused(here: Path) -> None:
    source = saved(here / "model.onnx", "data/weights.bin")
    before = contents(here)
    with pytest.raises(ModelError, match=r"weights\.bin: "):
        workflow.rewrite(source, here / "data" / "weights.bin")
    assert contents(here) == before


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("kind", ["parent", "absolute", "deep"])
def test_external_data_outside_of_the_models_folder_is_refused(
    here: Path, there: Path, kind: str, elsewhere: bool
) -> None:
    source = saved(here / "model.onnx")
    (here / "weights.bin").rename(here.parent / "weights.bin")
    location = {
        "parent": "../weights.bin",
        "absolute": str(here.parent / "weights.bin"),
        "deep": "data/../../weights.bin",
    }[kind]
    model = onnx.load(source, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            relocate(tensor, location)
    source.write_bytes(model.SerializeToString())
    before = contents(here)
    with pytest.raises(ModelError, match=r"leads out of the model's folder\. Move it inside"):
        workflow.rewrite(source, (there if elsewhere else here) / "new.onnx")
    assert contents(there) == {}
    assert contents(here) == before


def test_missing_external_data_is_named_when_it_has_to_be_copied(here: Path, there: Path) -> None:
    text = """g (float[b,n,8] x) => (float[b,n,8] y) { q = MatMul (x, w) k = Transpose <perm = [0, 2, 1]> (x)
        l = MatMul (q, k) p = Softmax <axis = -1> (l) y = MatMul (p, x) }"""
    source = here / "model.onnx"
    model = build(text, {"w": np.eye(8, dtype=np.float32)})
    onnx.save_model(model, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (here / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        workflow.rewrite(source, there / "new.onnx")
    assert contents(there) == {}


def test_model_behind_a_link_is_calibrated_with_its_linked_data(here: Path, there: Path) -> None:
    # onnxruntime loads the file of a Hugging Face cache, but not its bytes with the data of the cache's links.
    source = saved(there / "model.onnx")
    expected = workflow.calibrate(source, [FEED]).softmaxes
    for name, blob in (("model.onnx", "1a2b"), ("weights.bin", "3c4d")):
        (there / name).rename(there / blob)
        (here / name).symlink_to(there / blob)
    assert workflow.calibrate(here / "model.onnx", [FEED]).softmaxes == expected


def test_refusal_names_its_reason_when_data_is_linked(here: Path, there: Path) -> None:
    # Not that of the second attempt, which newer runtimes refuse for its links.
    model = onnx.load(saved(there / "model.onnx"), load_external_data=False)
    model.graph.node.append(helper.make_node("NoSuchOperator", ["x"], ["z"]))
    onnx.save(model, here / "model.onnx")
    (here / "weights.bin").symlink_to(there / "weights.bin")
    with pytest.raises(ModelError, match="NoSuchOperator"):
        workflow.calibrate(here / "model.onnx", [FEED])


def test_data_is_copied_when_the_output_lies_where_the_linked_model_really_is(here: Path, there: Path) -> None:
    # External data lies beside the link.
    saved(here / "model.onnx")
    (here / "model.onnx").rename(there / "1a2b")
    (here / "model.onnx").symlink_to(there / "1a2b")
    workflow.rewrite(here / "model.onnx", there / "new.onnx")
    assert set(contents(there)) == {"1a2b", "new.onnx", "weights.bin"}


def test_external_locations_include_those_of_constants_in_branches() -> None:
    model = build(
        """g (bool flag) => (float[1] y) { c = Constant <value = float[1] {1.0}> ()
        y = If (flag) <then_branch = p () => (float[1] t) { t = Constant <value = float[1] {2.0}> () },
                       else_branch = q () => (float[1] e) { e = Identity (c) }> }"""
    )
    branch = nodes(model, "If")[0].attribute[0].g
    for name, tensor in (("b", nodes(model, "Constant")[0].attribute[0].t), ("a", branch.node[0].attribute[0].t)):
        refer(tensor, f"{name}.bin", 16, 4)
    assert external_locations(model) == ["a.bin", "b.bin"]


HUGE = 5 << 30  # an offset beyond 32 bits


def huge(folder: Path) -> Path:
    """A model with a weight of 5 GB, in a file that takes no space."""
    model = build(
        """g (int64[b,n] ids) => (float[b,n,1024] y) { x = Gather (embedding, ids)
        q = MatMul (x, w) k = Transpose <perm = [0, 2, 1]> (x) r = MatMul (q, k) l = Mul (r, c)
        p = Softmax <axis = -1> (l) y = MatMul (p, x) }""",
        {"c": np.float32(0.25)},
    )
    for name, rows, offset in (("embedding", HUGE // 4096 - 1024, 0), ("w", 1024, HUGE - (4 << 20))):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[rows, 1024])
        refer(tensor, "huge.bin", offset, rows * 4096)
        model.graph.initializer.append(tensor)
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(HUGE)
    onnx.save_model(model, folder / "model.onnx")
    return folder / "model.onnx"


MEASURE = """
import sys
from pathlib import Path
from hccs_onnx import workflow
def peak():  # of this program alone: ru_maxrss starts at the size of the process that forked it
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1])
before = peak()
found = workflow.inspect(sys.argv[1])
report = workflow.rewrite(sys.argv[1])
assert len(report.rewritten) == len(found) == 1
print(before, peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_external_data_of_5_gb_is_never_loaded(here: Path) -> None:
    source = huge(here)
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source)],
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath},
        check=True,
        capture_output=True,
        text=True,
    )
    before, peak = (int(word) / 1024 for word in result.stdout.split())
    assert peak < 300
    assert peak - before < 50
    assert (here / "huge.bin").stat().st_blocks * 512 < 1 << 20
    written = read_model(here / "model.hccs.onnx")
    assert external_locations(written) == ["huge.bin"]
    assert {tensor.name: helper.tensor_dtype_to_np_dtype(tensor.data_type) for tensor in written.graph.initializer} == {
        "embedding": np.float32, "w": np.float32, "hccs_y_zero_point": np.float32,
    }  # fmt: skip
