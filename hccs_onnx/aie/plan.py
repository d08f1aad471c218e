"""How the rows of one HCCS node are spread over tiles, and where buffers lie in a tile's memory. Pure.

Each head's rows are cut into chunks of equal size; each tile gets the same number of chunks, its slots. So all tiles
run one kernel: `slots` blocks of `rows` rows an iteration, with a set of parameters a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hccs_onnx.aie.devices import Device
from hccs_onnx.aie.kernels import working_bytes
from hccs_onnx.errors import CodegenError

LANES = 32  # rows are padded to a multiple of this many codes
SPILLED_BYTES = 1024  # of stack, beside the kernel's own arrays
HEAP_BYTES = 1024  # the compiler's default; holds the kernel's constants, less than 700 bytes, too
SYNC_BYTES = 32  # the compiler's own, for the number of iterations
PARAMETER_BYTES = 16  # B, S, Dmax and a spare, int32
ALIGNMENT = 64  # widest access of any generation
LONGEST_ROW = 32736  # codes of a row that the kernel takes
BATCH = 32  # rows that the fast kernel takes at once; a tile with fewer does not get up to speed


@dataclass(frozen=True)
class Work:
    """The rows of one node.

    Parameters
    ----------
    heads : int
        Sets of parameters.
    rows : int
        Rows of each head.
    n : int
        Row length.
    out_bytes : int
        Bytes of an output code: 1 or 2.
    masked : bool
        Whether the kernel has the mask, which takes more stack.
    """

    heads: int
    rows: int
    n: int
    out_bytes: int
    masked: bool = False

    @property
    def columns(self) -> int:
        """Row length in memory, a multiple of 32."""
        return -(-self.n // LANES) * LANES

    @property
    def row_bytes(self) -> int:
        """Input and output bytes of a row in memory."""
        return self.columns * (1 + self.out_bytes)


@dataclass(frozen=True)
class Slot:
    """A chunk of one head's rows: `count` of them from number `start` on. Padding has count 0."""

    head: int
    start: int
    count: int


@dataclass(frozen=True)
class Tile:
    """A compute tile at (column, row) of the array, and what it works on."""

    column: int
    row: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Memory:
    """Byte offsets in each tile's data memory: two input and two output buffers; and the size of the stack."""

    input: tuple[int, int]
    output: tuple[int, int]
    stack_bytes: int


@dataclass(frozen=True)
class Plan:
    """What every tile does.

    Parameters
    ----------
    work : Work
        The rows to be computed.
    slots : int
        Blocks of rows a tile, each with its own parameters.
    rows : int
        Rows of a block in one iteration.
    iterations : int
        How often the graph runs.
    tiles : tuple of Tile
        Who computes which rows.
    memory : Memory
        Where buffers lie, the same in each tile.
    port_bits : int
        Width of the ports to and from logic, 64 or 128.
    """

    work: Work
    slots: int
    rows: int
    iterations: int
    tiles: tuple[Tile, ...]
    memory: Memory
    port_bits: int

    @property
    def codes(self) -> int:
        """Codes that a tile takes an iteration, padding included."""
        return self.slots * self.rows * self.work.columns

    @property
    def padding(self) -> float:
        """Share of the computed rows that are padding, 0..1."""
        return 1 - self.work.heads * self.work.rows / (len(self.tiles) * self.slots * self.rows * self.iterations)


