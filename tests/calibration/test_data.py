"""Samples: every form of DATA gives the same feeds, one at a time; what does not fit is refused with its place."""

from __future__ import annotations

import io
import os
import re
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from hccs_onnx.calibration.data import InputSpec, Samples, input_specs
from hccs_onnx.errors import DataError, HccsError

Arrays = dict[str, np.ndarray]

IDS, X = np.dtype(np.int64), np.dtype(np.float32)
SPECS = [InputSpec("ids", IDS, ("batch", 4)), InputSpec("x", X, ("batch", None, 2))]
FIXED = [InputSpec("ids", IDS, (3, 4)), InputSpec("x", X, (3, None, 2))]
COUNT = 6


@pytest.fixture
def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "ids": rng.integers(0, 100, (COUNT, 4), np.int64),
        "x": rng.normal(size=(COUNT, 5, 2)).astype(np.float32),
    }


def save(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


def batches(arrays: Arrays, size: int = 1) -> list[Arrays]:
    return [{name: a[i : i + size] for name, a in arrays.items()} for i in range(0, COUNT, size)]


def assert_same(feeds: list, expected: list[Arrays]) -> None:
    assert len(feeds) == len(expected)
    for feed, want in zip(feeds, expected, strict=True):
        assert feed.keys() == want.keys()
        for name, value in want.items():
            assert feed[name].dtype == value.dtype
            np.testing.assert_array_equal(feed[name], value)


def write_data_set(folder: Path, feed: Arrays, named: bool = True) -> None:
    folder.mkdir()
    for number, spec in enumerate(SPECS):
        tensor = numpy_helper.from_array(feed[spec.name], spec.name if named else "")
        (folder / f"input_{number}.pb").write_bytes(tensor.SerializeToString())


class Reader:
    """What onnxruntime's quantiser calls a CalibrationDataReader."""

    def __init__(self, feeds: list[Arrays]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Arrays | None:
        return next(self._feeds, None)


# --- forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_npz_feeds_one_sample_each_when_the_batch_is_dynamic(tmp_path: Path, arrays: Arrays, write: Callable) -> None:
    write(tmp_path / "d.npz", **arrays)
    samples = Samples(tmp_path / "d.npz", SPECS)
    assert_same(list(samples), batches(arrays))
    assert len(samples) == COUNT


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_npz_gives_the_same_feeds_when_arrays_are_in_fortran_order(
    tmp_path: Path, arrays: Arrays, write: Callable
) -> None:
    write(tmp_path / "d.npz", ids=arrays["ids"], x=np.asfortranarray(arrays["x"]))
    assert_same(list(Samples(tmp_path / "d.npz", SPECS)), batches(arrays))


def test_npz_feeds_whole_batches_when_the_batch_is_fixed(tmp_path: Path, arrays: Arrays) -> None:
    samples = Samples(save(tmp_path / "d.npz", arrays), FIXED)
    assert_same(list(samples), batches(arrays, 3))
    assert len(samples) == 2


def test_npz_feeds_vectors_when_samples_are_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", n=np.arange(3))
    feeds = list(Samples(tmp_path / "d.npz", [InputSpec("n", IDS, (None,))]))
    assert [feed["n"].tolist() for feed in feeds] == [[0], [1], [2]]


def test_npz_gives_the_same_feeds_when_gone_through_twice_and_named_by_string(tmp_path: Path, arrays: Arrays) -> None:
    samples = Samples(str(save(tmp_path / "d.npz", arrays)), SPECS)
    assert_same(list(samples), batches(arrays))
    assert_same(list(samples), batches(arrays))


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 3), st.booleans(), st.booleans())
def test_npz_feeds_consecutive_slices_of_any_array(
    tmp_path_factory: pytest.TempPathFactory, groups: int, batch: int, rank: int, fortran: bool, compressed: bool
) -> None:
    count = groups * batch
    array = np.arange(count * 2**rank, dtype=np.int64).reshape(count, *[2] * rank)
    path = tmp_path_factory.getbasetemp() / "slices.npz"
    (np.savez_compressed if compressed else np.savez)(path, a=np.asfortranarray(array) if fortran else array)
    feeds = [feed["a"] for feed in Samples(path, [InputSpec("a", IDS, (batch, *[None] * rank))])]
    assert [feed.shape for feed in feeds] == [(batch, *[2] * rank)] * groups
    np.testing.assert_array_equal(np.concatenate(feeds), array)


