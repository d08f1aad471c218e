"""Bad input through the command line: one clear line, the right exit status, nothing half written, no traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx import HccsError, calibrate, demo, inspect, rewrite
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.cli import main
from hccs_onnx.demo import bundled_models

Refused = Callable[..., str]

ATTENTION = """<ir_version: 8, opset_import: ["": 17]>
attention (float[batch,2,n,4] q, float[batch,2,n,4] k, float[batch,2,n,4] v, float[batch,1,1,n] mask,
  bool[batch,1,1,n] keep)
  => (float[batch,2,n,4] y) <float half = {0.5}, float two = {2.0}, float zero = {0.0}, float huge = {-10000.0}>
{
  scaled_query = Mul (q, half)
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  product = MatMul (scaled_query, kt)
  scaled = Div (product, two)
  cast = Cast <to = 1> (scaled)
  additive = Mul (mask, huge)
  added = Add (cast, additive)
  kept = Where (keep, added, huge)
  logits = Identity (kept)
  softmax = Softmax <axis = -1> (logits)
  bad = IsNaN (softmax)
  guarded = Where (bad, zero, softmax)
  dropped = Dropout (guarded)
  y = MatMul (dropped, v)
}"""
PLAIN = """<ir_version: 8, opset_import: ["": 17]>
g (float[batch,2,n,4] q, float[batch,2,n,4] k, float[batch,2,n,4] v) => (float[batch,2,n,4] y)
{
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  logits = MatMul (q, kt)
  p = Softmax <axis = -1> (logits)
  y = MatMul (p, v)
}"""


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model with data, a calibration and a rewritten model, all in order."""
    folder = tmp_path_factory.mktemp("master")
    shutil.copy(bundled_models() / "digits_dynamo.onnx", folder / "model.onnx")
    shutil.copy(bundled_models() / "digits_torchscript.onnx", folder / "other.onnx")
    with np.load(bundled_models() / "calibration.npz") as arrays:
        np.savez(folder / "data.npz", pixels=arrays["pixels"][:4])
    calibration = calibrate(folder / "model.onnx", folder / "data.npz")
    calibration.save(folder / "calibration.json")
    rewrite(folder / "model.onnx", folder / "rewritten.onnx", calibration=calibration)
    return folder