def make_plan(device: Device, work: Work, subject: str, tiles: int | None = None) -> Plan:
    """Spread rows over tiles so that the busiest tile has as few as possible.

    Parameters
    ----------
    device : Device
        The array.
    work : Work
        The rows.
    subject : str
        Whom errors are about: the node.
    tiles : int, optional
        Most tiles to use; by default as many as have 32 rows each, or as the heads need, within the array and its
        ports. Fewer are used where more would not help.

    Raises
    ------
    CodegenError
        If a row does not fit into a tile, the tiles are too few for the heads, or more than there are.

    Examples
    --------
    >>> from hccs_onnx.aie.devices import device
    >>> plan = make_plan(device("vek280"), Work(heads=12, rows=128, n=128, out_bytes=1), "node 'sm'")
    >>> len(plan.tiles), plan.slots, plan.rows, plan.iterations
    (48, 1, 32, 1)
    """
    most = _most_slots(device, work, subject)
    limit = _tile_limit(device, work, subject, tiles, most)
    chunks, slots = _split(work, limit, most)
    if not chunks:
        needs = f">= {-(-work.heads // most)}"
        remedy = (
            f"Raise --tiles; a tile of {device.name} holds {most} rows of {work.n} codes, one a head, double buffered"
        )
        raise CodegenError(subject, f"too few tiles for {work.heads} heads", found=limit, needs=needs, remedy=remedy)
    chunk_rows = -(-work.rows // chunks)
    iterations = -(-chunk_rows // _most_rows(device, work, slots))
    rows = -(-chunk_rows // iterations)
    count = -(-work.heads * chunks // slots)
    return Plan(
        work=work,
        slots=slots,
        rows=rows,
        iterations=iterations,
        tiles=_tiles(device, work, chunks, chunk_rows, slots),
        memory=_memory(device, work, slots * rows, slots),
        port_bits=_port_bits(device, count),
    )


def _stack_bytes(device: Device, work: Work) -> int:
    """Stack of the fast kernel with full batches: enough for fewer rows, and for the reference kernel."""
    return _aligned(working_bytes(work.n, BATCH, masked=work.masked, arch=device.arch) + SPILLED_BYTES)


def _system_bytes(device: Device, work: Work) -> int:
    """Stack and what else the compiler needs in one piece."""
    return _stack_bytes(device, work) + HEAP_BYTES + _aligned(SYNC_BYTES)


def _reserved(device: Device, work: Work, slots: int) -> int:
    """Bytes of a tile that are not for buffers; parameters count twice, as they may change while the kernel runs."""
    return _system_bytes(device, work) + 2 * _aligned(PARAMETER_BYTES * slots)


def _bank_rest(device: Device, work: Work, slots: int) -> int:
    """Bytes to leave beside a buffer in each bank: one has the stack, two have the parameters."""
    return max(_system_bytes(device, work), _aligned(PARAMETER_BYTES * slots))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _fits(device: Device, work: Work, slots: int, rows: int) -> bool:
    """Whether double buffers of `rows` rows in each of `slots` slots fit a tile."""
    buffers = 2 * (_aligned(slots * rows * work.columns) + _aligned(slots * rows * work.columns * work.out_bytes))
    return buffers + _reserved(device, work, slots) <= device.memory_bytes


def _most_slots(device: Device, work: Work, subject: str) -> int:
    """Slots of one row each that fit a tile; an error if none does."""
    if work.n > LONGEST_ROW or not _fits(device, work, 1, 1):
        longest = _longest_row(device, work)
        remedy = "Shorten the sequence, or leave this node out with --node"
        if work.out_bytes == 2 and work.n <= (bytes_longest := _longest_row(device, replace(work, out_bytes=1))):
            remedy = f"Rewrite with --to uint8 (up to {bytes_longest}), or shorten the sequence"
        raise CodegenError(
            subject, f"a row does not fit into a tile of {device.name}", found=f"n = {work.n}", needs=f"<= {longest}",
            remedy=remedy,
        )  # fmt: skip
    most = (device.memory_bytes - _reserved(device, work, 0)) // (2 * work.row_bytes + 2 * PARAMETER_BYTES)
    while not _fits(device, work, most, 1):
        most -= 1
    return most


def _longest_row(device: Device, work: Work) -> int:
    """Most codes of a row that fits a tile; what the kernel needs beside it depends on its length."""
    lengths = range(LONGEST_ROW, 0, -LANES)
    return next((n for n in lengths if _fits(device, replace(work, n=n), 1, 1)), 0)


def _most_rows(device: Device, work: Work, slots: int) -> int:
    """Rows a slot and iteration: a bank a buffer if that leaves full batches, else what fits."""
    in_bank = (device.bank_bytes - _bank_rest(device, work, slots)) // (slots * work.columns * work.out_bytes)
    if device.banks >= 4 and slots * in_bank >= BATCH:
        return in_bank
    most = max(1, (device.memory_bytes - _reserved(device, work, slots)) // (2 * slots * work.row_bytes))
    while most > 1 and not _fits(device, work, slots, most):
        most -= 1
    return most


def _tile_limit(device: Device, work: Work, subject: str, tiles: int | None, most_slots: int) -> int:
    limit = min(device.tiles, device.ports(64))
    if tiles is None:
        return min(limit, max(-(-work.heads * work.rows // BATCH), -(-work.heads // most_slots)))
    if not 1 <= tiles <= limit:
        what = "tiles" if limit == device.tiles else "ports to and from logic"
        remedy = f"{device.name} has {limit} {what}, and each tile takes one of each"
        raise CodegenError(subject, "--tiles out of range", found=tiles, needs=f"1..{limit}", remedy=remedy)
    return tiles


def _split(work: Work, limit: int, most: int) -> tuple[int, int]:
    """Chunks a head and slots a tile, such that a tile has the fewest rows; of equals the fewest slots and chunks.

    No chunks if more than `most` slots would be needed.
    """
    best = (work.heads * work.rows + 1, 0, 0)
    for chunks in range(1, min(work.rows, limit) + 1):
        slots = -(-work.heads * chunks // limit)
        rows = -(-work.rows // chunks)
        if slots <= most and -(-work.rows // rows) == chunks:  # else a chunk would be empty
            best = min(best, (slots * rows, slots, chunks))
    return best[2], best[1]


def _tiles(device: Device, work: Work, chunks: int, chunk_rows: int, slots: int) -> tuple[Tile, ...]:
    pieces = [
        Slot(head, start, min(chunk_rows, work.rows - start))
        for head in range(work.heads)
        for start in range(0, chunks * chunk_rows, chunk_rows)
    ]
    pieces += [Slot(work.heads - 1, work.rows, 0)] * (-len(pieces) % slots)
    places = (device.place(index) for index in range(len(pieces) // slots))
    return tuple(Tile(*place, tuple(pieces[index * slots : (index + 1) * slots])) for index, place in enumerate(places))


def _memory(device: Device, work: Work, rows: int, slots: int) -> Memory:
    """A bank a buffer where they fit, so that core and DMA do not wait for each other; else one behind the other."""
    size_in, size_out = _aligned(rows * work.columns), _aligned(rows * work.columns * work.out_bytes)
    bank = device.bank_bytes
    stack = _stack_bytes(device, work)
    if device.banks >= 4 and size_out + _bank_rest(device, work, slots) <= bank:
        return Memory((0, 2 * bank), (bank, 3 * bank), stack)
    return Memory((0, size_in + size_out), (size_in, 2 * size_in + size_out), stack)


def _port_bits(device: Device, tiles: int) -> int:
    """The widest port of which there are enough: narrow ones do not keep up with the array's clock."""
    return 128 if tiles <= device.ports(128) else 64
