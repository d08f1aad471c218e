"""Where external data of a new model lies: shared where onnxruntime allows it, copied elsewhere, or refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import ROOT, Run
from graph.models import build
from graph.test_external_data import FEED, VARIANT, contents, refer, relocate, saved
from onnx import TensorProto

from hccs_onnx import HccsError, workflow
from hccs_onnx.cli import main
from hccs_onnx.errors import ModelError
from hccs_onnx.graph import files, placement
from hccs_onnx.graph.external import external_locations, relocated
from hccs_onnx.graph.files import read_model, write_model


@pytest.fixture
def target(run: Run, tmp_path: Path) -> np.ndarray:
    """What the rewritten model computes when its weights are not external."""
    onnx.save_model(VARIANT.model(), tmp_path / "embedded.onnx")
    return run(workflow.rewrite(tmp_path / "embedded.onnx").output, FEED)[0]


def beside(folder: Path) -> tuple[Path, Path]:
    return saved(folder / "model.onnx", "model.onnx_data"), folder / "new.onnx"


def elsewhere(folder: Path) -> tuple[Path, Path]:
    (folder / "there").mkdir()
    return saved(folder / "model.onnx", "model.onnx_data"), folder / "there" / "new.onnx"


def above(folder: Path) -> tuple[Path, Path]:
    (folder / "here").mkdir()
    return saved(folder / "here" / "model.onnx", "data/weights.bin"), folder / "new.onnx"


def link_inside(folder: Path) -> tuple[Path, Path]:
    source = saved(folder / "model.onnx")
    (folder / "weights.bin").rename(folder / "1a2b")
    (folder / "weights.bin").symlink_to("1a2b")
    return source, folder / "new.onnx"


def linked_data(folder: Path) -> tuple[Path, Path]:
    (folder / "here").mkdir()
    source = saved(folder / "here" / "model.onnx")
    (folder / "here" / "weights.bin").rename(folder / "1a2b")
    (folder / "here" / "weights.bin").symlink_to("../1a2b")
    return source, folder / "here" / "new.onnx"


def cache(folder: Path) -> tuple[Path, Path]:
    """As Hugging Face's cache: model and data are links into a folder of blobs."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    saved(blobs / "model.onnx", "model.onnx_data")
    for name, blob in (("model.onnx", "1a2b"), ("model.onnx_data", "3c4d")):
        (blobs / name).rename(blobs / blob)
        (snapshot / name).symlink_to(Path("../../blobs") / blob)
    return snapshot / "model.onnx", snapshot / "new.onnx"


def from_cache(folder: Path) -> tuple[Path, Path]:
    (folder / "there").mkdir()
    return cache(folder)[0], folder / "there" / "new.onnx"


def above_cache(folder: Path) -> tuple[Path, Path]:
    return cache(folder)[0], folder / "new.onnx"


def linked_copy_there(folder: Path) -> tuple[Path, Path]:
    """The output's folder has a link to the same data, by another path."""
    source, output = elsewhere(folder)
    (folder / "store").mkdir()
    (folder / "store" / "data").write_bytes((folder / "model.onnx_data").read_bytes())
    (output.parent / "model.onnx_data").symlink_to(folder / "store" / "data")
    return source, output


SHARED = {
    beside: "model.onnx_data",
    above: "here/data/weights.bin",
    link_inside: "weights.bin",
    above_cache: "blobs/3c4d",
}
COPIED = {
    elsewhere: "model.onnx_data",
    linked_data: "new.onnx.weights.bin",
    cache: "new.onnx_data",
    from_cache: "model.onnx_data",
    linked_copy_there: "new.onnx_data",
}
COPIED_ON_DEMAND = {
    beside: "new.onnx_data",
    above: "data/weights.bin",
    link_inside: "new.onnx.weights.bin",
    above_cache: "model.onnx_data",
}


