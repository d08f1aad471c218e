"""``manifest.json`` of a project: what was written, as data with a published schema."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

from hccs_onnx.aie.nodes import HccsNode
from hccs_onnx.aie.plan import Memory, Plan, Slot, Tile, Work
from hccs_onnx.aie.plan_estimate import PlanEstimate
from hccs_onnx.aie.vectors import OUT_BYTES
from hccs_onnx.errors import CodegenError
from hccs_onnx.params import OutputType

FORMAT, VERSION, NAME = "hccs-aie-project", 1, "manifest.json"
AIE4ML_FORMAT = "hccs-aie4ml-project"
"""What a manifest of the flow aie4ml says that it is."""


@dataclass(frozen=True)
class NodeProject:
    """One node of a project.

    Parameters
    ----------
    node : HccsNode
        The node.
    folder : str
        Its folder in the project.
    shape : tuple of int
        Of its X.
    vectors : str
        Where the codes of the test vectors come from.
    plan : Plan
        Who computes what.
    estimate : PlanEstimate or None
        What it would cost; None for the reference kernel, whose operations are not counted.
    """

    node: HccsNode
    folder: str
    shape: tuple[int, ...]
    vectors: str
    plan: Plan
    estimate: PlanEstimate | None

    def to_dict(self) -> dict[str, Any]:
        """The node's entry in the manifest."""
        plan, params = self.plan, self.node.params
        estimate = {} if self.estimate is None else {"estimate": self.estimate.to_dict()}
        return {
            **estimate,
            "name": self.node.name,
            "folder": self.folder,
            "x": self.node.x,
            "y": self.node.y,
            "shape": list(self.shape),
            "head_axis": params.head_axis,
            "n": plan.work.n,
            "columns": plan.work.columns,
            "output": self.node.output,
            "reciprocal": params.reciprocal,
            "masked": params.masked,
            "heads": [{"B": head.B, "S": head.S, "Dmax": head.Dmax} for head in params.heads],
            "rows_per_head": plan.work.rows,
            "vectors": self.vectors,
            "plan": {
                "slots": plan.slots,
                "rows": plan.rows,
                "iterations": plan.iterations,
                "port_bits": plan.port_bits,
                "input_address": list(plan.memory.input),
                "output_address": list(plan.memory.output),
                "stack_bytes": plan.memory.stack_bytes,
                "padding": round(plan.padding, 6),
                "tiles": [asdict(tile) for tile in plan.tiles],
            },
        }


@dataclass(frozen=True)
class WrittenNode:
    """What simulating a node takes, as read from a manifest."""

    name: str
    folder: str
    output: OutputType
    plan: Plan


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read.

    Parameters
    ----------
    content : dict
        The document, valid by the schema.
    """

    content: dict[str, Any]

    @property
    def arch(self) -> int:
        """``__AIE_ARCH__`` of the target."""
        return int(self.content["device"]["arch"])

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of each file when it was written, by path."""
        files: dict[str, str] = self.content["files"]
        return files

    @property
    def nodes(self) -> tuple[WrittenNode, ...]:
        """The project's nodes."""
        return tuple(_written_node(entry) for entry in self.content["nodes"])

    def changed(self, folder: Path) -> list[str]:
        """Files that are not as they were written, or are gone, sorted."""
        return [name for name, digest in sorted(self.files.items()) if _sha256(folder / name) != digest]


def to_json(content: dict[str, Any]) -> str:
    """Text of a manifest: keys sorted, the same text for the same content."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read(folder: Path) -> Manifest:
    """The manifest of a project folder.

    Raises
    ------
    CodegenError
        If there is none, or it is not as the schema says.

    Examples
    --------
    >>> read(Path("none"))
    Traceback (most recent call last):
    hccs_onnx.errors.CodegenError: none: is no project (no manifest.json in it). Write one: python -m hccs_onnx codegen.
    """
    import jsonschema

    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        remedy = "Write one: python -m hccs_onnx codegen"
        raise CodegenError(str(folder), f"is no project (no {NAME} in it)", remedy=remedy) from error
    except OSError as error:
        raise CodegenError(str(path), f"cannot be read ({error.strerror})", remedy="Check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise CodegenError(str(path), "is not JSON", remedy="Write the project again") from error
    if isinstance(content, dict) and content.get("format") == AIE4ML_FORMAT:
        remedy = f"Run python {folder / 'write_firmware.py'}: aie4ml has simulators of its own"
        raise CodegenError(str(folder), "is a project of the flow aie4ml", remedy=remedy)
    problem = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(content))
    if problem is not None:
        remedy = "Write the project again with this version of hccs-onnx"
        raise CodegenError(f"{path}: {problem.json_path}", problem.message[:200], remedy=remedy)
    outside = [name for name in content["files"] if _leads_out(name)]
    if outside:
        raise CodegenError(
            str(path), f"names a file outside the project ({outside[0]})", remedy="Write the project again"
        )
    return Manifest(content)


@cache
def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the manifest, as published in the package."""
    text = resources.files(__package__).joinpath("project.schema.json").read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads(text)
    return result


def _leads_out(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _written_node(entry: dict[str, Any]) -> WrittenNode:
    plan = entry["plan"]
    tiles = tuple(
        Tile(tile["column"], tile["row"], tuple(Slot(**slot) for slot in tile["slots"])) for tile in plan["tiles"]
    )
    work = Work(len(entry["heads"]), entry["rows_per_head"], entry["n"], OUT_BYTES[entry["output"]], entry["masked"])
    memory = Memory(tuple(plan["input_address"]), tuple(plan["output_address"]), plan["stack_bytes"])
    return WrittenNode(
        entry["name"],
        entry["folder"],
        entry["output"],
        Plan(work, plan["slots"], plan["rows"], plan["iterations"], tiles, memory, plan["port_bits"]),
    )
