"""AI Engine devices: what an array has, and where each figure was found. One JSON file a device."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from hccs_onnx.errors import CodegenError

TARGETS = ("vck190", "vek280", "vek385")
"""Devices that come with the package."""

Generation = Literal["AIE", "AIE-ML", "AIE-MLv2"]


@dataclass(frozen=True)
class Device:
    """An AI Engine array.

    Parameters
    ----------
    name, chip, part : str
        Board, device, and part name for AMD's compiler.
    generation : {'AIE', 'AIE-ML', 'AIE-MLv2'}
        Generation of the tiles.
    arch : int
        ``__AIE_ARCH__``: 10, 20, 21 or 22.
    columns, rows : int
        Size of the array in compute tiles.
    memory_bytes : int
        Data memory of a tile.
    banks : int
        Banks of a tile, as location constraints number them.
    clock_mhz : float
        Clock of the array.
    load_bits, store_bits : int
        Width of each of the two load units, and of the store unit.
    int8_macs : int
        Multiply-accumulates int8 x int8 a cycle.
    stream_bits : int
        What a stream inside the array moves a cycle.
    first_interface_column : int
        First column with streams from and to logic.
    interface_columns : int or None
        Number of such columns; None where it is not known, then at most all are.
    streams_in, streams_out : int
        64-bit streams from and to logic in each such column. A 128-bit port takes two.
    array_streams_in, array_streams_out : int
        Streams between each such column and the array above it. Every port takes one.
    sources : mapping of str to str
        Where each figure was found.

    Examples
    --------
    >>> vek280 = device("vek280")
    >>> vek280.tiles, vek280.bank_bytes, vek280.sources["stream_bits"]
    (304, 16384, 'UG1603, architecture overview')
    """

    name: str
    chip: str
    part: str
    generation: Generation
    arch: int
    columns: int
    rows: int
    memory_bytes: int
    banks: int
    clock_mhz: float
    load_bits: int
    store_bits: int
    int8_macs: int
    stream_bits: int
    first_interface_column: int
    interface_columns: int | None
    streams_in: int
    streams_out: int
    array_streams_in: int
    array_streams_out: int
    sources: Mapping[str, str]

    @property
    def tiles(self) -> int:
        """Compute tiles of the array."""
        return self.columns * self.rows

    @property
    def bank_bytes(self) -> int:
        """Size of a bank."""
        return self.memory_bytes // self.banks

    @property
    def logic_mhz(self) -> float:
        """Clock of logic at its ports: a quarter of the array's, AMD's default, which logic reaches easily."""
        return self.clock_mhz / 4

    def ports(self, bits: int) -> int:
        """How many pairs of input and output ports of this width there can be.

        Examples
        --------
        >>> device("vek280").ports(64), device("vek280").ports(128)
        (112, 84)
        """
        to_logic = min(self.streams_in, self.streams_out) // (2 if bits == 128 else 1)
        return (self.interface_columns or self.columns) * min(to_logic, self.array_streams_in, self.array_streams_out)

    def place(self, index: int) -> tuple[int, int]:
        """Column and row of the tile to use as number `index`: nearest to logic first.

        Examples
        --------
        >>> device("vek280").place(0), device("vek280").place(37), device("vek280").place(38)
        ((5, 0), (4, 0), (5, 1))
        """
        row, column = divmod(index, self.columns)
        return (self.first_interface_column + column) % self.columns, row


def device(target: str) -> Device:
    """A device that comes with the package, by name, or one from a file.

    Parameters
    ----------
    target : str
        One of `TARGETS`, or the path of a JSON file as described by `schema`.

    Raises
    ------
    CodegenError
        If there is no such device, or the file is not as the schema says.

    Examples
    --------
    >>> device("vck190").arch
    10
    >>> device("vck191")
    Traceback (most recent call last):
    hccs_onnx.errors.CodegenError: --target: unknown (vck191, needs vck190, vek280, vek385 or a .json file).
    """
    if target in TARGETS:
        content = json.loads(resources.files(__package__).joinpath(f"{target}.json").read_text(encoding="utf-8"))
    elif target.endswith(".json"):
        content = _read(Path(target))
    else:
        needs = f"{', '.join(TARGETS)} or a .json file"
        raise CodegenError("--target", "unknown", found=target, needs=needs)
    return Device(**{field.name: content[field.name] for field in fields(Device)})


@cache
def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a device file, as published in the package."""
    text = resources.files(__package__).joinpath("device.schema.json").read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads(text)
    return result


def _read(path: Path) -> dict[str, Any]:
    import jsonschema

    remedy = "Start from one of the files in hccs_onnx/aie/devices"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CodegenError(str(path), f"cannot be read ({error.strerror})", remedy="Check --target") from error
    except (ValueError, RecursionError) as error:
        raise CodegenError(str(path), "is not JSON", remedy=remedy) from error
    problem = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(content))
    if problem is not None:
        raise CodegenError(f"{path}: {problem.json_path}", problem.message[:200], remedy=remedy)
    last = content["first_interface_column"] + (content["interface_columns"] or 1)
    if last > content["columns"]:
        raise CodegenError(str(path), "interface columns lie outside the array", found=last, needs=content["columns"])
    if content["memory_bytes"] % (64 * content["banks"]):
        found = f"{content['memory_bytes']} bytes in {content['banks']}"
        raise CodegenError(str(path), "banks do not begin at multiples of 64 bytes", found=found, remedy=remedy)
    return content