def assert_runs(path: Path, target: np.ndarray) -> None:
    """onnxruntime itself loads the file."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, FEED)[0], target)


@pytest.mark.parametrize("how", [None, "share"])
@pytest.mark.parametrize("layout", SHARED)
def test_data_is_shared_when_it_lies_in_the_outputs_folder(
    tmp_path: Path, target: np.ndarray, layout: Any, how: Any
) -> None:
    source, output = layout(tmp_path)
    before = contents(tmp_path)
    report = workflow.rewrite(source, output, external_data=how)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) == {*before, "new.onnx"}
    assert report.copies == ()
    assert external_locations(read_model(output)) == [SHARED[layout]]
    assert_runs(output, target)


@pytest.mark.parametrize(
    ("layout", "how", "location"),
    [
        *((layout, None, location) for layout, location in COPIED.items()),
        *((layout, "copy", location) for layout, location in (COPIED | COPIED_ON_DEMAND).items()),
    ],
)
def test_data_is_copied_when_it_lies_elsewhere_or_is_to_be(
    tmp_path: Path, target: np.ndarray, layout: Any, how: Any, location: str
) -> None:
    source, output = layout(tmp_path)
    before = contents(tmp_path)
    report = workflow.rewrite(source, output, external_data=how)
    copy = output.parent / location
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) == {*before, *(str(path.relative_to(tmp_path)) for path in (output, copy))}
    assert report.copies == (copy,)
    assert external_locations(read_model(output)) == [location]
    assert not copy.is_symlink()
    assert copy.read_bytes() == (source.parent / external_locations(read_model(source))[0]).read_bytes()
    assert_runs(output, target)


@pytest.mark.parametrize("layout", COPIED)
def test_sharing_is_refused_when_data_lies_outside_of_the_outputs_folder(tmp_path: Path, layout: Any) -> None:
    source, output = layout(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ModelError, match=r"new\.onnx: cannot share external data '.*', which lies in .*\. Copy it"):
        workflow.rewrite(source, output, external_data="share")
    assert contents(tmp_path) == before


DATA = np.arange(4, dtype=np.float32)


def laid_out(folder: Path, location: str, data: str) -> Path:
    """A tiny model in `folder` whose data is a file, a link, or a file in a linked folder."""
    here, store = folder / "a" / "here", folder / "store"
    (here / location).parent.mkdir(parents=True)
    store.mkdir()
    model = build("g (float[4] x) => (float[4] y) { y = Add (x, w) }", {"w": DATA})
    refer(model.graph.initializer[0], location, 0, DATA.nbytes)
    onnx.save(model, here / "model.onnx")
    path = here / location
    if data == "linked_folder":
        path.parent.rmdir()
        path.parent.symlink_to(store)
        path = store / path.name
    elif data != "file":
        path.symlink_to(target := {"link_inside": here, "link_out": store, "link_above": folder / "a"}[data] / "1a2b")
        path = target
    path.write_bytes(DATA.tobytes())
    return here / "model.onnx"


@pytest.mark.parametrize("how", [None, "share", "copy"])
@pytest.mark.parametrize("place", ["a/here", "a/here/below", "a", ".", "elsewhere", "linked"])
@pytest.mark.parametrize(
    ("location", "data"),
    [
        *product(["w.bin", "d/w.bin"], ["file", "link_inside", "link_out"]),
        ("w.bin", "link_above"),
        ("d/w.bin", "linked_folder"),
    ],
)
def test_what_is_written_loads_or_is_refused_without_a_trace(
    tmp_path: Path, location: str, data: str, place: str, how: Any
) -> None:
    source = laid_out(tmp_path, location, data)
    if place == "linked":
        (tmp_path / place).symlink_to(tmp_path / "a" / "here")
    output = tmp_path / place / "new.onnx"
    output.parent.mkdir(exist_ok=True)
    before = contents(tmp_path)
    model = read_model(source)
    try:
        copies = write_model(model, source, output, how)
    except ModelError as error:
        assert how == "share" or "lies behind a link out" in str(error)
        assert contents(tmp_path) == before
        return
    assert {name: content for name, content in contents(tmp_path).items() if name in before} == before
    assert bool(copies) >= (how == "copy")
    assert not (copies and how == "share")
    session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": DATA})[0], 2 * DATA)


def test_unknown_choice_is_refused(tmp_path: Path) -> None:
    source, output = beside(tmp_path)
    with pytest.raises(HccsError, match=r"external_data: unknown \(link, needs share, copy or None\)"):
        workflow.rewrite(source, output, external_data="link")  # type: ignore[arg-type]


def test_second_rewrite_takes_the_copy_that_is_there(tmp_path: Path, target: np.ndarray) -> None:
    source, output = cache(tmp_path)
    first = workflow.rewrite(source, output)
    (copy,) = first.copies
    identity, model = copy.stat().st_ino, output.read_bytes()
    assert workflow.rewrite(source, output).copies == ()
    assert (copy.stat().st_ino, output.read_bytes()) == (identity, model)
    assert_runs(output, target)


def test_earlier_copy_of_other_data_is_not_overwritten(tmp_path: Path, target: np.ndarray) -> None:
    source, output = cache(tmp_path)
    workflow.rewrite(source, output)
    blob = tmp_path / "blobs" / "3c4d"
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    with pytest.raises(
        ModelError, match=r"new\.onnx_data: holds other data than the model's external data\. Remove it"
    ):
        workflow.rewrite(source, output)
    assert_runs(output, target)


def test_missing_data_is_refused_when_it_has_to_be_copied(tmp_path: Path) -> None:
    source, output = cache(tmp_path)
    model = read_model(source)
    (tmp_path / "blobs" / "3c4d").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx_data: is missing \(external data of the model\)"):
        write_model(model, source, output)
    assert not output.exists()


def test_location_that_no_file_can_have_is_refused_in_one_line(tmp_path: Path) -> None:
    model = onnx.load(saved(tmp_path / "model.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            relocate(tensor, "w" * 5000)
    (tmp_path / "there").mkdir()
    with pytest.raises(ModelError, match=r"www: is missing|cannot be written \(File name too long\)"):
        write_model(model, tmp_path / "model.onnx", tmp_path / "there" / "new.onnx")


def test_one_file_under_two_spellings_is_copied_once(target: np.ndarray, run: Run, tmp_path: Path) -> None:
    source, new = elsewhere(tmp_path)
    model = onnx.load(source, load_external_data=False)
    relocate(model.graph.initializer[0], "./model.onnx_data")
    source.write_bytes(model.SerializeToString())
    assert external_locations(model) == ["./model.onnx_data", "model.onnx_data"]
    report = workflow.rewrite(source, new)
    assert [copy.name for copy in report.copies] == ["model.onnx_data"]
    np.testing.assert_array_equal(run(new, FEED)[0], target)


def test_two_files_are_not_copied_into_one(tmp_path: Path) -> None:
    model = onnx.load(saved(tmp_path / "model.onnx", "model.onnx.bin"), load_external_data=False)
    (tmp_path / "bin").write_bytes((tmp_path / "model.onnx.bin").read_bytes())
    relocate(model.graph.initializer[0], "bin")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"new\.onnx\.bin: would be two files of the new model in one"):
        workflow.rewrite(tmp_path / "model.onnx", tmp_path / "new.onnx", external_data="copy")
    assert len(workflow.rewrite(tmp_path / "model.onnx", tmp_path / "new.onnx").rewritten) == 1


def test_copy_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "here").mkdir()
    source = saved(tmp_path / "here" / "model.onnx", "data/weights.bin")
    (tmp_path / "here" / "data").rename(tmp_path / "blobs" / "data")
    (tmp_path / "here" / "data").symlink_to("../blobs/data")
    before = contents(tmp_path)
    with pytest.raises(ModelError, match="lies behind a link out of the output's folder"):
        workflow.rewrite(source)
    assert contents(tmp_path) == before


def test_location_that_is_no_text_is_refused_where_it_would_have_to_change(tmp_path: Path) -> None:
    source = saved(tmp_path / "model.onnx", "w?.bin")
    source.write_bytes(source.read_bytes().replace(b"w?.bin", b"w\xff.bin"))
    (tmp_path / "w?.bin").rename(os.fsdecode(os.fsencode(tmp_path / "w") + b"\xff.bin"))
    model = read_model(source)
    before = model.SerializeToString()
    with pytest.raises(ModelError, match="has a name that is no text"):
        write_model(model, source, tmp_path / "new.onnx", "copy")
    assert model.SerializeToString() == before
    assert [path.name for path in tmp_path.glob("new*")] == []


def test_locations_are_as_before_when_the_block_ends(tmp_path: Path) -> None:
    model = read_model(saved(tmp_path / "model.onnx"))
    before = model.SerializeToString()
    with pytest.raises(KeyError), relocated(model, {"weights.bin": "other", "nothing": "x"}):
        assert external_locations(model) == ["other"]
        raise KeyError
    assert model.SerializeToString() == before


# the command line


def test_command_line_says_what_was_copied(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, output = cache(tmp_path)
    assert main(["rewrite", str(source), "-o", str(output)]) == 0
    assert f"external data copied to {output.parent / 'new.onnx_data'} (0.0 MB)\n" in capsys.readouterr().err
    assert main(["rewrite", str(source), "-o", str(output)]) == 0
    assert "copied" not in capsys.readouterr().err


def test_sharing_is_refused_before_any_long_work(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = cache(tmp_path)
    monkeypatch.setattr(workflow, "calibrate", None)
    arguments = ["rewrite", str(source), "-o", str(output), "--data", str(tmp_path), "--external-data", "share"]
    assert main(arguments) == 1
    assert "cannot share external data 'model.onnx_data'" in capsys.readouterr().err


# memory


MEASURE = """
import sys
from pathlib import Path
from hccs_onnx import workflow
def peak():
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1])
workflow.inspect(sys.argv[1])
before = peak()
assert len(workflow.rewrite(sys.argv[1], external_data="copy").copies) == 1
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_data_is_copied_in_little_memory(tmp_path: Path) -> None:
    source = saved(tmp_path / "model.onnx")
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(200 << 20)
    command = [sys.executable, "-c", MEASURE, str(source)]
    result = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT), "PATH": os.defpath}, check=True, capture_output=True, text=True
    )
    assert (tmp_path / "model.hccs.onnx.weights.bin").stat().st_size == 200 << 20
    assert int(result.stdout) / 1024 < 30