def test_folder_of_npz_gives_one_feed_a_file_in_order_of_names(tmp_path: Path, arrays: Arrays) -> None:
    for number, feed in enumerate(batches(arrays, 2)):
        np.savez_compressed(tmp_path / f"{2 - number}.npz", ids=feed["ids"], x=np.asfortranarray(feed["x"]))
    samples = Samples(tmp_path, SPECS)
    assert_same(list(samples), batches(arrays, 2)[::-1])
    assert len(samples) == 3


@pytest.mark.parametrize("named", [True, False], ids=["by_name", "by_position"])
def test_onnx_data_sets_give_one_feed_a_folder(tmp_path: Path, arrays: Arrays, named: bool) -> None:
    for number, feed in enumerate(batches(arrays)):
        write_data_set(tmp_path / f"test_data_set_{number}", feed, named)
    (tmp_path / "test_data_set_readme.txt").write_text("not a data set")
    samples = Samples(tmp_path, SPECS)
    assert_same(list(samples), batches(arrays))
    assert len(samples) == COUNT


def test_onnx_tensors_go_to_the_input_they_name_whatever_their_number(tmp_path: Path, arrays: Arrays) -> None:
    feed = batches(arrays)[0]
    (tmp_path / "input_1.pb").write_bytes(numpy_helper.from_array(feed["ids"], "ids").SerializeToString())
    (tmp_path / "input_0.pb").write_bytes(numpy_helper.from_array(feed["x"], "x").SerializeToString())
    assert_same(list(Samples(tmp_path, SPECS)), [feed])


def test_onnx_tensors_go_by_number_not_by_file_order_when_there_are_more_than_ten(tmp_path: Path) -> None:
    specs = [InputSpec(f"in{number}", IDS, (1,)) for number in range(12)]
    for number in range(12):
        tensor = numpy_helper.from_array(np.array([number]))
        (tmp_path / f"input_{number}.pb").write_bytes(tensor.SerializeToString())
    (feed,) = Samples(tmp_path, specs)
    assert {name: int(value[0]) for name, value in feed.items()} == {f"in{number}": number for number in range(12)}


@pytest.mark.parametrize(
    ("make", "length"),
    [(list, COUNT), (tuple, COUNT), (iter, 0), (Reader, 0)],
    ids=["list", "tuple", "generator", "reader"],
)
def test_python_sources_give_their_feeds(arrays: Arrays, make: Callable, length: int) -> None:
    samples = Samples(make(batches(arrays)), SPECS)
    assert len(samples) == length
    assert_same(list(samples), batches(arrays))


def test_python_source_is_read_no_further_than_asked(arrays: Arrays) -> None:
    taken = []

    def source() -> Iterator[Arrays]:
        for number, feed in enumerate(batches(arrays)):
            taken.append(number)
            yield feed

    for number, _ in enumerate(Samples(source(), SPECS)):
        assert taken == list(range(number + 1))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_npz_is_read_in_memory_that_does_not_grow_with_it(tmp_path: Path, write: Callable) -> None:
    specs = [InputSpec("x", X, (None, 50_000))]

    def peak(count: int) -> int:
        write(tmp_path / "d.npz", x=np.zeros((count, 50_000), np.float32))
        tracemalloc.start()
        try:
            assert sum(1 for _ in Samples(tmp_path / "d.npz", specs)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(4), peak(120)
    assert many < 1.2 * few
    assert many < 10 * 200_000  # a few samples of 200 kB, of 24 MB


def test_input_specs_are_the_inputs_without_initializers() -> None:
    text = """<ir_version: 3, opset_import: ["": 11]>
    g (int64[n,3] ids, float16[2,m] x, float[2] w, float s) => (float y) <float[2] w = {1.0, 2.0}> {}"""
    specs = input_specs(onnx.parser.parse_model(text))
    assert [(spec.name, spec.dtype, spec.shape) for spec in specs] == [
        ("ids", np.dtype(np.int64), ("n", 3)),
        ("x", np.dtype(np.float16), (2, "m")),
        ("s", np.dtype(np.float32), ()),
    ]


def test_input_specs_refuse_an_input_that_is_not_a_tensor() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (seq(float[n]) s, float[n] x) => (float[n] y) { y = Neg (x) }'
    with pytest.raises(HccsError, match="input 's'"):
        input_specs(onnx.parser.parse_model(text))


# --- what does not fit ---------------------------------------------------------------------------------------------


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, name: change(arrays[name].copy())}


