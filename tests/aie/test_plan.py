"""Where the rows of a node go: every row once, within a tile's memory."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hccs_onnx.aie.devices import TARGETS, Device, device
from hccs_onnx.aie.kernels import working_bytes
from hccs_onnx.aie.plan import HEAP_BYTES, SYNC_BYTES, Plan, Work, make_plan
from hccs_onnx.errors import CodegenError

DEVICES = [device(name) for name in TARGETS]


def ranges(plan: Plan) -> list[tuple[int, int]]:
    """Byte ranges of a tile's buffers."""
    size_in = plan.codes
    size_out = plan.codes * plan.work.out_bytes
    return sorted([(at, at + size_in) for at in plan.memory.input] + [(at, at + size_out) for at in plan.memory.output])


@given(
    chosen=st.sampled_from(DEVICES),
    heads=st.integers(1, 20),
    rows=st.integers(1, 300),
    n=st.integers(1, 700),
    out_bytes=st.sampled_from([1, 2]),
    masked=st.booleans(),
    tiles=st.none() | st.integers(20, 112),
)
def test_every_row_is_computed_once_within_memory(
    chosen: Device, heads: int, rows: int, n: int, out_bytes: int, masked: bool, tiles: int | None
) -> None:
    work = Work(heads, rows, n, out_bytes, masked)
    plan = make_plan(chosen, work, "node", tiles)
    seen = sorted(
        (slot.head, slot.start + row) for tile in plan.tiles for slot in tile.slots for row in range(slot.count)
    )
    assert seen == [(head, row) for head in range(heads) for row in range(rows)]
    assert all(len(tile.slots) == plan.slots for tile in plan.tiles)
    assert all(slot.count <= plan.rows * plan.iterations for tile in plan.tiles for slot in tile.slots)
    assert len({(tile.column, tile.row) for tile in plan.tiles}) == len(plan.tiles) <= min(tiles or 10**6, chosen.tiles)
    assert all(tile.column < chosen.columns and tile.row < chosen.rows for tile in plan.tiles)
    taken = ranges(plan)
    assert all(end <= start for (_, end), (start, _) in pairwise(taken))
    kernel = working_bytes(n, min(32, plan.rows), masked=masked, arch=chosen.arch)
    assert kernel + 1024 <= plan.memory.stack_bytes
    gaps = [start - end for (_, end), (start, _) in pairwise([*taken, (chosen.memory_bytes, 0)])]
    for piece in (plan.memory.stack_bytes + HEAP_BYTES + SYNC_BYTES, 16 * plan.slots, 16 * plan.slots):
        largest = max(range(len(gaps)), key=gaps.__getitem__)
        assert piece <= gaps[largest]
        gaps[largest] -= piece


@pytest.mark.parametrize("chosen", DEVICES, ids=TARGETS)
def test_ports_are_no_more_than_streams_into_the_array_can_carry(chosen: Device) -> None:
    """Four streams go down from the array into each interface column, whatever six ports there could take."""
    columns = chosen.interface_columns or chosen.columns
    assert chosen.ports(64) == 4 * columns
    assert chosen.ports(128) == 3 * columns  # two 64-bit streams each
    most = min(chosen.tiles, 4 * columns)
    plan = make_plan(chosen, Work(1, 64 * most, 64, 1), "node")
    assert (len(plan.tiles), plan.port_bits) == (most, 64)


def test_logic_runs_at_a_quarter_of_the_arrays_clock() -> None:
    """More than that AMD's compiler may not take; on the VEK385 312.5 MHz would be."""
    assert [chosen.logic_mhz for chosen in DEVICES] == [312.5, 312.5, 262.5]


def test_heads_with_few_rows_get_the_tiles_that_they_need() -> None:
    """One row of each of 12 heads, as when a decoder has a cache: fewer than 32 rows, but more than a tile can hold."""
    plan = make_plan(device("vek280"), Work(12, 1, 4097, 1, True), "node")
    assert (len(plan.tiles), plan.slots, plan.rows, plan.iterations) == (4, 3, 1, 1)


