"""What the kernels would cost on the device: cycles modelled from operation counts. Nothing here was run on a device.

The model: every operation that the host emulation counts needs a slot of the long instruction word; the slot that needs
most cycles bounds a row. Loads have two slots, stores, multiplications and moves (vector ALU, permute, broadcast,
lanes, accumulator to register) one each. Unpacking after a load, and shift-round-saturate before a store, are free. The
compiler fills `FILLED` of the bounding slot. On top come scalar divisions. `phased` is the cautious figure: the
kernel's four loops do not overlap, and each takes `FILL_CYCLES` a band (three of them: a row, where rows are longer
than 512 codes) to fill and drain its pipeline. Scalar operations are not counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hccs_onnx.aie.devices import Device
from hccs_onnx.aie.kernels import band_rows, is_long, padded_columns
from hccs_onnx.params import HccsParams, OutputType, Reciprocal

Slots = Mapping[str, float]

FILLED = 0.9
"""Share of the bounding slot that the compiler fills. Fitted: published kernel, uint8 clb, n = 32 and 64."""
FILL_CYCLES = 20
"""Load, move, multiply, shift and store one after the other (7 + 2 + 5 + 4 cycles, LLVM back end of AIE-ML), and 2."""
DIVISION_CYCLES = 66
"""A scalar division. Fitted: published kernel, int16 div against uint8 clb, n = 32 and 64."""


PUBLISHED: Mapping[tuple[str, str], Mapping[int, float]] = {
    ("AIE-ML", "uint8 clb"): {32: 1.36, 64: 2.19, 128: 2.18},
    ("AIE-ML", "int16 div"): {32: 0.41, 64: 0.78, 128: 1.37},
    ("AIE-ML", "bf16"): {32: 0.09, 64: 0.16, 128: 0.25},
    ("AIE-MLv2", "uint8 clb"): {32: 1.46, 128: 2.21},
    ("AIE-MLv2", "int16 div"): {32: 0.41, 128: 1.41},
    ("AIE-MLv2", "bf16"): {32: 0.24, 128: 0.77},
}
"""G elements/s of a tile in AMD's simulator: arXiv 2604.02292, Table III. bf16 is AMD's Softmax."""


_COUNTED_AS = {21: 22}
"""Architectures that compile to the same operations as another."""


@dataclass(frozen=True)
class KernelEstimate:
    """Modelled cost of a kernel on one tile.

    Parameters
    ----------
    n : int
        Row length.
    cycles : float
        Cycles a row, all slots overlapping: the model that the published kernel is put to as well.
    bound : str
        Slot that decides `cycles`.
    phased : float
        Cycles a row where the kernel's loops do not overlap.
    floors : mapping of str to float
        Cycles a row that no kernel can go below: each code loaded twice, each output stored once, each code and output
        through one stream.
    """

    n: int
    cycles: float
    bound: str
    phased: float
    floors: Slots

    @property
    def with_streams(self) -> float:
        """Cycles a row where one stream in and one out feed the tile."""
        return max(self.cycles, self.floors["stream"])

    @property
    def memory_share(self) -> float:
        """Share of `cycles` that the loads and stores of any kernel would take."""
        return max(self.floors["load"], self.floors["store"]) / self.cycles

    def elements_per_second(self, device: Device, tiles: int = 1, *, streams: bool = False) -> float:
        """G elements/s of so many tiles."""
        return self.n * device.clock_mhz * tiles / (self.with_streams if streams else self.cycles) / 1000


def kernel_estimate(
    device: Device, output: OutputType, reciprocal: Reciprocal, n: int, *, masked: bool = False, wide: bool = False
) -> KernelEstimate:
    """Modelled cost of ``hccs::softmax``.

    Parameters
    ----------
    device : Device
        The array.
    output : {'uint8', 'int16'}
        Type of the probabilities.
    reciprocal : {'div', 'clb', 'norm'}
        How the row sum is inverted.
    n : int
        Row length. Between and beyond the lengths that were measured, operations are taken to be linear in it.
    masked : bool
        Whether the kernel has the mask.
    wide : bool
        Whether row sums can exceed an int16: n * B > 32767. Not looked at where that is illegal or makes no difference.

    Examples
    --------
    >>> from hccs_onnx.aie.devices import device
    >>> estimate = kernel_estimate(device("vek280"), "uint8", "clb", 128)
    >>> estimate.bound, round(estimate.cycles, 1)
    ('move', 13.4)
    """
    sums = "wide" if wide and (reciprocal == "norm" or (output == "uint8" and reciprocal == "div")) else "narrow"
    table = _counts(device, f"{output} {reciprocal} {'masked' if masked else 'plain'} {sums}")
    vectors = padded_columns(n) / 32
    phases = {name: _at(table, name, padded_columns(n)) for name in ("maxima", "sums", "reciprocals", "normalise")}
    fused = {"move": vectors * (2 if masked else 1) if device.arch != 10 else 0.0, "srs": vectors}
    by_phase = {name: _slots(counts, fused if name == "normalise" else {}) for name, counts in phases.items()}
    if n % 32:  # padding is limited to the lowest code, twice, and its outputs to 0
        for name in ("maxima", "sums") if masked else ("maxima", "sums", "normalise"):
            by_phase[name]["move"] += 1
    total = {slot: sum(slots[slot] for slots in by_phase.values()) for slot in by_phase["sums"]}
    bound = max(total, key=lambda slot: total[slot])
    band = band_rows(n, device.arch)
    a_row = {"maxima", "sums", "normalise"} if is_long(n) else set()  # a loop for each row, not one for the band
    fills = sum(1 if phase in a_row else 1 / band for phase, slots in by_phase.items() if max(slots.values()) > 0)
    phased = sum(max(slots.values()) for slots in by_phase.values()) / FILLED + fills * FILL_CYCLES
    return KernelEstimate(n, total[bound] / FILLED, bound, phased, floors(device, output, n))


def node_kernel_estimate(device: Device, output: OutputType, params: HccsParams, n: int) -> KernelEstimate:
    """Modelled cost of ``hccs::softmax`` for a node's parameters and rows of `n` codes.

    Examples
    --------
    >>> from hccs_onnx.aie.devices import device
    >>> from hccs_onnx.params import HeadParams
    >>> params = HccsParams((HeadParams(255, 2, 127),), reciprocal="clb")
    >>> round(node_kernel_estimate(device("vek280"), "uint8", params, 128).cycles, 1)
    13.4
    """
    wide = max(head.B for head in params.heads) * n > 32767
    return kernel_estimate(device, output, params.reciprocal, n, masked=params.masked, wide=wide)


def published_estimate(device: Device, kind: str, n: int) -> KernelEstimate:
    """The same model's cost of the published kernel: `aie4ml` 0.2.1, linear layout.

    Parameters
    ----------
    device : Device
        The array.
    kind : {'uint8 clb', 'int16 div'}
        Which of the two that the paper reports.
    n : int
        Row length: 32, 64 or 128.

    Examples
    --------
    >>> from hccs_onnx.aie.devices import device
    >>> vek280 = device("vek280")
    >>> modelled = published_estimate(vek280, "uint8 clb", 64).elements_per_second(vek280)
    >>> abs(modelled / PUBLISHED["AIE-ML", "uint8 clb"][64] - 1) < 0.2
    True
    """
    counts = _counts(device, f"published {kind}")[n]["rows"]
    vectors = n / 32
    # Maximum and reciprocal are broadcast in each row, all else once. Scores and outputs are rounded when stored.
    slots = _slots({**counts, "broadcast": 2, "ups": 0}, {"srs": 2 * vectors})
    bound = max(slots, key=lambda slot: slots[slot])
    cycles = slots[bound] / FILLED + (DIVISION_CYCLES if kind.endswith("div") else 0)
    return KernelEstimate(n, cycles, bound, cycles, floors(device, "int16" if "int16" in kind else "uint8", n))


def floors(device: Device, output: OutputType, n: int) -> Slots:
    """Cycles a row that no kernel can go below, by what limits it.

    Examples
    --------
    >>> from hccs_onnx.aie.devices import device
    >>> dict(floors(device("vek280"), "uint8", 128))
    {'load': 4.0, 'store': 4.0, 'stream': 32.0}
    """
    columns, size = padded_columns(n), 1 if output == "uint8" else 2
    return {
        "load": columns / (device.load_bits / 8),  # twice, with two load units
        "store": size * columns / (device.store_bits / 8),
        "stream": size * columns / (device.stream_bits / 8),
    }


def _slots(counts: Slots, fused: Slots) -> dict[str, float]:
    """Cycles a row of each issue slot; `fused` is what loads and stores do on the way."""
    move = sum(counts.get(kind, 0.0) for kind in ("move", "broadcast", "lane", "ups", "pad", "srs"))
    return {
        "load": counts.get("load", 0.0) / 2,
        "store": counts.get("store", 0.0),
        "move": move - sum(fused.values()),
        "multiply": counts.get("multiply", 0.0),
    }


def _at(table: Mapping[int, Mapping[str, Slots]], phase: str, columns: int) -> dict[str, float]:
    """Counts at a row length: linear between the measured ones, and along the last two beyond them."""
    lengths = sorted(table)
    upper = next((length for length in lengths[1:] if length >= columns), lengths[-1])
    lower = lengths[lengths.index(upper) - 1]
    share = (columns - lower) / (upper - lower)
    first, second = table[lower][phase], table[upper][phase]
    kinds = {*first, *second}
    return {kind: (1 - share) * first.get(kind, 0.0) + share * second.get(kind, 0.0) for kind in kinds}


def _counts(device: Device, kernel: str) -> dict[int, dict[str, Slots]]:
    """Operations a row by row length and phase."""
    return _all_counts()[_COUNTED_AS.get(device.arch, device.arch), kernel]


@cache
def _all_counts() -> dict[tuple[int, str], dict[int, dict[str, Slots]]]:
    """Operations a row by phase: architecture and kernel, then row length. From benchmarks/aie/measure_counts.py."""
    document = json.loads(resources.files(__package__).joinpath("operation_counts.json").read_text(encoding="utf-8"))
    table: dict[tuple[int, str], dict[int, dict[str, Slots]]] = {}
    for arch, kernel, n, phases in document["counts"]:
        table.setdefault((int(arch), kernel), {})[int(n)] = phases
    return table
