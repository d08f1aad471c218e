"""Sketch files: what is read is what was written, whatever was added in whatever order; nothing else is believed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sketches import OBSERVED, SUBJECT, sketch_of

from hccs_onnx.calibration import sketch_file
from hccs_onnx.calibration.merge import merge_files
from hccs_onnx.calibration.model_sketch import ModelSketch
from hccs_onnx.calibration.sketch import MOST_ROWS
from hccs_onnx.calibration.sketch_encoding import Reader, add_encoded, encoded
from hccs_onnx.calibration.sketch_file import Sum, from_bytes, read, save, to_bytes
from hccs_onnx.errors import CalibrationError, HccsError

SMALL = to_bytes(sketch_of([1, 2], keep_rows=True))


def assert_same(one: ModelSketch, other: ModelSketch) -> None:
    assert (one.subject, one.parts, one.feeds) == (other.subject, other.parts, other.feeds)
    for a, b in zip(one.sketches, other.sketches, strict=True):
        assert a.longest == b.longest
        for name in ("rows", "entropy", "log_length", "mass", "headroom_rows", "headroom"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for a, b in zip(one.samples, other.samples, strict=True):
        assert a.longest == b.longest
        np.testing.assert_array_equal(a.highest, b.highest)
        np.testing.assert_array_equal(a.lowest, b.lowest)
        for head in range(len(a.rows)):
            np.testing.assert_array_equal(a.matrix(head), b.matrix(head))


# --- round trip and sums -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_rows", [True, False])
@pytest.mark.parametrize("seeds", [[0], [1], [1, 2, 3, 4]], ids=["one_never_ran", "both_ran", "more"])
def test_what_is_read_is_what_was_written(tmp_path: Path, seeds: list[int], keep_rows: bool) -> None:
    sketch = sketch_of(seeds, keep_rows=keep_rows)
    save(sketch, tmp_path / "s.sketch")
    assert_same(from_bytes(read(tmp_path / "s.sketch"), "s"), sketch)
    assert to_bytes(from_bytes(read(tmp_path / "s.sketch"), "s")) == (tmp_path / "s.sketch").read_bytes()


@given(st.lists(st.integers(0, 40), min_size=2, max_size=8), st.data())
def test_sum_has_the_same_bytes_for_any_split_order_and_grouping(seeds: list[int], data: st.DataObject) -> None:
    together = to_bytes(sketch_of(seeds))
    order = data.draw(st.permutations(seeds))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(seeds) - 1))))
    bounds = [0, *cuts, len(seeds)]
    parts = [sketch_of(order[a:b]) for a, b in pairwise(bounds)]
    while len(parts) > 1:  # any tree, in memory or through bytes
        one, other = parts.pop(data.draw(st.integers(0, len(parts) - 1))), parts.pop(0)
        if data.draw(st.booleans()):
            parts.append(one + other)
        else:
            total = Sum()
            total.add(to_bytes(one), "one")
            total.add(to_bytes(other), "other")
            parts.append(total.result())
    assert to_bytes(parts[0].as_one_part()) == together


@given(st.lists(st.integers(0, 2**63 - 1) | st.integers(0, 70000) | st.just(0), max_size=40))
def test_numbers_of_any_size_are_read_back(numbers: list[int]) -> None:
    data = b"".join(encoded(np.array(numbers, np.int64)))
    reader, into = Reader(memoryview(data), "n"), np.ones(len(numbers), np.int64)
    add_encoded(reader, into)
    reader.finish()
    np.testing.assert_array_equal(into.view(np.uint64), np.array(numbers, np.uint64) + np.uint64(1))


def test_fingerprint_is_that_of_all_data_whatever_the_parts() -> None:
    parts = [sketch_of([seed]) for seed in (5, 6, 7)]
    assert (parts[2] + parts[0] + parts[1]).fingerprint == sketch_of([6, 5, 7]).fingerprint
    assert (parts[2] + parts[0] + parts[1]).parts == tuple(sorted(part.parts[0] for part in parts))


def test_memory_for_heads_that_no_model_has_is_not_taken() -> None:
    forged = sign(SMALL, lambda header: header | {"heads": [2**14, 3]})
    with pytest.raises(CalibrationError, match="is not a sketch"):
        from_bytes(forged, "s")


# --- files ---------------------------------------------------------------------------------------------------------


def write(folder: Path, groups: list[list[int]]) -> list[Path]:
    paths = []
    for number, seeds in enumerate(groups):
        paths.append(folder / f"{number}.sketch")
        save(sketch_of(seeds), paths[-1])
    return paths


@pytest.mark.parametrize("count", [1, 2, 40], ids=["one", "two", "threads"])
def test_merged_files_equal_one_run(tmp_path: Path, count: int) -> None:
    paths = write(tmp_path, [[number] for number in range(count)])
    merged = merge_files(paths[::-1])
    assert_same(merged.as_one_part(), sketch_of(range(count)))
    assert len(merged.parts) == count


def test_merged_file_can_be_merged_again(tmp_path: Path) -> None:
    paths = write(tmp_path, [[1], [2], [3]])
    save(merge_files(paths[:2]), tmp_path / "m.sketch")
    assert to_bytes(merge_files([paths[2], tmp_path / "m.sketch"])) == to_bytes(merge_files(paths))


def test_data_that_is_in_two_files_is_refused_with_both_names(tmp_path: Path) -> None:
    paths = write(tmp_path, [[1, 2], [3], [2, 1]])
    with pytest.raises(CalibrationError, match=r"2\.sketch: holds the same data as .*0\.sketch \(part [0-9a-f]{12}\)"):
        merge_files(paths)
    assert merge_files(paths, allow_repeats=True).feeds == 5


def test_data_that_is_in_two_files_is_refused_when_one_is_merged(tmp_path: Path) -> None:
    paths = write(tmp_path, [[1], [2]])
    save(merge_files(paths), tmp_path / "m.sketch")
    with pytest.raises(CalibrationError, match=r"1\.sketch: holds the same data as .*m\.sketch"):
        merge_files([tmp_path / "m.sketch", paths[1]])


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"a\.sketch: cannot be read \(No such file or directory\)"):
        merge_files([tmp_path / "a.sketch"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(CalibrationError, match="is no file"):
            merge_files([path])


def test_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch_file, "MOST_BYTES", 100)
    with pytest.raises(CalibrationError, match=r"is too large for a sketch \(\d+, needs at most 100 bytes\)"):
        merge_files(write(tmp_path, [[1]]))


# --- what does not belong together ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"model_sha256": "cd" * 32}, r"is a sketch of another model \(cdcdcdcdcdcd, needs abababababab\)"),
        ({"keeps_rows": False}, r"another kind \(without rows, needs with rows for integer output\).*same --to"),
        ({"observed": (OBSERVED[0], replace(OBSERVED[1], unit=4.0))}, "observes other Softmax nodes"),
    ],
    ids=["model", "rows", "nodes"],
)
def test_sketches_of_other_subjects_are_not_added(change: dict, pattern: str) -> None:
    one, other = sketch_of([1]), sketch_of([2])
    samples = other.samples if change.get("keeps_rows", True) else ()
    other = replace(other, subject=replace(SUBJECT, **change), samples=samples)
    with pytest.raises(CalibrationError, match=pattern):
        _ = one + other
    total = Sum()
    total.add(to_bytes(one), "one.sketch")
    with pytest.raises(CalibrationError, match=r"^other\.sketch: .*" + pattern):
        total.add(to_bytes(other), "other.sketch")


def test_sketches_of_other_numbers_of_heads_are_not_added() -> None:
    one = sketch_of([1])
    other = replace(one, sketches=(one.sketches[0], one.sketches[1].pooled()), samples=(one.samples[0], one.samples[0]))
    with pytest.raises(CalibrationError, match=r"node 'two': has another number of heads in other data \(1, needs 3\)"):
        _ = one + other


def test_more_rows_than_64_bits_hold_are_refused() -> None:
    one = sketch_of([1])
    one.sketches[0].rows[:] = one.sketches[0].headroom_rows[..., 0] = MOST_ROWS
    with pytest.raises(CalibrationError, match="too many rows of a head"):
        _ = one + sketch_of([2])


# --- damage and malice ----------------------------------------------------------------------------------------------


@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(place: int, change: int) -> None:
    data = bytearray(SMALL)
    data[place] ^= change
    with pytest.raises(CalibrationError, match=r"^s: is (damaged|not a sketch|of another version)"):
        from_bytes(bytes(data), "s")


@given(st.integers(0, len(SMALL) - 1))
def test_any_cut_is_noticed(size: int) -> None:
    with pytest.raises(CalibrationError, match=r"^s: is (damaged|not a sketch|of another version)"):
        from_bytes(SMALL[:size], "s")


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (b"", "is not a sketch"),
        (b"PK\x03\x04", "is not a sketch"),
        (b"hccs-sketch 2\n{}\n", r"is of another version \(2, needs 1\)"),
        (b"hccs-sketch 1", "is damaged or incomplete"),
    ],
    ids=["empty", "zip", "newer", "stub"],
)
def test_other_files_are_refused(data: bytes, pattern: str) -> None:
    with pytest.raises(CalibrationError, match=pattern):
        from_bytes(data, "s")


def sign(data: bytes, change: object, payload: object = bytes) -> bytes:
    """A sketch with another header or payload, and the checksum of that."""
    first, header, rest = data[:-32].split(b"\n", 2)
    changed = change(json.loads(header)) if callable(change) else change
    text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    body = first + b"\n" + text + b"\n" + payload(rest)  # type: ignore[operator]
    return body + hashlib.sha256(body).digest()


HEADERS = {
    "list": [],
    "text": "x",
    "nested": b"[" * 100_000,
    "not_json": b"{",
    "empty": {},
    "no_heads": lambda header: header | {"heads": []},
    "negative": lambda header: header | {"heads": [-1, 3]},
    "huge": lambda header: header | {"heads": [10**30, 3]},
    "more_parts": lambda header: header | {"parts": 10**9},
    "negative_parts": lambda header: header | {"parts": -1},
    "long_rows": lambda header: header | {"longest": [2**40, 1]},
    "hash": lambda header: header | {"model_sha256": "x"},
    "text_parts": lambda header: header | {"parts": "many"},
    "other_heads": lambda header: header | {"heads": [3, 3]},
    "no_rows": lambda header: header | {"keeps_rows": False},
    "short_rows": lambda header: header | {"longest": [1, 1]},
    "unit": lambda header: header | {"observed": [header["observed"][0] | {"unit": 0.0}, header["observed"][1]]},
    "axis": lambda header: header | {"observed": [header["observed"][0] | {"head_axis": "x"}, header["observed"][1]]},
    "field": lambda header: header | {"observed": [header["observed"][0] | {"more": 1}, header["observed"][1]]},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_forged_header_is_refused(kind: str) -> None:
    with pytest.raises(CalibrationError, match="is not a sketch"):
        from_bytes(sign(SMALL, HEADERS[kind]), "s")


@given(st.data())
def test_forged_contents_are_refused_or_read_but_never_crash(data: st.DataObject) -> None:
    def forge(payload: bytes) -> bytes:
        forged = bytearray(payload)
        for _ in range(data.draw(st.integers(1, 4))):
            forged[data.draw(st.integers(0, len(forged) - 1))] = data.draw(st.integers(0, 255))
        return bytes(forged[: data.draw(st.integers(0, len(forged)))] if data.draw(st.booleans()) else forged)

    try:
        sketch = from_bytes(sign(SMALL, lambda header: header, forge), "s")
    except HccsError:
        return
    assert sketch.sketches[0].rows.shape == (2,)


def test_numbers_that_no_data_gives_are_refused() -> None:
    sketch = sketch_of([1])
    sketch.sketches[1].rows[0] += 1
    with pytest.raises(CalibrationError, match="node 'two': is not a sketch"):
        from_bytes(to_bytes(sketch), "s")


def test_head_takes_less_than_a_tenth_of_its_size_in_memory() -> None:
    sketch = sketch_of([1, 2], keep_rows=False)
    arrays = [value for each in sketch.sketches for value in vars(each).values() if isinstance(value, np.ndarray)]
    assert len(to_bytes(sketch)) < sum(array.nbytes for array in arrays) / 10