def spoiled(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def spoil(array: np.ndarray) -> np.ndarray:
        array[-1, 0, 0] = value
        return array

    return spoil


MISFITS = {
    "missing": (without("x"), r"lacks input x \(has ids, needs exactly ids, x\)"),
    "extra": (lambda arrays: {**arrays, "mask": arrays["ids"]}, r"has mask, which the model lacks"),
    "renamed": (
        lambda arrays: {"ids": arrays["ids"], "X": arrays["x"]},
        r"lacks input x \(has X, ids, needs exactly ids, x\)\. Name arrays as the model",
    ),
    "type": (changed("ids", lambda a: a.astype(np.int32)), r"input 'ids': has the wrong type \(int32, needs int64\)"),
    "double": (changed("x", lambda a: a.astype(np.float64)), r"input 'x': has the wrong type \(float64, needs float32"),
    "text": (changed("x", lambda a: a.astype(str)), r"input 'x': has the wrong type"),
    "size": (changed("ids", lambda a: a[:, :3]), r"input 'ids': has the wrong shape \(\[1, 3\], needs \[batch, 4\]\)"),
    "rank": (
        changed("x", lambda a: a[..., 0]),
        r"input 'x': has the wrong shape \(\[1, 5\], needs \[batch, \?, 2\]\)\. Add the axis that it lacks",
    ),
    "higher_rank": (
        changed("ids", lambda a: a[..., None]),
        r"input 'ids': has the wrong shape \(\[1, 4, 1\], .*\)\. Reshape",
    ),
    "nan": (changed("x", spoiled(np.nan)), r"input 'x': holds NaN or \+infinity"),
    "infinity": (changed("x", spoiled(np.inf)), r"input 'x': holds NaN or \+infinity"),
    "no_length": (changed("x", lambda a: a[:, :0]), r"input 'x': is empty \(\[1, 0, 2\]\)"),
}


def assert_refused(samples: Callable[[], object], pattern: str, subject: object = "") -> None:
    with pytest.raises(DataError, match=pattern) as caught:
        samples()
    text = str(caught.value)
    assert text.startswith(str(subject))
    assert "\n" not in text
    assert text.endswith(".")


@pytest.mark.parametrize("kind", MISFITS)
def test_npz_is_refused(tmp_path: Path, arrays: Arrays, kind: str) -> None:
    change, pattern = MISFITS[kind]
    path = save(tmp_path / "d.npz", change(arrays))
    assert_refused(lambda: list(Samples(path, SPECS)), pattern, "d.npz" if "input '" not in pattern else path)


@pytest.mark.parametrize("kind", MISFITS)
def test_folder_of_npz_is_refused_with_the_file(tmp_path: Path, arrays: Arrays, kind: str) -> None:
    change, pattern = MISFITS[kind]
    feeds = batches(arrays)
    save(tmp_path / "a.npz", feeds[0])
    save(tmp_path / "b.npz", change(feeds[1]))
    assert_refused(lambda: list(Samples(tmp_path, SPECS)), pattern, tmp_path / "b.npz")


@pytest.mark.parametrize("kind", [kind for kind in MISFITS if kind not in ("extra", "renamed", "text")])
def test_onnx_data_sets_are_refused_with_the_folder(tmp_path: Path, arrays: Arrays, kind: str) -> None:
    change, pattern = MISFITS[kind]
    write_data_set(tmp_path / "test_data_set_0", batches(arrays)[0])
    write_data_set(tmp_path / "test_data_set_1", batches(arrays)[1])
    feed = change(batches(arrays)[1])
    for number, spec in enumerate(SPECS):
        file = tmp_path / "test_data_set_1" / f"input_{number}.pb"
        if spec.name in feed:
            file.write_bytes(numpy_helper.from_array(feed[spec.name], spec.name).SerializeToString())
        else:
            file.unlink()
    assert_refused(lambda: list(Samples(tmp_path, SPECS)), pattern, tmp_path / "test_data_set_1")


@pytest.mark.parametrize("kind", MISFITS)
def test_python_feed_is_refused_with_its_number(arrays: Arrays, kind: str) -> None:
    change, pattern = MISFITS[kind]
    feeds = batches(arrays)
    assert_refused(lambda: list(Samples([feeds[0], change(feeds[1])], SPECS)), pattern, "data: sample 1: ")


@pytest.mark.parametrize("feed", [np.zeros((1, 4)), [1, 2], 7], ids=["array", "list", "number"])
def test_python_feed_is_refused_when_it_is_not_a_mapping(feed: object) -> None:
    assert_refused(lambda: list(Samples([feed], SPECS)), "sample 0", "data: sample 0")  # type: ignore[list-item]


def test_refusal_of_what_is_no_archive_shows_how_to_write_one(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros(3))
    specs = [InputSpec(name, np.dtype(np.float32), None) for name in ("x", "input.1")]
    pattern = r"d\.npy: is not an \.npz .* numpy\.savez\('d\.npz', x=array, \*\*{'input\.1': array}\)\."
    assert_refused(lambda: list(Samples(tmp_path / "d.npy", specs)), pattern)


def test_single_dict_in_place_of_a_list_is_refused(arrays: Arrays) -> None:
    pattern = r"data: is a single dict \(needs a list of dicts, one a feed\)\. Put it into a list\."
    assert_refused(lambda: Samples(arrays, SPECS), pattern)  # type: ignore[arg-type]


def test_arrays_are_refused_with_their_byte_order_when_it_is_not_the_machines(tmp_path: Path, arrays: Arrays) -> None:
    save(tmp_path / "d.npz", {**arrays, "x": arrays["x"].astype(">f4")})
    with pytest.raises(DataError) as caught:
        list(Samples(tmp_path / "d.npz", SPECS))
    assert "(float32, needs float32)" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (changed("x", lambda a: a[:4]), r"different numbers of samples \(ids 6, x 4, needs one number\)"),
        (lambda arrays: {name: a[:0] for name, a in arrays.items()}, "holds no samples"),
        (changed("x", lambda a: a[0, 0, 0]), r"array 'x': is a scalar, without an axis of samples\. Give a folder of"),
        (lambda arrays: {}, r"lacks input ids, x \(has nothing, needs"),
        (changed("x", lambda a: a.astype(object)), r"array 'x.npy' cannot be read"),
    ],
    ids=["unequal", "none", "scalars", "no_arrays", "objects"],
)
def test_npz_is_refused_as_a_whole(tmp_path: Path, arrays: Arrays, change: Callable, pattern: str) -> None:
    save(tmp_path / "d.npz", change(arrays))
    assert_refused(lambda: list(Samples(tmp_path / "d.npz", SPECS)), pattern)