def test_plan_uses_a_tile_for_every_batch_of_rows() -> None:
    plan = make_plan(device("vek280"), Work(12, 128, 128, 1), "node")
    assert (len(plan.tiles), plan.slots, plan.rows, plan.iterations, plan.padding) == (48, 1, 32, 1, 0)
    plan = make_plan(device("vek280"), Work(12, 128, 128, 1), "node", tiles=12)
    assert (len(plan.tiles), plan.slots, plan.rows * plan.iterations) == (12, 1, 128)


@pytest.mark.parametrize(
    ("work", "tiles", "message"),
    [
        (Work(1, 4, 40_000, 1), None, "node: a row does not fit into a tile of vek280 (n = 40000, needs <= "),
        (Work(1, 4, 12_000, 2), None, "Rewrite with --to uint8 ("),
        (Work(64, 4, 4_000, 1), 2, "node: too few tiles for 64 heads (2, needs >= "),
        (Work(4, 4, 16, 1), 0, "--tiles out of range (0, needs 1.."),
        (Work(4, 4, 16, 1), 400, "--tiles out of range (400, needs 1.."),
    ],
)
def test_plan_says_what_does_not_fit(work: Work, tiles: int | None, message: str) -> None:
    with pytest.raises(CodegenError) as caught:
        make_plan(device("vek280"), work, "node", tiles)
    assert message in str(caught.value)


@pytest.mark.parametrize("out_bytes", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chosen", [*DEVICES, replace(DEVICES[0], memory_bytes=1 << 20)], ids=[*TARGETS, "large"])
def test_refused_row_length_comes_with_the_longest_that_fits(chosen: Device, masked: bool, out_bytes: int) -> None:
    work = Work(1, 4, 100_000, out_bytes, masked)
    with pytest.raises(CodegenError) as caught:
        make_plan(chosen, work, "node")
    (longest,) = map(int, re.findall(r"needs <= (-?\d+)\)", str(caught.value)))
    assert make_plan(chosen, replace(work, n=longest), "node").iterations == 4 or longest == 32736  # the kernel's limit
    with pytest.raises(CodegenError):
        make_plan(chosen, replace(work, n=longest + 1), "node")


def test_device_file_whose_banks_are_not_aligned_is_refused(tmp_path: Path) -> None:
    content = {**asdict(device("vek280")), "banks": 5, "format": "hccs-aie-device", "version": 1}
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(CodegenError, match=r"banks do not begin at multiples of 64 bytes \(65536 bytes in 5\)"):
        device(str(tmp_path / "mine.json"))


def test_device_of_a_file_is_used_like_those_of_the_package(tmp_path: Path) -> None:
    content = {
        **asdict(device("vek280")),
        "name": "mine",
        "columns": 30,
        "rows": 3,
        "first_interface_column": 0,
        "format": "hccs-aie-device",
    }
    content["version"] = 1
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    mine = device(str(path))
    assert (mine.name, mine.tiles, mine.sources["columns"]) == ("mine", 90, device("vek280").sources["columns"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "is a required property"), ("[", "JSON"), ('{"format": "hccs-aie-device", "columns": 0}', "mine.json")],
)
def test_device_file_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(CodegenError) as caught:
        device(str(path))
    assert message in str(caught.value) and "mine.json" in str(caught.value)


def test_unknown_device_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(CodegenError, match=r"vek999, needs vck190, vek280, vek385"):
        device("vek999")


@pytest.mark.parametrize("name", TARGETS)
def test_every_figure_of_a_device_has_a_source_that_is_its_own(name: str) -> None:
    chosen = device(name)
    figures = set(asdict(chosen)) - {"name", "chip", "generation", "sources"}
    assert set(chosen.sources) <= figures
    assert {"arch", "columns", "rows", "memory_bytes", "banks", "clock_mhz", "stream_bits"} <= set(chosen.sources)
