"""What aie4ml is told beside the graph: the platform, and how many tiles each layer takes.

Left to itself aie4ml searches for the tiles: minutes for two heads, in vain for eight. A block leaves little to search:
everything that a tile reads or writes has to fit into one memory bank, and the fewest tiles for which it does will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hccs_onnx.aie.aie4ml_graph import layer_name
from hccs_onnx.aie.aie4ml_quantize import LANES, QuantizedBlock, filled
from hccs_onnx.errors import CodegenError
from hccs_onnx.params import OutputType

_STACK = 1024  # bytes that aie4ml keeps free in the bank of a product's second operand
_BYTES: dict[OutputType, int] = {"uint8": 1, "int16": 2}
_LONGEST_ROW = 256
_SHORT_BLOCK = 32  # rows up to which a memory tile has buffer descriptors enough for halves of `LANES`
_MOST_CHAINS = 4  # of one head; for more, a memory tile has too few buffer descriptors


@dataclass(frozen=True)
class Platform:
    """A board as aie4ml's device catalogue has it.

    Parameters
    ----------
    part : str
        Its name there.
    columns, rows : int
        Tiles of the array that a design may use: all but the first column.
    bank : int
        Bytes of a memory bank.
    """

    part: str
    columns: int
    rows: int
    bank: int

    @property
    def tiles(self) -> int:
        """Tiles that a design may use."""
        return self.columns * self.rows


PLATFORMS = {
    "vek280": Platform("xilinx_vek280_base", 37, 8, 16384),
    "vek385": Platform("vek385_base", 35, 4, 16384),
}
"""Boards that aie4ml 0.2.1 puts attention on."""


@dataclass(frozen=True)
class Split:
    """A layer over tiles.

    Parameters
    ----------
    contract : {'inner', 'outer'}
        Whether chains divide columns or rows of the result.
    chains : int
        Chains of tiles.
    length : int
        Tiles of a chain, which share its sums.
    """

    contract: str
    chains: int = 1
    length: int = 1


def platform_of(target: str) -> Platform:
    """The platform of a target.

    Raises
    ------
    CodegenError
        If there is none on which aie4ml can put attention.

    Examples
    --------
    >>> platform_of("vek280").tiles
    296
    """
    if target in PLATFORMS:
        return PLATFORMS[target]
    needs = " or ".join(PLATFORMS)
    if target == "vck190":
        problem = "aie4ml puts no attention on it: its AI Engines cannot read keys transposed"
        remedy = "Use the flow adf, which computes HCCS there"
        raise CodegenError("--target vck190", problem, needs=needs, remedy=remedy)
    raise CodegenError("--target", "unknown to the flow aie4ml", found=target, needs=needs)


def check_rows(subject: str, n: int) -> None:
    """Refuse a number of positions that aie4ml's kernels do not take.

    Raises
    ------
    CodegenError
        With what to do about it.
    """
    if n % LANES or n > _LONGEST_ROW:
        needs = f"a multiple of {LANES} up to {_LONGEST_ROW}"
        remedy = "Give samples of such a length, or use the flow adf"
        raise CodegenError(subject, "aie4ml cannot compute attention over so many positions", found=n, needs=needs,
                           remedy=remedy)  # fmt: skip


def check_width(subject: str, width: int, n: int) -> None:
    """Refuse an input that aie4ml cannot cut into words for its memory tiles: `n` rows of `width` numbers.

    Raises
    ------
    CodegenError
        With what to do about it.
    """
    step = LANES // 2 if n <= _SHORT_BLOCK else LANES
    if width % step:
        remedy = "Export the model with such a width, or use the flow adf"
        raise CodegenError(subject, "aie4ml cannot read rows of so many numbers", found=width,
                           needs=f"a multiple of {step}", remedy=remedy)  # fmt: skip


def split_layers(
    subject: str, block: QuantizedBlock, n: int, output: OutputType, platform: Platform
) -> dict[str, Split]:
    """Tiles of every layer, by its name in the graph.

    Parameters
    ----------
    subject : str
        What error messages call the block.
    block : QuantizedBlock
        Its layers.
    n : int
        Positions.
    output : {'uint8', 'int16'}
        What HCCS puts out.
    platform : Platform
        Where they have to fit.

    Raises
    ------
    CodegenError
        If they do not.

    Examples
    --------
    >>> split_layers("node 'sm'", quantized, 128, "uint8", platform_of("vek280"))["head0_query"]  # doctest: +SKIP
    Split(contract='inner', chains=1, length=3)
    """
    splits: dict[str, Split] = {}
    product = _split_product(subject, n, _BYTES[output], platform)
    for index, head in enumerate(block.heads):
        for name, layer in (("query", head.query), ("key", head.key), ("value", head.value)):
            width, columns = layer.weight.shape
            found = _split_layer(n, width, columns, platform)
            if found is None:
                raise _too_large(subject, f"the projection '{name}' of a head", platform)
            splits[layer_name(name, index)] = found
        for name in ("logits", "context"):
            splits[layer_name(name, index)] = product
        splits[layer_name("hccs", index)] = Split("outer", product.chains)
    joined, width = block.output.weight.shape
    # One tile of a chain for each head: aie4ml does not regroup what it puts side by side.
    output_split = _split_layer(n, joined, width, platform, length=len(block.heads))
    if output_split is None:
        raise _too_large(subject, "the output projection", platform)
    splits[layer_name("output")] = output_split
    tiles = sum(split.chains * split.length for split in splits.values())
    if tiles > platform.tiles:
        remedy = "Use shorter samples, a larger device, or the flow adf, which takes HCCS alone"
        problem = f"attention does not fit on {platform.part}"
        raise CodegenError(subject, problem, found=f"{tiles} tiles", needs=f"<= {platform.tiles}", remedy=remedy)
    return splits


def configuration(splits: Mapping[str, Split], platform: Platform) -> dict[str, Any]:
    """The configuration of ``aie4ml.from_onnx``."""
    return {
        "Part": platform.part,
        "AIEConfig": {"Iterations": 1},
        "LayerDirectives": {
            name: {
                "parallelism": {"contract": split.contract, "cas_num": split.chains}
                | ({} if "hccs" in name else {"cas_length": split.length})
            }
            for name, split in splits.items()
        },
    }


def _split_layer(n: int, width: int, columns: int, platform: Platform, length: int | None = None) -> Split | None:
    """The fewest tiles for a projection of `n` rows."""
    lengths = range(1, platform.columns + 1) if length is None else (length,)
    options = [(chains * each, each, chains) for each in lengths for chains in range(1, platform.rows + 1)]
    for _, each, chains in sorted(options):
        depth, part = filled(-(-width // each)), filled(-(-columns // chains))
        if depth * (each - 1) >= width or part * (chains - 1) >= columns:
            continue  # the last would get nothing
        if each > 1 and depth * each != width:  # memory tiles cannot cut rows into parts of two widths
            continue
        if max(n * depth, depth * part, n * part) <= platform.bank:
            return Split("inner", chains, each)
    return None


def _split_product(subject: str, n: int, output_bytes: int, platform: Platform) -> Split:
    """Chains that the rows of logits, probabilities and context are divided over."""
    for chains in range(1, _MOST_CHAINS + 1):
        rows = n // chains
        if n % (chains * LANES) == 0 and rows * n * output_bytes <= platform.bank:
            return Split("inner" if chains == 1 else "outer", chains)
    raise _too_large(subject, "the product of queries and keys", platform)


def _too_large(subject: str, what: str, platform: Platform) -> CodegenError:
    remedy = "Use shorter samples, or the flow adf, which takes HCCS alone"
    return CodegenError(subject, f"{what} does not fit on {platform.part}", remedy=remedy)
