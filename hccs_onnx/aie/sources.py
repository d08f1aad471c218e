"""The text files of a project, rendered from the package's templates. Pure: the same plan gives the same text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from hccs_onnx._version import __version__
from hccs_onnx.aie.devices import Device
from hccs_onnx.aie.manifest import NodeProject
from hccs_onnx.aie.plan import HEAP_BYTES, LANES
from hccs_onnx.aie.vectors import slot_params

KERNELS = {"fast": "softmax", "reference": "softmax_reference"}
"""Functions of ``hccs_kernel.h`` by the name of the option."""

KERNEL_FOLDER = "kernels"


def node_sources(project: NodeProject, kernel: str) -> dict[str, str]:
    """Sources of a node's folder, by file name."""
    node, plan = project.node, project.plan
    values = {
        "NODE": _comment(repr(node.name)),
        "N": plan.work.n,
        "COLUMNS": plan.work.columns,
        "ROWS": plan.rows,
        "SLOTS": plan.slots,
        "ITERATIONS": plan.iterations,
        "TILES": len(plan.tiles),
        "INPUT_ADDRESSES": ", ".join(map(hex, plan.memory.input)),
        "OUTPUT_ADDRESSES": ", ".join(map(hex, plan.memory.output)),
        "STACK_BYTES": plan.memory.stack_bytes,
        "PLACES": "\n".join(f"    {{{tile.column}, {tile.row}}}," for tile in plan.tiles),
        "PARAMETERS": "\n".join(f"    {{{', '.join(map(str, numbers))}}}," for numbers in _numbers(project)),
        "PARAMETER_COUNT": 4 * plan.slots,
        "OUT": node.output,
        "FUNCTION": KERNELS[kernel],
        "RECIPROCAL": node.params.reciprocal,
        "MASKED": str(node.params.masked).lower(),
        "PORT_BITS": plan.port_bits,
    }
    names = ("plan.h", "parameters.h", "kernels.h", "kernels.cc", "graph.h", "graph.cpp")
    return {name: render(name, values) for name in names}


def common_sources(projects: Sequence[NodeProject], device: Device, model: str) -> dict[str, str]:
    """Files at the top of a project, by name."""
    values = {
        "NODES": " ".join(project.folder for project in projects),
        "PART": device.part,
        "PL_FREQ_MHZ": f"{device.logic_mhz:g}",
        "HEAP_BYTES": HEAP_BYTES,
        "MODEL": model,
        "TARGET": f"{device.name} ({device.chip}, {device.generation})",
        "VERSION": __version__,
        "LANES": LANES,
        "NODE_ROWS": "\n".join(_row(project) for project in projects),
    }
    return {name: render(name, values) for name in ("Makefile", "README.md", "compare.py")}


def render(template: str, values: dict[str, object]) -> str:
    """A template with each ``@NAME@`` replaced.

    Raises
    ------
    KeyError
        If a name has no value.
    """
    text = resources.files("hccs_onnx.aie").joinpath("templates").joinpath(template).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda match: str(values[match.group(1)]), text)


def _numbers(project: NodeProject) -> list[list[int]]:
    """Kernel parameters of each tile, four a slot."""
    return [
        [number for head in slots for number in (head.B, head.S, head.Dmax, 0)]
        for slots in slot_params(project.plan, project.node.params)
    ]


def _row(project: NodeProject) -> str:
    node, plan = project.node, project.plan
    mask = ", masked" if node.params.masked else ""
    cells = (
        f"`{project.folder}`",
        f"`{node.name}`",
        f"{plan.work.heads} x {plan.work.rows} x {plan.work.n}",
        f"{node.output}, {node.params.reciprocal}{mask}",
        str(len(plan.tiles)),
        f"{plan.slots} x {plan.rows}",
        str(plan.iterations),
        f"{plan.padding:.1%}",
        *_modelled(project),
        project.vectors,
    )
    return f"| {' | '.join(_comment(cell).replace('|', '/') for cell in cells)} |"


def _modelled(project: NodeProject) -> tuple[str, str]:
    """Cycles a row and time of the node."""
    estimate = project.estimate
    return (
        ("-", "-")
        if estimate is None
        else (f"{estimate.cycles:.1f} ({estimate.bound})", f"{estimate.microseconds:.1f}")
    )


def _comment(text: str) -> str:
    """`text` on one line of printable ASCII that cannot continue a comment."""
    return "".join(char if " " <= char <= "~" and char != "\\" else "?" for char in text)