# interruption


def two_files(folder: Path) -> tuple[Path, Path]:
    """A model with two files of data, and a folder with an older output."""
    source, output = elsewhere(folder)
    model = onnx.load(source, load_external_data=False)
    (folder / "more").mkdir()
    (folder / "more" / "b.bin").write_bytes((folder / "model.onnx_data").read_bytes())
    relocate(next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL), "more/b.bin")
    source.write_bytes(model.SerializeToString())
    output.write_bytes(b"older")
    return source, output


def assert_old_or_new(source: Path, output: Path, expected: bytes) -> bool:
    """Whether there is the new model, which has all of its data; if there is not, the old one is as it was."""
    content = output.read_bytes()
    copies = {name: data for name, data in contents(output.parent).items() if not name.endswith((".onnx", ".tmp"))}
    assert content in (b"older", expected)
    assert all(data == (source.parent / name).read_bytes() for name, data in copies.items())
    if content == expected:
        assert set(copies) == {"model.onnx_data", "more/b.bin"}
    return content == expected


@contextmanager
def interrupted_at(line: int) -> Iterator[list[int]]:
    """Ctrl-C at the `line`-th line or end of a function that runs in the modules that write; counts them."""
    count = [0]
    names = {files.__file__, placement.__file__}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in names:
            return None
        if event in ("line", "return"):
            count[0] += 1
            if count[0] == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