@pytest.fixture
def box(master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `master` to spoil, as the working directory."""
    folder = tmp_path / "box"
    shutil.copytree(master, folder)
    monkeypatch.chdir(folder)
    return folder


def snapshot(folder: Path) -> dict[str, object]:
    """All that lies in a folder, with its content."""
    content: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            content[str(path)] = path.readlink()
        else:
            content[str(path)] = path.read_bytes() if path.is_file() else path.stat().st_mode
    return content


@pytest.fixture
def refused(box: Path, capfd: pytest.CaptureFixture) -> Refused:
    """Run a command that must fail with one line that matches, and leave all as it was; returns the line."""

    def check(command: str, pattern: str, status: int = 1) -> str:
        before = snapshot(box.parent)
        capfd.readouterr()
        assert main(command.split()) == status
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.startswith("error: "), err
        assert re.search(pattern, err), err
        assert re.search(r"[^.?!]\.\n$", err), err
        assert snapshot(box.parent) == before
        return err

    return check


# --- model ---------------------------------------------------------------------------------------------------------

READERS = {
    "inspect": "inspect {}",
    "calibrate": "calibrate {} --data data.npz",
    "rewrite": "rewrite {}",
    "rewrite_to": "rewrite {} -o out.onnx",
    "rewrite_with_data": "rewrite {} --data data.npz -o out.onnx",
    "verify_original": "verify {} rewritten.onnx --data data.npz",
    "verify_rewritten": "verify model.onnx {} --data data.npz",
}


@pytest.fixture(params=READERS.values(), ids=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    """A command with a hole for a model."""
    return str(request.param)


def test_missing_model_is_refused(refused: Refused, reader: str) -> None:
    refused(reader.format("none.onnx"), r"error: none\.onnx: no such file\. Check the path\.")


def test_missing_model_is_refused_by_name_when_its_folder_is_missing_too(refused: Refused, reader: str) -> None:
    refused(reader.format("none/m.onnx"), r"error: none/m\.onnx: no such file")


def test_folder_for_a_model_is_refused(refused: Refused, box: Path, reader: str) -> None:
    (box / "folder").mkdir()
    refused(reader.format("folder"), r"error: folder: is a folder, not an ONNX file")


def test_working_directory_for_a_model_is_refused(refused: Refused, reader: str) -> None:
    refused(reader.format("."), r"error: \.: is a folder, not an ONNX file")


def test_model_with_too_long_a_name_is_refused(refused: Refused, reader: str) -> None:
    refused(reader.format("m" * 300), r"File name too long|no such file")


def test_model_that_is_a_link_to_itself_is_refused(refused: Refused, box: Path, reader: str) -> None:
    (box / "loop.onnx").symlink_to("loop.onnx")
    refused(reader.format("loop.onnx"), r"error: loop\.onnx: ")


NOT_MODELS = {
    "empty": b"",
    "text": b"this is not a model\n" * 9,
    "one_byte": b"\x08",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "archive": b"PK\x03\x04" + bytes(60),
    "zeros": bytes(1000),
    "tensor": onnx.numpy_helper.from_array(np.arange(6.0)).SerializeToString(),
    "no_graph": onnx.ModelProto(ir_version=8).SerializeToString(),
    "json": b'{"format": "hccs-calibration"}',
}


@pytest.mark.parametrize("kind", NOT_MODELS)
def test_file_that_is_no_model_is_refused(refused: Refused, box: Path, reader: str, kind: str) -> None:
    (box / "bad.onnx").write_bytes(NOT_MODELS[kind])
    refused(reader.format("bad.onnx"), r"error: bad\.onnx: is not an ONNX (file|model)")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_truncated_model_is_refused(refused: Refused, box: Path, reader: str, share: float) -> None:
    data = (box / "model.onnx").read_bytes()
    (box / "bad.onnx").write_bytes(data[: int(share * len(data))])
    refused(reader.format("bad.onnx"), r"error: bad\.onnx: is not an ONNX (file, or is truncated|model)")


def save(text: str, path: Path) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.save(model, path)
    return model


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Neg (x)", r"m\.onnx: holds no Softmax node"),
        ("y = Softmax (x)", r"m\.onnx: holds no attention \(1 Softmax left alone, the first: logits"),
    ],
    ids=["no_softmax", "no_attention"],
)
@pytest.mark.parametrize("command", ["rewrite m.onnx", "calibrate m.onnx --data data.npz", "rewrite m.onnx --strict"])
def test_model_without_attention_is_refused(refused: Refused, box: Path, command: str, body: str, reason: str) -> None:
    save(f'<ir_version: 8, opset_import: ["": 17]> g (float[n,64] x) => (float[n,64] y) {{ {body} }}', box / "m.onnx")
    refused(command, reason)


def test_rewritten_model_is_not_calibrated_again(refused: Refused) -> None:
    refused(
        "calibrate rewritten.onnx --data data.npz",
        "rewritten.onnx: holds 2 HCCS nodes already, and no other attention. Start",
    )


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def test_model_of_unknown_shapes_is_rewritten(box: Path, capsys: pytest.CaptureFixture) -> None:
    onnx.save(without_shapes(save(PLAIN, box / "m.onnx")), box / "m.onnx")
    rng = np.random.default_rng(0)
    np.savez(box / "d.npz", **{name: rng.normal(size=(3, 2, 5, 4)).astype(np.float32) for name in "qkv"})
    assert main(["inspect", "m.onnx"]) == 0
    assert "heads not known, axis length dynamic, not masked: rewrite\n" in capsys.readouterr().out
    assert main(["rewrite", "m.onnx", "--data", "d.npz"]) == 0
    assert main(["verify", "m.onnx", "m.hccs.onnx", "--data", "d.npz", "--min-cosine", "0.95"]) == 0


def test_model_of_unknown_rank_is_left_alone_with_a_reason_when_the_axis_counts_from_the_front(
    refused: Refused, box: Path, capfd: pytest.CaptureFixture
) -> None:
    onnx.save(without_shapes(save(PLAIN.replace("axis = -1", "axis = 3"), box / "m.onnx")), box / "m.onnx")
    assert main(["inspect", "m.onnx"]) == 0
    assert "left alone: axis is 3 of logits of unknown rank, which may not be the last" in capfd.readouterr().out
    refused("rewrite m.onnx", "holds no attention .* unknown rank")


def test_model_is_refused_when_its_weights_are_missing(refused: Refused, box: Path) -> None:
    model = onnx.load(box / "model.onnx")
    onnx.save(model, box / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)
    (box / "weights.bin").unlink()
    refused("calibrate m.onnx --data data.npz", r"error: .*weights\.bin|m\.onnx: onnxruntime cannot load it")


def test_model_is_refused_when_a_constant_has_no_type(refused: Refused, box: Path) -> None:
    model = onnx.parser.parse_model(ATTENTION)
    model.graph.initializer[0].data_type = onnx.TensorProto.UNDEFINED
    onnx.save(model, box / "m.onnx")
    refused("inspect m.onnx", "Unsupported type: 0")


@pytest.mark.parametrize("kind", ["FLOAT", "STRING", "INTS", "GRAPH", "GRAPHS"])
def test_model_is_rewritten_or_refused_when_the_axis_is_no_number(box: Path, kind: str) -> None:
    model = onnx.parser.parse_model(ATTENTION)
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    softmax.attribute[0].type = onnx.AttributeProto.AttributeType.Value(kind)
    onnx.save(model, box / "m.onnx")
    assert main(["inspect", "m.onnx"]) in (0, 1)
    assert main(["rewrite", "m.onnx"]) in (0, 1)


@pytest.mark.parametrize("inputs", ["none", "one", "fewer", "more"])
@pytest.mark.parametrize("node", range(14))
def test_model_is_rewritten_or_refused_when_a_node_has_a_wrong_number_of_inputs(
    box: Path, capsys: pytest.CaptureFixture, node: int, inputs: str
) -> None:
    model = onnx.parser.parse_model(ATTENTION)
    names = model.graph.node[node].input
    change = {"none": [], "one": list(names[:1]), "fewer": list(names[:-1]), "more": [*names, "q"]}[inputs]
    del names[:]
    names.extend(change)
    onnx.save(model, box / "m.onnx")
    for command in (["inspect", "m.onnx"], ["rewrite", "m.onnx"]):
        status = main(command)
        out, err = capsys.readouterr()
        assert status in (0, 1)
        assert status == 0 or (out == "" and err.startswith("error: ") and err.count("\n") == 1)


def test_model_is_rewritten_or_refused_when_a_node_reads_itself(box: Path, capsys: pytest.CaptureFixture) -> None:
    model = onnx.parser.parse_model(ATTENTION)
    model.graph.node[5].op_type = "Identity"  # additive
    del model.graph.node[5].input[:]
    model.graph.node[5].input.append("additive")
    onnx.save(model, box / "m.onnx")
    assert main(["inspect", "m.onnx"]) in (0, 1)
    assert main(["rewrite", "m.onnx"]) in (0, 1)
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"probabilities", b"prob\xf8bilities"), (b"scaled_query", b"scaled\xffquery")],
    ids=["probabilities", "query"],
)
def test_model_is_rewritten_or_refused_when_a_name_is_not_utf_8(
    box: Path, capsys: pytest.CaptureFixture, old: bytes, new: bytes
) -> None:
    text = PLAIN.replace("p = ", "probabilities = ").replace("(p,", "(probabilities,").replace("kt", "scaled_query")
    data = onnx.parser.parse_model(text).SerializeToString()
    (box / "m.onnx").write_bytes(data.replace(old, new))
    assert main(["inspect", "m.onnx"]) in (0, 1)
    assert main(["rewrite", "m.onnx"]) in (0, 1)


def test_model_is_rewritten_or_refused_when_a_constant_has_less_data_than_its_shape(
    box: Path, capsys: pytest.CaptureFixture
) -> None:
    model = onnx.parser.parse_model(ATTENTION)
    for tensor in model.graph.initializer:
        tensor.dims.append(3)
    onnx.save(model, box / "m.onnx")
    assert main(["inspect", "m.onnx"]) in (0, 1)
    assert main(["rewrite", "m.onnx"]) in (0, 1)


def run_program(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess:
    program = [sys.executable, "-B", "-m", "hccs_onnx", *arguments]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False, env=variables)


def test_model_whose_shapes_cannot_be_inferred_is_refused_with_one_line(box: Path) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[n,4] x) => (float[n,4] y) { z = Add (x) y = Softmax (z) }'
    save(text, box / "m.onnx")
    done = run_program("rewrite", "m.onnx")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: .*\n", done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_file_names_need_not_be_utf_8(box: Path) -> None:
    shutil.copy(box / "model.onnx", os.fsencode(box) + b"/m\xff.onnx")
    done = run_program("rewrite", b"m\xff.onnx", PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout.count("2 attention Softmax rewritten")) == (0, 1)
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def flips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flips")


def assert_rewritten_or_refused(data: bytes, folder: Path) -> None:
    (folder / "flipped.onnx").write_bytes(data)
    for step in (lambda: inspect(folder / "flipped.onnx"), lambda: rewrite(folder / "flipped.onnx")):
        try:
            step()
        except HccsError as error:  # noqa: PERF203
            assert "\n" not in str(error)


@given(st.sampled_from(["torchscript", "dynamo"]), st.floats(0, 1, exclude_max=True))
def test_model_is_refused_when_truncated_anywhere(flips: Path, exporter: str, share: float) -> None:
    data = (bundled_models() / f"digits_{exporter}.onnx").read_bytes()
    assert_rewritten_or_refused(data[: int(share * len(data))], flips)


@given(st.sampled_from(["torchscript", "dynamo"]), st.data())
def test_model_is_rewritten_or_refused_whatever_bits_flip(flips: Path, exporter: str, data: st.DataObject) -> None:
    content = bytearray((bundled_models() / f"digits_{exporter}.onnx").read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    assert_rewritten_or_refused(bytes(content), flips)


# --- calibration ---------------------------------------------------------------------------------------------------

Edit = Callable[[dict[str, Any]], object]


def edited(box: Path, edit: Edit) -> None:
    content = json.loads((box / "calibration.json").read_text())
    edit(content)
    (box / "calibration.json").write_text(json.dumps(content))


def head(content: dict[str, Any]) -> dict[str, Any]:
    return content["softmaxes"][1]["heads"][2]


def heads(count: int) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        entry = content["softmaxes"][1]
        entry["heads"] = (entry["heads"] * 2)[:count]

    return edit


BROKEN: dict[str, tuple[Edit, str]] = {
    "another_model": (lambda c: c.update(model_sha256="0" * 64), r"model\.onnx: calibration is for another model"),
    "three_heads": (heads(3), r"node '.*': calibration has a wrong number of heads \(3, needs 1 or 4\)"),
    "two_heads": (heads(2), r"node '.*': calibration has a wrong number of heads \(2, needs 1 or 4\)"),
    "eight_heads": (heads(8), r"node '.*': calibration has a wrong number of heads \(8, needs 1 or 4\)"),
    "no_heads": (heads(0), r"calibration\.json: .*heads"),
    "missing_node": (lambda c: c["softmaxes"].pop(), r"node '.*': is not in the calibration\. Calibrate again"),
    "offset": (lambda c: head(c)["params"].update(B=40000), r"calibration\.json: node '.*': head 2: offset B out of"),
    "slope": (lambda c: head(c)["params"].update(S=-1), r"calibration\.json: node '.*': head 2: slope S out of range"),
    "clip": (lambda c: head(c)["params"].update(Dmax=0), r"calibration\.json: node '.*': head 2: clip distance Dmax"),
    "scale": (lambda c: head(c)["params"].update(scale=0), r"calibration\.json: node '.*': head 2: scale is not"),
    "floor": (lambda c: head(c)["params"].update(B=127), r"calibration\.json: node '.*': head 2: floor B - S\*Dmax is"),
    "head_axis": (lambda c: c["softmaxes"][1].update(head_axis=7), r"head.axis"),
    "other_head_axis": (lambda c: c["softmaxes"][1].update(head_axis=-2), r"head.axis"),
    "missing_key": (lambda c: c.pop("rows"), r"calibration\.json: \$: 'rows' is a required property"),
    "format": (lambda c: c.update(format="other"), r"calibration\.json: \$\.format: "),
    "version": (lambda c: c.update(version=2), r"calibration\.json: \$\.version: "),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_calibration_is_refused(refused: Refused, box: Path, kind: str) -> None:
    edit, pattern = BROKEN[kind]
    edited(box, edit)
    refused("rewrite model.onnx --calibration calibration.json -o out.onnx", pattern)


def test_calibration_with_one_parameter_set_for_a_node_is_accepted(box: Path) -> None:
    edited(box, heads(1))
    assert main(["rewrite", "model.onnx", "--calibration", "calibration.json", "-o", "out.onnx"]) == 0


def test_calibration_of_another_model_is_refused(refused: Refused) -> None:
    refused(
        "rewrite other.onnx --calibration calibration.json", r"other\.onnx: calibration is for another model \(\w{12}, "
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x81", b"[]", b"null", b"\x08\x08pytorch"], ids=repr)
def test_file_that_is_no_calibration_is_refused(refused: Refused, box: Path, content: bytes) -> None:
    (box / "bad.json").write_bytes(content)
    refused("rewrite model.onnx --calibration bad.json -o out.onnx", r"error: bad\.json: ")


def test_calibration_that_cannot_be_read_is_refused(refused: Refused) -> None:
    refused("rewrite model.onnx --calibration none.json", r"none\.json: cannot be read \(No such file or directory\)")
    refused("rewrite model.onnx --calibration .", r"error: \.: cannot be read \(Is a directory\)")
    refused("rewrite model.onnx --calibration model.onnx", r"error: model\.onnx: is not JSON")


# --- DATA ----------------------------------------------------------------------------------------------------------

PIXELS = np.full((3, 64), 0.5, np.float32)


def spoiled(value: float) -> np.ndarray:
    pixels = PIXELS.copy()
    pixels[2, 7] = value
    return pixels


DATA: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "missing_name": ({"images": PIXELS}, r"d\.npz: lacks input pixels \(has images, needs exactly pixels\)"),
    "no_arrays": ({}, r"d\.npz: lacks input pixels"),
    "extra_name": ({"pixels": PIXELS, "labels": np.arange(3)}, r"d\.npz: has labels, which the model lacks"),
    "type": ({"pixels": PIXELS.astype(np.float64)}, r"input 'pixels': has the wrong type \(float64, needs float32\)"),
    "whole_numbers": (
        {"pixels": PIXELS.astype(np.uint8)},
        r"input 'pixels': has the wrong type \(uint8, needs float32\)",
    ),
    "size": ({"pixels": PIXELS[:, :63]}, r"input 'pixels': has the wrong shape \(\[1, 63\], needs \[batch, 64\]\)"),
    "rank": ({"pixels": PIXELS.reshape(3, 8, 8)}, r"has the wrong shape \(\[1, 8, 8\], .*\)\. Reshape the data\."),
    "one_sample": (
        {"pixels": PIXELS[0]},
        r"has the wrong shape \(\[1\], .*\)\. Add the axis that it lacks; the first is",
    ),
    "nan": ({"pixels": spoiled(np.nan)}, r"sample 2: input 'pixels': holds NaN or \+infinity"),
    "infinity": ({"pixels": spoiled(np.inf)}, r"sample 2: input 'pixels': holds NaN or \+infinity"),
    "empty": ({"pixels": PIXELS[:0]}, r"d\.npz: holds no samples"),
    "scalar": ({"pixels": np.float32(1)}, r"d\.npz: array 'pixels': is a scalar, without an axis of samples\. Give a"),
    "objects": ({"pixels": np.array([None] * 3)}, r"d\.npz: array 'pixels\.npy' cannot be read"),
}
USERS = {
    "calibrate": "calibrate model.onnx --data {}",
    "rewrite": "rewrite model.onnx --data {} -o out.onnx",
    "verify": "verify model.onnx rewritten.onnx --data {}",
    "verify_json": "verify model.onnx rewritten.onnx --data {} --json",
}


@pytest.fixture(params=USERS.values(), ids=USERS)
def user(request: pytest.FixtureRequest) -> str:
    """A command with a hole for DATA."""
    return str(request.param)


@pytest.mark.parametrize("kind", DATA)
def test_data_that_does_not_fit_is_refused(refused: Refused, box: Path, user: str, kind: str) -> None:
    arrays, pattern = DATA[kind]
    np.savez(box / "d.npz", **arrays)
    refused(user.format("d.npz"), pattern)


@pytest.mark.parametrize("content", [b"", b"PK", b"pixels,1,2\n"], ids=["empty", "stub", "csv"])
def test_file_that_is_no_data_is_refused(refused: Refused, box: Path, user: str, content: bytes) -> None:
    (box / "d.npz").write_bytes(content)
    pattern = r"error: d\.npz: is not an \.npz archive\. Write it with numpy\.savez\('d\.npz', pixels=array\)\."
    refused(user.format("d.npz"), pattern)


def test_npy_file_is_refused_with_how_to_write_an_npz(refused: Refused, box: Path) -> None:
    np.save(box / "d.npy", PIXELS)
    refused("calibrate model.onnx --data d.npy", r"d\.npy: is not .* numpy\.savez\('d\.npz', pixels=array\)")


def test_data_file_that_cannot_be_opened_is_refused_with_the_reason(refused: Refused, box: Path, user: str) -> None:
    (box / "folder" / "d.npz").mkdir(parents=True)
    refused(user.format("folder"), r"error: folder/d\.npz: cannot be read \(Is a directory\)\. Check its permissions")


def test_missing_data_is_refused(refused: Refused, box: Path, user: str) -> None:
    refused(user.format("none.npz"), r"error: none\.npz: no such file or folder\. Check --data\.")
    (box / "folder").mkdir()
    refused(user.format("folder"), r"error: folder: holds no samples")
    (box / "folder" / "test_data_set_0").mkdir()
    refused(user.format("folder"), r"error: folder/test_data_set_0: lacks input pixels")
    (box / "folder" / "test_data_set_0" / "input_0.pb").write_bytes(b"pixels")
    refused(user.format("folder"), r"input_0\.pb: is not an ONNX tensor")


def test_data_with_too_long_a_name_is_refused(refused: Refused, user: str) -> None:
    refused(user.format("d" * 300), r"File name too long|no such file")


def test_sample_that_onnxruntime_fails_on_is_refused(refused: Refused, box: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (int64[batch,n] ids) => (float[batch,n,2] y)
      <float[3,2] table = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, float[2,2] w = {1.0, 2.0, 3.0, 4.0}, float[2] b = {0.0, 0.0}>
    {
      q = Gather (table, ids)
      kt = Transpose <perm = [0, 2, 1]> (q)
      logits = MatMul (q, kt)
      p = Softmax <axis = -1> (logits)
      context = MatMul (p, q)
      projected = MatMul (context, w)
      y = Add (projected, b)
    }"""
    save(text, box / "m.onnx")
    assert main(["rewrite", "m.onnx", "-o", "m.hccs.onnx"]) == 0
    np.savez(box / "good.npz", ids=np.array([[0, 1, 2]]))
    assert main(["calibrate", "m.onnx", "--data", "good.npz", "-o", "c.json"]) == 0
    np.savez(box / "d.npz", ids=np.array([[0, 1, 2], [2, 1, 99]]))
    pattern = r"error: d\.npz: sample 1: onnxruntime fails on it \(ids \[1, 3\]\): .*"
    refused("calibrate m.onnx --data d.npz", pattern)
    refused("verify m.onnx m.hccs.onnx --data d.npz", pattern)
    refused("rewrite m.onnx --calibration c.json --correct bias --data d.npz", pattern)


# --- output --------------------------------------------------------------------------------------------------------

WRITERS = {
    "rewrite": "rewrite model.onnx -o {}",
    "rewrite_with_data": "rewrite model.onnx --data data.npz -o {}",
    "rewrite_with_calibration": "rewrite model.onnx --calibration calibration.json -o {}",
    "calibrate": "calibrate model.onnx --data data.npz -o {}",
}


@pytest.fixture(params=WRITERS.values(), ids=WRITERS)
def writer(request: pytest.FixtureRequest) -> str:
    """A command with a hole for its output."""
    return str(request.param)


def test_output_is_refused_when_its_folder_is_missing(refused: Refused, writer: str) -> None:
    refused(writer.format("none/out"), r"error: none/out: (folder none does not exist|cannot be written)")


def test_output_is_refused_when_it_lies_below_a_file(refused: Refused, writer: str) -> None:
    refused(writer.format("other.onnx/out"), r"error: other\.onnx/out: ")


def test_output_is_refused_when_it_is_a_folder(refused: Refused, box: Path, writer: str) -> None:
    (box / "folder").mkdir()
    refused(writer.format("folder"), r"error: folder: (is a folder, not a file|cannot be written)")
    refused(writer.format("."), r"error: \.: (is a folder, not a file|cannot be written)")


def test_output_is_refused_when_its_folder_is_not_writable(
    refused: Refused, box: Path, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may write anywhere
    monkeypatch.setattr(tempfile, "mkstemp", denied)
    refused(writer.format("out"), r"error: out: (folder \. is not writable|cannot be written \(Permission denied\))")


def test_output_is_refused_when_the_disk_gets_full(
    refused: Refused, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    refused(writer.format("out"), r"error: out: cannot be written \(No space left on device\)\. Free space or choose")


def run_limited(command: str, limit: int) -> subprocess.CompletedProcess:
    """Run a command where no file can grow beyond `limit` bytes."""
    resource = pytest.importorskip("resource")

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    program = [sys.executable, "-B", "-m", "hccs_onnx", *command.split()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        program, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limited, env=environment
    )


@pytest.mark.parametrize("name", ["rewrite", "calibrate"])
def test_output_leaves_nothing_when_the_disk_gets_full_in_the_middle(box: Path, name: str) -> None:
    before = snapshot(box)
    done = run_limited(WRITERS[name].format("out"), 1000)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: out: cannot be written \(File too large\)\. Free space .*\n", done.stderr)
    assert snapshot(box) == before


def test_demo_leaves_no_half_file_when_the_disk_gets_full(box: Path) -> None:
    done = run_limited("demo -o there", 20_000)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: .*cannot be written \(File too large\)\. .*\n", done.stderr)
    for path in (box / "there").iterdir():
        assert path.read_bytes() == (bundled_models() / path.name).read_bytes()


@pytest.mark.parametrize(
    "output", ["model.onnx", "./model.onnx", "../box/model.onnx", "link.onnx", "folder/../model.onnx"]
)
@pytest.mark.parametrize("options", ["", " --data data.npz", " --calibration calibration.json"])
def test_output_equal_to_the_model_is_refused(refused: Refused, box: Path, output: str, options: str) -> None:
    (box / "link.onnx").symlink_to("model.onnx")
    (box / "folder").mkdir()
    refused(f"rewrite model.onnx -o {output}{options}", r"output is an input file\. Choose another name with -o")
    if output == "model.onnx":
        refused(f"rewrite link.onnx -o {output}{options}", r"output is an input file")


@pytest.mark.parametrize(
    "command",
    [
        "calibrate model.onnx --data data.npz -o model.onnx",
        "calibrate model.onnx --data data.npz -o ./model.onnx",
        "calibrate model.onnx --data data.npz -o link",
        "calibrate model.onnx --data data.npz -o data.npz",
        "rewrite model.onnx --data data.npz -o data.npz",
        "rewrite model.onnx --calibration calibration.json -o calibration.json",
    ],
)
def test_output_equal_to_any_input_is_refused(refused: Refused, box: Path, command: str) -> None:
    (box / "link").symlink_to("model.onnx")
    refused(command, r"output is an input file")


def test_output_is_refused_when_it_is_no_regular_file(refused: Refused, box: Path, writer: str) -> None:
    os.mkfifo(box.parent / "pipe")
    refused(writer.format("../pipe"), r"error: \.\./pipe: ")
    assert (box.parent / "pipe").is_fifo()


def test_output_is_refused_or_replaced_when_it_is_a_link_to_itself(box: Path, writer: str) -> None:
    (box / "loop").symlink_to("loop")
    assert main(writer.format("loop").split()) in (0, 1)


def test_output_with_too_long_a_name_is_refused(refused: Refused, writer: str) -> None:
    refused(writer.format("o" * 300), r"File name too long")


# --- interruption --------------------------------------------------------------------------------------------------


def assert_interrupted(box: Path, command: str, capfd: pytest.CaptureFixture) -> None:
    before = snapshot(box)
    capfd.readouterr()
    assert main(command.split()) == 130
    assert capfd.readouterr() == ("", "interrupted; nothing was written\n")
    assert snapshot(box) == before


@pytest.mark.parametrize("name", ["calibrate", "rewrite_with_data"])
def test_interruption_while_calibrating_leaves_nothing(
    box: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls = []

    def add(*_: object, **__: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Sketch, "add", add)
    assert_interrupted(box, WRITERS[name].format("out"), capfd)


def test_interruption_while_writing_leaves_nothing(
    box: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    (box / "out").write_bytes(b"older")
    assert_interrupted(box, writer.format("out"), capfd)


def test_interruption_while_verifying_is_one_line(
    box: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hccs_onnx.calibration.watched.run", interrupt)
    assert_interrupted(box, "verify model.onnx rewritten.onnx --data data.npz", capfd)


def test_interruption_of_the_demo_does_not_deny_what_it_left(
    box: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "walk", interrupt)
    assert main(["demo", "-o", "there"]) == 130
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("interrupted")
    assert (box / "there" / "test.npz").exists()
    assert "nothing was written" not in err


def test_signal_while_calibrating_leaves_nothing(box: Path) -> None:
    np.savez(box / "long.npz", pixels=np.zeros((20_000, 64), np.float32))
    before = snapshot(box)
    program = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from hccs_onnx.calibration.sketch import Sketch
from hccs_onnx.cli import main
count = Sketch.add
def add(*arguments, **options):
    print("sketching", flush=True)
    count(*arguments, **options)
Sketch.add = add
sys.exit(main(sys.argv[1:]))"""
    command = [sys.executable, "-c", program, *["calibrate", "model.onnx", "--data", "long.npz", "-o", "out.json"]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "sketching\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted; nothing was written\n")
    assert snapshot(box) == before
