"""`rewrite`: the main job from the command line."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph.models import Attention

from hccs_onnx import calibrate, rewrite
from hccs_onnx.cli import main
from hccs_onnx.demo import bundled_models
from hccs_onnx.operator.schema import is_hccs

LIKE_ATTENTION = """<ir_version: 8, opset_import: ["": 17]>
g (float[b,2,n,4] q, float[b,2,n,4] k, float[b,2,n,4] v) => (float[b,2,n,4] y, float[b,2,n,4] z)
{
  kt = Transpose <perm = [0, 1, 3, 2]> (k)
  one = MatMul (q, kt)
  p = Softmax <axis = -1> (one)
  y = MatMul (p, v)
  other = MatMul (k, kt)
  c = Softmax <axis = -2> (other)
  z = MatMul (c, v)
}"""


def save(text: str, path: Path) -> Path:
    """Save a model, its nodes named after what they make (text of onnx 1.16 has no node names)."""
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"{node.output[0]}_node"
    onnx.save(model, path)
    return path


QUANTISED = """<ir_version: 8, opset_import: ["": 17]>
g (float[b,2,n,4] q, float[b,2,4,n] k, float[b,2,n,4] v) => (float[b,2,n,4] y) <float s = {0.05}, uint8 z = {120}>
{
  raw = MatMul (q, k)
  codes = QuantizeLinear (raw, s, z)
  l = DequantizeLinear (codes, s, z)
  p = Softmax <axis = -1> (l)
  y = MatMul (p, v)
}"""


@pytest.fixture
def model(tmp_path: Path, digits_model: Path) -> Path:
    return Path(shutil.copy(digits_model, tmp_path / "digits.onnx"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with np.load(bundled_models() / "calibration.npz") as arrays:
        np.savez(tmp_path / "data.npz", pixels=arrays["pixels"][:6])
    return tmp_path / "data.npz"


def test_rewrite_writes_beside_the_model_and_says_what_next(model: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["rewrite", str(model)]) == 0
    target = model.with_name("digits.hccs.onnx")
    out, err = capsys.readouterr()
    assert out == f"{target}: 2 attention Softmax rewritten (float), 0 left alone\n"
    free, check = err.splitlines()
    assert free.startswith("data-free: ")
    assert "add --data DATA" in free
    assert check == f"check it: python -m hccs_onnx verify {model} {target} --data DATA"
    assert sum(is_hccs(node) for node in onnx.load(target).graph.node) == 2
    assert sorted(path.name for path in model.parent.iterdir()) == ["digits.hccs.onnx", "digits.onnx"]


def test_rewrite_adds_its_suffix_when_the_model_has_none(tmp_path: Path, model: Path) -> None:
    bare = model.rename(tmp_path / "model")
    assert main(["rewrite", str(bare)]) == 0
    assert (tmp_path / "model.hccs.onnx").is_file()


def test_rewrite_gives_the_bytes_of_the_python_function(model: Path, data: Path, tmp_path: Path) -> None:
    calibration = calibrate(model, data)
    calibration.save(tmp_path / "c.json")
    rewrite(model, tmp_path / "python.onnx", calibration=calibration)
    rewrite(model, tmp_path / "free_python.onnx")
    assert main(["rewrite", str(model), "--calibration", str(tmp_path / "c.json"), "-o", str(tmp_path / "a.onnx")]) == 0
    assert main(["rewrite", str(model), "--data", str(data), "-o", str(tmp_path / "b.onnx")]) == 0
    assert main(["rewrite", str(model), "-o", str(tmp_path / "free.onnx")]) == 0
    expected = (tmp_path / "python.onnx").read_bytes()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes() == expected
    assert (tmp_path / "free.onnx").read_bytes() == (tmp_path / "free_python.onnx").read_bytes() != expected


def test_rewrite_does_not_speak_of_data_free_when_calibrated(
    model: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["rewrite", str(model), "--data", str(data)]) == 0
    assert "data-free" not in "".join(capsys.readouterr())


def test_rewrite_takes_a_granularity(model: Path, data: Path, tmp_path: Path) -> None:
    target = tmp_path / "o.onnx"
    assert main(["rewrite", str(model), "--data", str(data), "--granularity", "layer", "-o", str(target)]) == 0
    lists = [list(node.attribute[0].ints) for node in onnx.load(target).graph.node if is_hccs(node)]
    assert [len(values) for values in lists] == [1, 1]


def test_rewrite_replaces_its_own_earlier_output(model: Path) -> None:
    target = model.with_name("digits.hccs.onnx")
    assert main(["rewrite", str(model)]) == 0
    first = target.read_bytes()
    assert main(["rewrite", str(model)]) == 0
    assert target.read_bytes() == first


def test_rewrite_leaves_alone_what_is_not_attention_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = save(LIKE_ATTENTION, tmp_path / "m.onnx")
    assert main(["rewrite", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(": 1 attention Softmax rewritten (float), 1 left alone\n")
    assert err.startswith("c_node: left alone: ")


def test_rewrite_says_of_what_is_excluded_that_it_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = save(LIKE_ATTENTION.replace("axis = -2", "axis = -1"), tmp_path / "m.onnx")
    assert main(["rewrite", str(path), "--exclude", "^p"]) == 0
    assert capsys.readouterr().err.startswith("p_node: left alone: is excluded by '^p'\n")


def test_rewrite_gives_few_reasons_when_much_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    others = " ".join(f"s{number} = Softmax <axis = -1> (q)" for number in range(12))
    path = save(LIKE_ATTENTION.replace("kt =", f"{others} kt ="), tmp_path / "m.onnx")
    assert main(["rewrite", str(path), "--exclude", "^c"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [": left alone: " in line for line in lines] == [True] * 10 + [False] * (len(lines) - 10)
    assert lines[10] == "... and 3 more left alone"


def test_rewrite_fails_in_strict_mode_when_it_leaves_alone_what_looks_like_attention(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = save(LIKE_ATTENTION, tmp_path / "m.onnx")
    assert main(["rewrite", str(path), "--strict"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(
        f"error: {path}: Softmax 'c_node' looks like attention and cannot be rewritten: probabilities"
    )
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_rewrite_succeeds_in_strict_mode_when_all_attention_is_rewritten(model: Path) -> None:
    assert main(["rewrite", str(model), "--strict"]) == 0
    assert model.with_name("digits.hccs.onnx").is_file()


def test_rewrite_leaves_the_model_as_it_was(model: Path, data: Path) -> None:
    before = model.read_bytes()
    assert main(["rewrite", str(model), "--data", str(data)]) == 0
    assert model.read_bytes() == before


def test_rewrite_gives_integers_without_data_when_the_model_has_quantised_its_logits(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = save(QUANTISED, tmp_path / "m.onnx")
    assert main(["rewrite", str(path), "--to", "int16", "--reciprocal", "norm"]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(": 1 attention Softmax rewritten (int16, norm), 0 left alone\n")
    assert "3.3 nats a head, the model's own quantisers of the logits" in err
    assert (tmp_path / "m.hccs.onnx").read_bytes() == rewrite(path, tmp_path / "p.onnx", to="int16").output.read_bytes()


@pytest.mark.parametrize(
    ("status", "options", "error"),
    [
        (1, ["--to", "uint8"], "integers without data need logits that the model has quantised"),
        (2, ["--to", "uint8", "--logit-scale", "power-of-two"], "--logit-scale: needs data (power-of-two). Add --data"),
        (2, ["--logit-zero-point", "zero"], "--logit-zero-point: needs data (zero). Add --data DATA."),
        (2, ["--granularity", "layer"], "--granularity: needs data (layer). Add --data DATA."),
        (2, ["--granularity", "head"], "--granularity: needs data (head). Add --data DATA."),
        (2, ["--objective", "squares"], "--objective: needs data (squares). Add --data DATA."),
        (2, ["--scale-granularity", "tensor"], "--scale-granularity: needs data (tensor). Add --data DATA."),
        (2, ["--reciprocal", "div"], "--reciprocal: means nothing for float output"),
    ],
)
def test_rewrite_refuses_without_data_what_needs_them(
    model: Path, status: int, options: list[str], error: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["rewrite", str(model), *options]) == status
    err = capsys.readouterr().err
    assert error in err
    assert len(err.splitlines()) == 1
    assert not model.with_name("digits.hccs.onnx").exists()


@pytest.mark.parametrize(
    ("status", "options", "error"),
    [
        (1, ["--to", "float"], "u8.json: was made with another --to (uint8, needs float). Calibrate again, or"),
        (1, ["--reciprocal", "clb"], "u8.json: was made with another --reciprocal (norm, needs clb)."),
        (1, ["--granularity", "global"], "u8.json: was made with another --granularity (head, needs global)."),
        (1, ["--profile", "paper"], "u8.json: was made with another --profile (extended, needs paper)."),
        (2, ["--objective", "squares"], "--objective: means nothing with --calibration, which has it (squares)."),
        (2, ["--logit-scale", "power-of-two"], "--logit-scale: means nothing with --calibration, which has it"),
        (2, ["--logit-zero-point", "zero"], "--logit-zero-point: means nothing with --calibration, which has it"),
        (2, ["--scale-granularity", "head"], "--scale-granularity: means nothing with --calibration, which has it"),
    ],
)
def test_rewrite_refuses_options_that_a_calibration_file_was_not_made_with(
    status: int, options: list[str], error: str, tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    calibrate(model, data, to="uint8").save(tmp_path / "u8.json")
    before = sorted(tmp_path.iterdir())
    assert main(["rewrite", str(model), "--calibration", str(tmp_path / "u8.json"), *options]) == status
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert error in err
    assert sorted(tmp_path.iterdir()) == before


def test_rewrite_takes_options_that_say_what_the_calibration_file_is(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    calibrate(model, data, to="uint8", reciprocal="clb").save(tmp_path / "u8.json")
    options = ["--to", "uint8", "--reciprocal", "clb", "--granularity", "head", "--profile", "extended"]
    assert main(["rewrite", str(model), "--calibration", str(tmp_path / "u8.json"), *options]) == 0
    assert capsys.readouterr().out.endswith(": 2 attention Softmax rewritten (uint8, clb), 0 left alone\n")


def test_rewrite_copies_a_rewritten_model_and_sends_to_nothing_else(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = rewrite(model, tmp_path / "first.onnx").output
    assert main(["rewrite", str(first)]) == 0
    out, err = capsys.readouterr()
    copy = tmp_path / "first.hccs.onnx"
    assert out == f"{copy}: 0 attention Softmax rewritten, 0 left alone\n"
    assert err == f"nothing was left to rewrite; {copy} is {first} as it is\n"


@pytest.mark.parametrize("options", [["--to", "uint8"], ["--calibration", "c.json"], ["--data", "data.npz"]])
def test_rewrite_refuses_to_make_something_else_of_a_rewritten_model(
    model: Path, data: Path, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    calibrate(model, data).save("c.json")
    rewrite(model, "first.onnx")
    assert main(["rewrite", "first.onnx", *options]) == 1
    out, err = capsys.readouterr()
    problem = "holds 2 HCCS nodes already, and no other attention. Start from the original."
    assert (out, err) == ("", f"error: first.onnx: {problem}\n")
    assert not (tmp_path / "first.hccs.onnx").exists()


@pytest.mark.parametrize("source", ["feeds", "feeds/*.npz", "feeds/1.npz"])
def test_rewrite_does_not_replace_a_file_of_its_data(
    source: str, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "feeds").mkdir()
    with np.load(data) as arrays:
        for number in range(2):
            np.savez(tmp_path / "feeds" / f"{number}.npz", pixels=arrays["pixels"][number : number + 1])
    target = tmp_path / "feeds" / "1.npz"
    before = target.read_bytes()
    assert main(["rewrite", str(model), "--data", str(tmp_path / source), "-o", str(target)]) == 1
    assert f"{target}: output is an input file" in capsys.readouterr().err
    assert target.read_bytes() == before


@pytest.mark.parametrize("options", [[], ["--profile", "paper", "--to", "uint8", "--reciprocal", "div"]])
def test_rewrite_and_calibrate_say_that_the_paper_has_no_mask(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    variant = Attention(mask="computed")
    path, folder = tmp_path / "m.onnx", tmp_path / "feeds"
    onnx.save(variant.model(), path)
    folder.mkdir()
    np.savez(folder / "0.npz", **variant.feed(batch=3, length=7))
    text = "profile paper keeps no mask (nodes with one: 1): masked keys"
    assert main(["calibrate", str(path), "--data", str(folder), "-o", str(tmp_path / "c.json"), *options]) == 0
    assert (text in capsys.readouterr().err) == bool(options)
    for source in (["--calibration", str(tmp_path / "c.json")], ["--data", str(folder), *options]):
        caplog.clear()
        assert main(["rewrite", str(path), *source]) == 0
        assert caplog.text.count(text) == len(options[:1])


def test_rewrite_suggests_commands_that_a_shell_takes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spaced = model.rename(tmp_path / "my digits.onnx")
    assert main(["rewrite", str(spaced)]) == 0
    check = capsys.readouterr().err.splitlines()[-1]
    words = shlex.split(check.partition("python -m hccs_onnx ")[2])
    assert words == ["verify", str(spaced), str(tmp_path / "my digits.hccs.onnx"), "--data", "DATA"]


def test_rewrite_corrects_and_says_how_much_each_layer_gained(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "o.onnx"
    assert main(["rewrite", str(model), "--data", str(data), "--correct", "bias", "-o", str(target)]) == 0
    out, _ = capsys.readouterr()
    first, header, *layers = out.splitlines()
    assert first.endswith(": 2 attention Softmax rewritten (float), 0 left alone")
    assert header.split() == ["Softmax", "error", "held", "out", "corrected", "correction"]
    assert len(layers) == 2
    expected = rewrite(model, tmp_path / "p.onnx", calibration=calibrate(model, data), correct="bias", data=data)
    assert target.read_bytes() == (tmp_path / "p.onnx").read_bytes()
    for line, layer in zip(layers, expected.corrections, strict=True):
        assert line.split()[:3] == [layer.node, f"{layer.before:.4f}", f"{layer.after:.4f}"]


def test_rewrite_says_why_a_layer_is_not_corrected(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = save(LIKE_ATTENTION, tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    sample = {name: rng.normal(size=(3, 2, 5, 4)).astype(np.float32) for name in "qkv"}
    np.savez(tmp_path / "d.npz", **sample)
    assert main(["rewrite", str(path), "--data", str(tmp_path / "d.npz"), "--correct", "bias"]) == 0
    assert "left alone: the heads go to 0 nodes" in capsys.readouterr().out


def test_rewrite_corrects_with_a_calibration_file_and_data(model: Path, data: Path, tmp_path: Path) -> None:
    calibrate(model, data).save(tmp_path / "c.json")
    common = ["--data", str(data), "--correct", "bias"]
    assert main(["rewrite", str(model), *common, "-o", str(tmp_path / "a.onnx")]) == 0
    options = ["--calibration", str(tmp_path / "c.json"), "-o", str(tmp_path / "b.onnx")]
    assert main(["rewrite", str(model), *common, *options]) == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_rewrite_corrects_only_with_data(model: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["rewrite", str(model), "--correct", "least-squares"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: --correct: needs samples (least-squares). Add --data DATA.\n")
    assert list(model.parent.iterdir()) == [model]
