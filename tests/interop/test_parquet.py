"""Parquet files as DATA: the feeds of an .npz with the same samples, a row group in memory, clear refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import DIGITS
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx import calibrate
from hccs_onnx.calibration.data import InputSpec, Samples
from hccs_onnx.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COUNT = 10
SPECS = [
    InputSpec("ids", np.dtype(np.int64), ("batch", 4)),
    InputSpec("x.1", np.dtype(np.float32), ("batch", 3, 2)),
    InputSpec("n", np.dtype(np.int32), ("batch",)),
]


def arrays(count: int = COUNT) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "ids": rng.integers(0, 99, (count, 4)),
        "x.1": rng.normal(size=(count, 3, 2)).astype(np.float32),
        "n": np.arange(count, dtype=np.int32),
    }


def as_lists(array: np.ndarray) -> object:
    return pa.array(array.tolist(), nested(pa.list_, array))


def as_large_lists(array: np.ndarray) -> object:
    return pa.array(array.tolist(), nested(pa.large_list, array))


def as_fixed_lists(array: np.ndarray) -> object:
    kind = pa.from_numpy_dtype(array.dtype)
    for size in array.shape[:0:-1]:
        kind = pa.list_(kind, size)
    return pa.array(array.tolist(), kind)


def as_tensors(array: np.ndarray) -> object:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(array) if array.ndim > 1 else pa.array(array)


def nested(make: object, array: np.ndarray) -> object:
    kind = pa.from_numpy_dtype(array.dtype)
    for _ in array.shape[1:]:
        kind = make(kind)  # type: ignore[operator]
    return kind


def write(path: Path, data: dict[str, np.ndarray], form: object = as_lists, rows: int = 4) -> Path:
    table = pa.table({name: form(array) for name, array in data.items()})  # type: ignore[operator]
    pq.write_table(table, path, row_group_size=rows)
    return path


def assert_feeds(feeds: list, expected: list[dict[str, np.ndarray]]) -> None:
    assert len(feeds) == len(expected)
    for feed, want in zip(feeds, expected, strict=True):
        assert feed.keys() == want.keys()
        for name, value in want.items():
            assert feed[name].dtype == value.dtype
            np.testing.assert_array_equal(feed[name], value)


@pytest.mark.parametrize("form", [as_lists, as_large_lists, as_fixed_lists, as_tensors])
def test_rows_are_fed_one_by_one_however_arrays_are_written(tmp_path: Path, form: object) -> None:
    path = write(tmp_path / "d.parquet", arrays(), form)
    expected = [{name: array[i : i + 1] for name, array in arrays().items()} for i in range(COUNT)]
    assert_feeds(list(Samples(path, SPECS)), expected)
    assert len(Samples(path, SPECS)) == COUNT


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))
def test_shards_have_all_rows_whatever_row_groups_batches_and_cuts(
    tmp_path_factory: pytest.TempPathFactory, feeds: int, batch: int, rows: int, shards: int
) -> None:
    specs = [InputSpec("ids", np.dtype(np.int64), (batch, 1))]
    ids = np.arange(feeds * batch)[:, None]
    path = write(tmp_path_factory.getbasetemp() / "shards.parquet", {"ids": ids}, rows=rows)
    parts = [list(Samples(shard, specs)) for shard in Samples(path, specs).shards(shards)]
    assert len(parts) == min(shards, feeds)
    expected = [{"ids": ids[i : i + batch]} for i in range(0, feeds * batch, batch)]
    assert_feeds([feed for part in parts for feed in part], expected)


def test_rows_may_differ_in_length(tmp_path: Path) -> None:
    table = pa.table({"ids": [[1, 2], [3], [4, 5, 6]]})
    pq.write_table(table, tmp_path / "d.parquet")
    feeds = Samples(tmp_path / "d.parquet", [InputSpec("ids", np.dtype(np.int64), ("batch", "length"))])
    assert [feed["ids"].tolist() for feed in feeds] == [[[1, 2]], [[3]], [[4, 5, 6]]]


def test_columns_that_the_model_does_not_take_are_left_alone(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "n": pa.array([1, 2], pa.int32()), "label": [0, 1]})
    pq.write_table(table, tmp_path / "d.parquet")
    assert [feed["n"].tolist() for feed in Samples(tmp_path / "d.parquet", SPECS[2:])] == [[1], [2]]


def test_folder_gives_the_rows_of_all_its_files_in_order_of_names(tmp_path: Path) -> None:
    for number in (1, 0):
        write(tmp_path / f"{number}.parquet", {"n": np.array([2 * number, 2 * number + 1], np.int32)})
    assert [int(feed["n"][0]) for feed in Samples(tmp_path, SPECS[2:])] == [0, 1, 2, 3]
    shutil.copy(DIGITS / "test.npz", tmp_path)
    with pytest.raises(DataError, match=r"holds \.npz and Parquet files"):
        Samples(tmp_path, SPECS[2:])


def test_row_groups_before_a_shard_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", {"n": np.arange(40, dtype=np.int32)}, rows=10)
    data = bytearray(path.read_bytes())
    data[8:40] = bytes(32)  # in the first row group
    path.write_bytes(data)
    first, *_, last = Samples(path, SPECS[2:]).shards(4)
    assert [int(feed["n"][0]) for feed in Samples(last, SPECS[2:])] == list(range(30, 40))
    with pytest.raises(DataError, match=r"d\.parquet: cannot be read as Parquet"):
        list(Samples(first, SPECS[2:]))


def test_calibration_has_the_bytes_of_that_from_npz(tmp_path: Path) -> None:
    with np.load(DIGITS / "calibration.npz") as data:
        pixels = data["pixels"][:6]
    np.savez(tmp_path / "d.npz", pixels=pixels)
    write(tmp_path / "d.parquet", {"pixels": pixels[::-1]})
    model = DIGITS / "digits_dynamo.onnx"
    assert calibrate(model, tmp_path / "d.parquet").to_json() == calibrate(model, tmp_path / "d.npz").to_json()


@pytest.mark.parametrize(
    ("table", "pattern"),
    [
        ({"other": [1]}, r"d\.parquet: lacks input n \(has other, needs exactly n\)"),
        ({"n": [1.5]}, r"sample 0: input 'n': has the wrong type \(float64, needs int32\)"),
        ({"n": ["a"]}, "has the wrong type"),
        ({"n": [[1]]}, "has the wrong"),
        ({"n": [None, 1]}, r"'n': holds missing values \(1\)"),
        ({"n": [[[1], [2, 3]]]}, "'n': holds lists of different lengths within one row"),
    ],
    ids=["missing_column", "type", "text", "shape", "null", "ragged"],
)
def test_tables_that_do_not_fit_are_refused(tmp_path: Path, table: dict, pattern: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=pattern):
        list(Samples(tmp_path / "d.parquet", SPECS[2:]))


def test_batch_of_rows_that_differ_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ids": [[1, 2], [3]]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="sample 0: rows of one batch differ in shape"):
        list(Samples(tmp_path / "d.parquet", [InputSpec("ids", np.dtype(np.int64), (2, None))]))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"id\n1\n"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.parquet: cannot be read as Parquet"):
        list(Samples(tmp_path / "d.parquet", SPECS))


def test_parquet_is_refused_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "d.parquet", arrays())
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow\. pip install hccs-onnx\[parquet\]"):
        list(Samples(path, SPECS))
