"""Shards: DATA cut anywhere gives the same feeds in the same order; patterns stand for all that they match."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx.calibration.data import InputSpec, Samples
from hccs_onnx.calibration.data.npz import NpzFile
from hccs_onnx.calibration.data.shards import Piece, Shard, cut, files
from hccs_onnx.errors import DataError

SPECS = [InputSpec("x", np.dtype(np.int64), ("batch", 2))]
FIXED = [InputSpec("x", np.dtype(np.int64), (2, 2))]


def write(path: Path, first: int, count: int, **options: bool) -> Path:
    x = np.arange(first * 2, (first + count) * 2).reshape(count, 2)
    (np.savez_compressed if options.get("compressed") else np.savez)(path, x=x)
    return path


@pytest.fixture
def pattern(tmp_path: Path) -> Path:
    """Three files of 3, 4 and 1 samples."""
    write(tmp_path / "a.npz", 0, 3)
    write(tmp_path / "b.npz", 3, 4, compressed=True)
    write(tmp_path / "c.npz", 7, 1)
    return tmp_path / "?.npz"


def test_files_of_data_are_those_that_are_read(pattern: Path, tmp_path: Path) -> None:
    archives = [tmp_path / name for name in ("a.npz", "b.npz", "c.npz")]
    assert files(pattern) == files(tmp_path) == archives
    (tmp_path / "notes.txt").write_text("not read")
    sets = tmp_path / "sets"
    for name in ("test_data_set_0", "test_data_set_1"):
        (sets / name).mkdir(parents=True)
        (sets / name / "input_0.pb").write_bytes(b"")
        (sets / name / "output_0.pb").write_bytes(b"")
    inputs = [sets / name / "input_0.pb" for name in ("test_data_set_0", "test_data_set_1")]
    assert files(sets) == inputs
    assert files(tmp_path) == archives


def numbers(samples: Samples) -> list[int]:
    """The first number of each sample, halved: its place in the whole."""
    return [int(value) // 2 for feed in samples for value in feed["x"][:, 0]]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 100])
def test_shards_have_all_feeds_in_order(pattern: Path, count: int) -> None:
    samples = Samples(pattern, SPECS)
    shards = samples.shards(count)
    assert [number for shard in shards for number in numbers(Samples(shard, SPECS))] == list(range(8))
    sizes = [len(shard) for shard in shards]
    assert len(shards) == min(count, 8)
    assert max(sizes) - min(sizes) <= 1
    assert [len(Samples(shard, SPECS)) for shard in shards] == sizes


def test_shards_are_of_whole_batches_when_the_batch_is_fixed(tmp_path: Path) -> None:
    samples = Samples(write(tmp_path / "a.npz", 0, 8), FIXED)
    shards = samples.shards(3)
    assert [len(shard) for shard in shards] == [1, 1, 2]
    assert [numbers(Samples(shard, FIXED)) for shard in shards] == [[0, 1], [2, 3], [4, 5, 6, 7]]


def test_shard_can_be_cut_again(pattern: Path) -> None:
    _, shard = Samples(pattern, SPECS).shards(2)
    again = Samples(shard, SPECS).shards(3)
    assert [numbers(Samples(each, SPECS)) for each in again] == [[4], [5], [6, 7]]


@given(st.lists(st.integers(0, 5), max_size=5), st.integers(1, 9), st.integers(0, 20))
def test_cuts_and_splits_lose_nothing(sizes: list[int], count: int, first: int) -> None:
    def places(shard: Shard) -> list[tuple[str, int]]:
        return [(piece.source.path.name, i) for piece in shard.pieces for i in range(piece.start, piece.stop)]  # type: ignore[attr-defined]

    whole = Shard(tuple(Piece(NpzFile(Path(str(number))), 0, size) for number, size in enumerate(sizes)))
    assert [place for shard in cut(whole, count) for place in places(shard)] == places(whole)
    one, other = whole.split(first)
    assert (places(one), places(other)) == (places(whole)[:first], places(whole)[first:])


def test_shard_can_be_sent_to_another_process_and_folder(
    pattern: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shard = Samples("?.npz", SPECS).shards(2)[1].absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert numbers(Samples(pickle.loads(pickle.dumps(shard)), SPECS)) == [4, 5, 6, 7]


def test_feeds_from_python_cannot_be_cut() -> None:
    with pytest.raises(DataError, match="data: is not in files, so it cannot be cut into shards"):
        Samples([{"x": np.zeros((1, 2), np.int64)}], SPECS).shards(2)


def test_empty_data_cannot_be_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no samples"):
        Samples(tmp_path, SPECS).shards(2)


# --- patterns ------------------------------------------------------------------------------------------------------


def test_pattern_gives_the_samples_of_all_files_in_order_of_names(pattern: Path) -> None:
    assert numbers(Samples(str(pattern), SPECS)) == list(range(8))
    assert len(Samples(pattern, SPECS)) == 8


def test_pattern_reaches_into_folders(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"day{number}" / "hour").mkdir(parents=True)
        write(tmp_path / f"day{number}" / "hour" / "x.npz", number, 1)
    assert numbers(Samples(tmp_path / "**" / "*.npz", SPECS)) == [0, 1, 2]


def test_pattern_of_folders_gives_one_feed_a_file(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"part{number}").mkdir()
        write(tmp_path / f"part{number}" / "x.npz", number * 2, 2)
    assert [feed["x"].shape for feed in Samples(tmp_path / "part*", SPECS)] == [(2, 2)] * 2


def test_file_that_is_called_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    write(tmp_path / "[a].npz", 0, 1)
    write(tmp_path / "a.npz", 5, 1)
    assert numbers(Samples(tmp_path / "[a].npz", SPECS)) == [0]


def test_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\*\.npz: matches no file or folder\. Check --data\."):
        Samples(tmp_path / "*.npz", SPECS)


def test_damage_is_found_when_a_shard_begins_behind_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", 0, 5000, compressed=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="'x': is damaged"):
        list(Samples(Samples(path, SPECS).shards(2)[1], SPECS))