# Python itself does not close a file when it is interrupted at the end of the file's block.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interruption_at_any_line_leaves_the_old_output_or_the_new(tmp_path: Path) -> None:
    source, output = two_files(tmp_path)
    model = read_model(source)
    before = contents(output.parent)
    with interrupted_at(0) as count:
        write_model(model, source, output)
    expected, lines, outcomes, untidy = output.read_bytes(), count[0], [], 0
    for line in range(1, lines + 1):
        for name in set(contents(output.parent)) - set(before):
            (output.parent / name).unlink()
        output.write_bytes(b"older")
        with pytest.raises(KeyboardInterrupt), interrupted_at(line):
            write_model(model, source, output)
        outcomes.append(assert_old_or_new(source, output, expected))
        untidy += not outcomes[-1] and set(contents(output.parent)) != set(before)
    assert lines > 100, lines
    assert outcomes == sorted(outcomes)  # first the old one, then the new one
    assert len(set(outcomes)) == 2
    assert untidy < lines / 10  # between making a file and watching over it


KILLED = """
import os, signal, sys
from pathlib import Path
from graph.test_placement import assert_old_or_new
from hccs_onnx.graph.files import read_model, write_model
source, output = map(Path, sys.argv[1:])
model, left = read_model(source), 0
def hook(event, arguments):  # before every change of a file, and much else
    global left
    if left:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
def write(killed_at):
    global left
    process = os.fork()
    if process == 0:
        left = killed_at
        write_model(model, source, output)
        os._exit(0)
    return os.waitpid(process, 0)[1] == signal.SIGKILL
write(0)
expected, outcomes = output.read_bytes(), []
while not outcomes or killed:
    for path in filter(Path.is_file, output.parent.rglob("*")):
        path.unlink()
    output.write_bytes(b"older")
    killed = write(len(outcomes) + 1)
    outcomes.append(assert_old_or_new(source, output, expected))
print(len(outcomes), outcomes == sorted(outcomes), outcomes[-1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_process_that_is_killed_at_any_step_leaves_the_old_output_or_the_new(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))), "PATH": os.defpath}
    command = [sys.executable, "-W", "ignore", "-c", KILLED, *map(str, two_files(tmp_path))]
    result = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    steps, in_order, last = result.stdout.split()
    assert int(steps) > 15
    assert (in_order, last) == ("True", "True")