def test_npz_with_pickled_objects_is_refused_without_running_them(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "d.npz", ids=np.array([Trap()], object), x=np.zeros((1, 5, 2), np.float32))
    assert_refused(lambda: list(Samples(tmp_path / "d.npz", SPECS)), "array 'ids.npy' cannot be read")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("count", [1, 4, 5])
def test_npz_is_refused_when_samples_do_not_fill_a_fixed_batch(tmp_path: Path, arrays: Arrays, count: int) -> None:
    path = save(tmp_path / "d.npz", {name: a[:count] for name, a in arrays.items()})
    pattern = rf"samples do not fill the model's batch \({count}, needs a multiple of 3\)"
    assert_refused(lambda: list(Samples(path, FIXED)), pattern, path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x93NUMPY", b"pixels,0,1\n" * 9], ids=["empty", "stub", "npy", "csv"]
)
def test_file_is_refused_when_it_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    assert_refused(lambda: list(Samples(path, SPECS)), "is not an .npz archive", path)
    assert_refused(lambda: len(Samples(path, SPECS)), "is not an .npz archive", path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_npz_is_refused_when_truncated(tmp_path: Path, arrays: Arrays, share: float) -> None:
    path = save(tmp_path / "d.npz", arrays)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert_refused(lambda: list(Samples(path, SPECS)), "is not an .npz archive", path)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("where", ["magic", "header", "values"])
def test_npz_is_refused_when_a_member_is_damaged(tmp_path: Path, arrays: Arrays, write: Callable, where: str) -> None:
    path = tmp_path / "d.npz"
    write(path, **{name: np.tile(a, (50, *[1] * (a.ndim - 1))) for name, a in arrays.items()})
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("x.npy")
    data = bytearray(path.read_bytes())
    start = info.header_offset + 30 + data[info.header_offset + 26] + data[info.header_offset + 28]
    start += {"magic": 0, "header": 20, "values": info.compress_size // 2}[where]
    for position in range(start, start + 16):
        data[position] ^= 0x55
    path.write_bytes(bytes(data))
    assert_refused(lambda: list(Samples(path, SPECS)), "array 'x.*(is damaged|cannot be read)")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_npz_is_closed_when_a_sample_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    path = save(tmp_path / "d.npz", {name: np.repeat(a, 100, axis=0) for name, a in arrays.items()})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("x.npy")
    data[info.header_offset + info.compress_size] ^= 1  # the checksum fails with the last sample
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="is damaged") as caught:
        list(Samples(path, SPECS))
    assert caught.value.__traceback__ is not None  # still refers to the frames in between
    assert str(path) not in {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}


def test_npz_is_refused_when_a_member_is_no_array(tmp_path: Path, arrays: Arrays) -> None:
    path = save(tmp_path / "d.npz", arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "hello")
    assert_refused(lambda: list(Samples(path, SPECS)), "array 'readme.txt' cannot be read")


def with_member_header(path: Path, offset: int, value: int) -> None:
    """Set a byte of the first member's central directory entry (APPNOTE 4.3.12) and its local header."""
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + offset] = value
    data[offset - 2] = value  # local headers lack the "version made by" field
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 97)], ids=["encrypted", "unknown_compression"])
def test_npz_is_refused_when_zipfile_cannot_unpack_a_member(
    tmp_path: Path, arrays: Arrays, offset: int, value: int
) -> None:
    path = save(tmp_path / "d.npz", arrays)
    with_member_header(path, offset, value)
    assert_refused(lambda: list(Samples(path, SPECS)), "array 'ids.npy' cannot be read")


