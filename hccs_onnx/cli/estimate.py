"""``estimate``: modelled cost of a rewritten model's HCCS nodes on an AI Engine array."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from hccs_onnx.aie.devices import TARGETS, Device, device
from hccs_onnx.cli.arguments import positive
from hccs_onnx.cli.common import add_command, add_json, add_model, add_shape, note, print_json, shapes, table
from hccs_onnx.errors import ExitStatus

if TYPE_CHECKING:
    from hccs_onnx.aie.model_estimate import NodeEstimate

_LEGEND = (
    "cautious: loops do not overlap. With streams: one stream in and one out feed a tile. G el/s: 10^9 probabilities a"
    " second with streams, on a tile and on all tiles of the node. Paper: a tile in AMD's simulator, arXiv 2604.02292"
)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "model what the HCCS nodes with int8 logits would cost on AI Engine tiles"
    example = "python -m hccs_onnx estimate model.hccs.onnx --target vek280 --shape input_ids=1,128"
    parser = add_command(commands, "estimate", help_text, example)
    add_model(parser, "model", "a model that rewrite made with --to uint8 or --to int16")
    parser.add_argument("--target", required=True, help=f"{', '.join(TARGETS)}, or a device file (.json)")
    parser.add_argument("--tiles", type=positive, metavar="N", help="tiles for a node (default: one for every 32 rows)")
    add_shape(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    from hccs_onnx.aie.model_estimate import estimate_model

    target = device(options.target)
    found = estimate_model(options.model, target, tiles=options.tiles, shapes=shapes(options))
    if options.json:
        nodes = [_as_json(item, target) for item in found]
        content = {"model": str(options.model), "target": options.target, "kind": "modelled", "nodes": nodes}
        print_json(content)
        return ExitStatus.OK
    header = ["node (modelled)", "kernel", "n", "rows", "tiles", "cycles a row", "cautious", "bound by", "with streams",
              "G el/s a tile", "in all", "µs", "paper, same n"]  # fmt: skip
    print(table(header, [_line(item, target) for item in found]))
    note(f"modelled for {target.generation} at {target.clock_mhz / 1000} GHz, not run on a device")
    note(_LEGEND)
    ports = target.ports(64)
    if any(item.tiles > ports for item in found):
        note(f"codegen takes at most {ports} tiles for a node: {target.name} has ports to and from logic for no more")
    return ExitStatus.OK


def _line(item: NodeEstimate, target: Device) -> list[str]:
    content = _as_json(item, target)
    time, paper = content["microseconds"], content["published_giga_elements_per_second_a_tile"]
    return [
        item.node,
        f"{item.output} {item.reciprocal}{' masked' if item.masked else ''}",
        str(item.kernel.n),
        str(item.rows or "dynamic"),
        str(item.tiles),
        f"{item.kernel.cycles:.1f}",
        f"{item.kernel.phased:.1f}",
        content["bound"],
        f"{item.kernel.with_streams:.1f}",
        f"{content['giga_elements_per_second_a_tile']:.2f}",
        f"{content['giga_elements_per_second']:.1f}",
        "-" if time is None else f"{time:.1f}",
        "-" if paper is None else f"{paper:.2f}",
    ]


def _as_json(item: NodeEstimate, target: Device) -> dict[str, Any]:
    from hccs_onnx.aie.estimate import PUBLISHED

    kernel = item.kernel
    published = PUBLISHED.get((target.generation, f"{item.output} {item.reciprocal}"), {}).get(kernel.n)
    return {
        "node": item.node,
        "output": item.output,
        "reciprocal": item.reciprocal,
        "masked": item.masked,
        "n": kernel.n,
        "rows": item.rows,
        "tiles": item.tiles,
        "cycles_a_row": kernel.cycles,
        "cycles_a_row_cautious": kernel.phased,
        "cycles_a_row_with_streams": kernel.with_streams,
        "floors": dict(kernel.floors),
        "bound": kernel.bound if kernel.with_streams == kernel.cycles else "stream",
        "giga_elements_per_second_a_tile": kernel.elements_per_second(target, streams=True),
        "giga_elements_per_second": kernel.elements_per_second(target, item.tiles, streams=True),
        "published_giga_elements_per_second_a_tile": published,
        "microseconds": item.microseconds(target),
    }
