"""The calibration file: the same calibration back, a schema that real files obey, and every broken file refused."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx import Calibration, HeadParams, calibrate
from hccs_onnx.calibration.file import SoftmaxCalibration, schema
from hccs_onnx.calibration.fit import HeadFit
from hccs_onnx.demo import bundled_models
from hccs_onnx.errors import CalibrationError, ModelError

Content = dict[str, Any]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    with np.load(bundled_models() / "calibration.npz") as data:
        feeds = [{"pixels": sample[None]} for sample in data["pixels"][:8]]
    return calibrate(bundled_models() / "digits_dynamo.onnx", feeds)


@pytest.fixture
def content(calibration: Calibration) -> Content:
    return json.loads(calibration.to_json())


def test_file_gives_the_same_calibration_back(tmp_path: Path, calibration: Calibration) -> None:
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration


def test_file_gives_the_same_bytes_when_saved_again(tmp_path: Path, calibration: Calibration) -> None:
    calibration.save(tmp_path / "a.json")
    Calibration.load(tmp_path / "a.json").save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


finite = st.floats(allow_nan=False, allow_infinity=False)
heads = st.builds(
    HeadFit,
    st.builds(
        HeadParams,
        st.integers(127 * 127, 32767),
        st.integers(0, 127),
        st.integers(1, 127),
        st.floats(2.0**-99, 2.0**99, width=32),
    ),
    finite | st.just(math.inf),
    finite,
)
softmaxes = st.builds(
    SoftmaxCalibration,
    node=st.text(),
    logits=st.text(),
    head_axis=st.just(-3),
    longest=st.integers(1, 2**40),
    masked=st.booleans(),
    heads=st.lists(heads, min_size=1, max_size=3).map(tuple),
)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
calibrations = st.builds(
    Calibration,
    model_sha256=digests,
    tool_version=st.text(),
    profile=st.just("extended"),
    granularity=st.sampled_from(["head", "layer", "global"]),
    output=st.just("float"),
    reciprocal=st.sampled_from(["norm", "div", "clb"]),
    data_fingerprint=digests,
    rows=st.integers(1, 2**40),
    softmaxes=st.lists(softmaxes, min_size=1, max_size=3).map(tuple),
)


@given(calibrations)
def test_file_holds_any_legal_calibration_exactly(
    tmp_path_factory: pytest.TempPathFactory, calibration: Calibration
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    calibration.save(path)
    assert Calibration.load(path) == calibration


def test_file_has_sorted_keys_and_ends_with_a_newline(calibration: Calibration, content: Content) -> None:
    text = calibration.to_json()
    assert text == json.dumps(content, indent=1, sort_keys=True) + "\n"
    assert text.isascii()


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_schema_describes_a_real_file(content: Content) -> None:
    jsonschema.Draft202012Validator(schema()).validate(content)


def test_schema_names_every_field_of_a_real_file(content: Content) -> None:
    definitions = schema()["$defs"]
    assert set(schema()["properties"]) == set(schema()["required"]) == set(content)
    assert set(definitions["softmax"]["properties"]) == set(content["softmaxes"][0])
    assert set(definitions["head"]["properties"]) == set(content["softmaxes"][0]["heads"][0])


# --- writing -------------------------------------------------------------------------------------------------------


def test_saving_keeps_the_old_file_when_the_disk_is_full(
    tmp_path: Path, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.json").write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelError, match=r"c.json: cannot be written \(No space left on device\)"):
        calibration.save(tmp_path / "c.json")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("c.json", "old")]


def test_saving_leaves_nothing_when_interrupted(
    tmp_path: Path, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        calibration.save(tmp_path / "c.json")
    assert list(tmp_path.iterdir()) == []


def test_saving_is_refused_when_the_folder_is_missing(tmp_path: Path, calibration: Calibration) -> None:
    with pytest.raises(ModelError, match="cannot be written"):
        calibration.save(tmp_path / "none" / "c.json")
    assert list(tmp_path.iterdir()) == []


def test_saved_file_can_be_read_by_others_as_the_umask_says(tmp_path: Path, calibration: Calibration) -> None:
    old = os.umask(0o027)
    try:
        calibration.save(tmp_path / "c.json")
    finally:
        os.umask(old)
    assert (tmp_path / "c.json").stat().st_mode & 0o777 == 0o640


# --- broken files --------------------------------------------------------------------------------------------------


def assert_refused(path: Path, pattern: str | None = None) -> None:
    with pytest.raises(CalibrationError, match=pattern) as caught:
        Calibration.load(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert text.endswith(".")


def test_file_is_refused_when_missing_or_a_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.json", "cannot be read")
    assert_refused(tmp_path, "cannot be read")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"hello", b"\x08\x08\x12\x07pytorch", b"\xff\xfe\x00{", b"{} {}", b'{"a": \xe9}', b"\xef\xbb\xbf{}"],
    ids=["empty", "truncated", "text", "onnx", "binary", "two_documents", "latin_1", "byte_order_mark"],
)
def test_file_is_refused_when_it_is_not_json(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "c.json").write_bytes(data)
    assert_refused(tmp_path / "c.json", "is not JSON")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_file_is_refused_when_it_is_nested_deeply(tmp_path: Path, opening: str) -> None:
    (tmp_path / "c.json").write_text(opening * 100_000)
    assert_refused(tmp_path / "c.json")


@pytest.mark.parametrize("document", ["[]", "7", '"text"', "null", "{}", '{"format": "hccs-calibration"}', "[[1, 2]]"])
def test_file_is_refused_when_it_is_other_json(tmp_path: Path, document: str) -> None:
    (tmp_path / "c.json").write_text(document)
    assert_refused(tmp_path / "c.json", r"\$")


def write(folder: Path, content: Content) -> Path:
    (folder / "c.json").write_text(json.dumps(content))
    return folder / "c.json"


PLACES: dict[str, Callable[[Content], Content]] = {
    "top": lambda content: content,
    "softmax": lambda content: content["softmaxes"][1],
    "head": lambda content: content["softmaxes"][1]["heads"][2],
    "params": lambda content: content["softmaxes"][1]["heads"][2]["params"],
}


@pytest.mark.parametrize("place", PLACES)
def test_file_is_refused_when_any_key_is_missing(tmp_path: Path, content: Content, place: str) -> None:
    for key in PLACES[place](content):
        broken = copy.deepcopy(content)
        del PLACES[place](broken)[key]
        assert_refused(write(tmp_path, broken), f"'{key}' is a required property")


@pytest.mark.parametrize("place", PLACES)
def test_file_is_refused_when_it_has_a_further_key(tmp_path: Path, content: Content, place: str) -> None:
    PLACES[place](content)["colour"] = "red"
    assert_refused(write(tmp_path, content), "'colour' was unexpected")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [None, [], {}, "x", True, -1.5], ids=repr)
def test_file_is_refused_when_any_value_has_a_wrong_type(
    tmp_path: Path, content: Content, place: str, value: Any
) -> None:
    good = {"node": "x", "logits": "x", "tool_version": "x", "masked": True, "kl": -1.5, "deficit": -1.5}
    for key in PLACES[place](content):
        if good.get(key) != value:
            broken = copy.deepcopy(content)
            PLACES[place](broken)[key] = value
            assert_refused(write(tmp_path, broken))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "hccs"),
        ("version", 2),
        ("version", "1"),
        ("profile", "aie"),
        ("profile", "paper"),  # has no float output
        ("granularity", "row"),
        ("output", "int8"),
        ("reciprocal", "exact"),
        ("model_sha256", "abc"),
        ("data_fingerprint", "z" * 64),
        ("rows", 0),
        ("softmaxes", []),
    ],
)
def test_file_is_refused_when_a_field_says_what_is_not_known(
    tmp_path: Path, content: Content, key: str, value: Any
) -> None:
    content[key] = value
    assert_refused(write(tmp_path, content))


@pytest.mark.parametrize(
    ("name", "value", "pattern"),
    [
        ("B", 0, r"offset B out of range \(0, needs >= 1\)"),
        ("B", 32768, r"offset B out of range \(32768, needs <= 32767\)"),
        ("B", -5, "offset B"),
        ("B", 10**30, "offset B"),
        ("B", 100, r"floor B - S\*Dmax is negative"),
        ("S", -1, r"slope S out of range \(-1, needs >= 0\)"),
        ("S", 128, r"slope S out of range \(128, needs <= 127\)"),
        ("Dmax", 0, r"clip distance Dmax out of range \(0, needs >= 1\)"),
        ("Dmax", 128, r"clip distance Dmax out of range \(128, needs <= 127\)"),
        ("B", 1.5, "is not of type 'integer'"),
        ("S", "100", "is not of type 'integer'"),
        ("scale", 0, "scale is not positive and finite"),
        ("scale", -0.1, "scale is not positive and finite"),
    ],
)
def test_file_is_refused_when_a_parameter_is_illegal(
    tmp_path: Path, content: Content, name: str, value: Any, pattern: str
) -> None:
    PLACES["params"](content)[name] = value
    path = write(tmp_path, content)
    assert_refused(path, pattern)
    if "type" not in pattern:
        assert_refused(path, f"node '{content['softmaxes'][1]['node']}': head 2: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=repr)
@pytest.mark.parametrize("place", ["head", "params"])
def test_file_is_refused_when_a_number_is_not_finite(
    tmp_path: Path, content: Content, place: str, value: float
) -> None:
    for key in PLACES[place](content):
        if key != "params":
            broken = copy.deepcopy(content)
            PLACES[place](broken)[key] = value
            assert_refused(write(tmp_path, broken))


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_file_is_refused_when_a_scale_does_not_fit_float32(tmp_path: Path, content: Content, scale: float) -> None:
    PLACES["params"](content)["scale"] = scale
    assert_refused(write(tmp_path, content), "scale is not positive and finite")


@pytest.mark.parametrize("name", ["B", "S", "Dmax"])
def test_whole_numbers_are_integers_when_written_with_a_point(tmp_path: Path, content: Content, name: str) -> None:
    value = PLACES["params"](content)[name]
    PLACES["params"](content)[name] = float(value)
    params = Calibration.load(write(tmp_path, content)).softmaxes[1].heads[2].params
    assert type(getattr(params, name)) is int
    assert getattr(params, name) == value


@pytest.mark.parametrize("key", ["kl", "deficit"])
def test_file_is_refused_when_a_number_is_beyond_all_floats(tmp_path: Path, content: Content, key: str) -> None:
    PLACES["head"](content)[key] = 12345.5
    path = write(tmp_path, content)
    path.write_text(path.read_text().replace("12345.5", "1e999"))
    assert_refused(path)


def test_file_is_refused_when_parameters_are_illegal_for_its_reciprocal(tmp_path: Path, content: Content) -> None:
    content.update(output="int16", reciprocal="div")
    assert_refused(write(tmp_path, content), r"row sum overflows int16: n\*B for n = 16")