def test_npz_is_refused_when_its_zip_version_is_unknown(tmp_path: Path, arrays: Arrays) -> None:
    path = save(tmp_path / "d.npz", arrays)
    with_member_header(path, 6, 99)
    assert_refused(lambda: list(Samples(path, SPECS)), "is not an .npz archive", path)


@given(st.data())
def test_npz_is_read_or_refused_whatever_bits_flip(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = io.BytesIO()
    np.savez(file, ids=np.arange(12).reshape(3, 4), x=np.ones((3, 5, 2), np.float32))
    content = bytearray(file.getvalue())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    path.write_bytes(bytes(content))
    try:
        assert len(list(Samples(path, SPECS))) == 3
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("content", [(), ("readme.txt",), ("data_0.pb", "output_0.pb")], ids=["bare", "text", "others"])
def test_folder_is_refused_when_it_holds_no_samples(tmp_path: Path, content: tuple[str, ...]) -> None:
    for name in content:
        (tmp_path / name).write_bytes(b"x")
    assert_refused(lambda: list(Samples(tmp_path, SPECS)), "holds no samples", tmp_path)


@pytest.mark.parametrize("source", [[], (), iter([]), Reader([])], ids=["list", "tuple", "iterator", "reader"])
def test_python_source_is_refused_when_it_is_empty(source: object) -> None:
    assert_refused(lambda: list(Samples(source, SPECS)), "holds no samples", "data")  # type: ignore[arg-type]


def test_path_is_refused_when_nothing_is_there(tmp_path: Path) -> None:
    assert_refused(
        lambda: Samples(tmp_path / "none.npz", SPECS),
        r"no such file or folder",
        tmp_path / "none.npz",
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [("input_0.pb", b"\xff\xff\xff"), ("input_0.pb", b""), ("input_0.pb", b"hello"), ("input_one.pb", None)],
    ids=["garbage", "empty", "text", "number"],
)
def test_onnx_data_set_is_refused_when_a_file_is_no_tensor(
    tmp_path: Path, arrays: Arrays, name: str, content: bytes | None
) -> None:
    tensor = numpy_helper.from_array(batches(arrays)[0]["ids"], "ids").SerializeToString()
    (tmp_path / name).write_bytes(tensor if content is None else content)
    assert_refused(lambda: list(Samples(tmp_path, SPECS)), "is not an ONNX tensor", tmp_path / name)


def test_onnx_data_set_is_refused_when_it_has_more_tensors_than_the_model(tmp_path: Path, arrays: Arrays) -> None:
    folder = tmp_path / "test_data_set_0"
    write_data_set(folder, batches(arrays)[0])
    (folder / "input_2.pb").write_bytes(numpy_helper.from_array(np.zeros(1), "mask").SerializeToString())
    pattern = r"has more inputs than the model \(3, needs at most 2\)"
    assert_refused(lambda: list(Samples(tmp_path, SPECS)), pattern, folder)


def test_every_sample_before_the_bad_one_is_given(arrays: Arrays) -> None:
    feeds = batches(arrays)
    feeds[3] = {"ids": feeds[3]["ids"]}
    seen = []
    with pytest.raises(DataError, match=re.escape("data: sample 3: lacks input x")):
        seen.extend(iter(Samples(feeds, SPECS)))
    given_before = []
    with pytest.raises(DataError):
        for feed in Samples(feeds, SPECS):
            given_before.append(feed)  # noqa: PERF402
    assert_same(given_before, feeds[:3])
