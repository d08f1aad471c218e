"""Running a written project on this machine, against the emulation, and comparing it with its golden vectors."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hccs_onnx.aie import manifest
from hccs_onnx.aie.host_compiler import Build, find_compiler, signal_name
from hccs_onnx.aie.manifest import Manifest, WrittenNode
from hccs_onnx.aie.sources import KERNEL_FOLDER
from hccs_onnx.aie.vectors import from_text
from hccs_onnx.errors import CodegenError
from hccs_onnx.reference import Array

OUTPUT_FOLDER = "x86simulator_output"
_SOURCES = ("kernels.cc", "graph.cpp")
_ELSEWHERE = {"AIE_EMULATION_INPUT_DIR", "AIE_EMULATION_OUTPUT_DIR", "AIE_EMULATION_REPORT"}
"""What would make an emulated graph read or write somewhere else."""


@dataclass(frozen=True)
class SlotResult:
    """One head's rows on one tile.

    Parameters
    ----------
    node : str
        Node name.
    head : int or None
        Number of the parameter set; None for what is only padding.
    tile : int
        Number of the tile, as in file names.
    column, row : int
        Its place in the array.
    rows, codes : int
        Rows of the head, and codes compared, padding included.
    wrong : int
        Codes that differ from the golden vector.
    first : str or None
        The first that differs.
    """

    node: str
    head: int | None
    tile: int
    column: int
    row: int
    rows: int
    codes: int
    wrong: int
    first: str | None


@dataclass(frozen=True)
class Simulation:
    """What came out.

    Parameters
    ----------
    results : tuple of SlotResult
        By node, tile and slot.
    failures : tuple of str
        Nodes that did not run to their end, with the reason.
    changed : tuple of str
        Files that are not as they were written.
    """

    results: tuple[SlotResult, ...]
    failures: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every node ran and every code is right."""
        return not self.failures and not any(result.wrong for result in self.results)


def simulate(folder: Path | str) -> Simulation:
    """Compile a project with the host's compiler against the emulation, run it, and compare every code.

    Parameters
    ----------
    folder : path
        What codegen wrote. Nothing in it is changed.

    Returns
    -------
    Simulation

    Raises
    ------
    CodegenError
        If the folder is no project, lacks files, or does not compile.
    HccsError
        If there is no compiler.

    Examples
    --------
    >>> simulate("aie").passed  # doctest: +SKIP
    True
    """
    project = Path(folder)
    written = manifest.read(project)
    changed = written.changed(project)
    missing = [name for name in changed if not (project / name).is_file()]
    if missing:
        remedy = "Write the project again: python -m hccs_onnx codegen"
        raise CodegenError(str(project / missing[0]), "is missing", remedy=remedy)
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="hccs-simulate-") as temporary:
        build = Build(compiler, written.arch, Path(temporary))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # the work is done by other processes
            _compile_all(build, project, written, pool)
            runs = list(pool.map(lambda node: _run(build, project, node), written.nodes))
    results: list[SlotResult] = []
    failures: list[str] = []
    for node, run in zip(written.nodes, runs, strict=True):
        if isinstance(run, str):
            failures.append(f"node '{node.name}': {run}")
        else:
            results += run
    return Simulation(tuple(results), tuple(failures), tuple(changed))


def _sources(project: Path, node: WrittenNode) -> tuple[list[Path], list[Path]]:
    """Sources of a node, and where its headers are looked for."""
    folder = project / node.folder
    return [folder / name for name in _SOURCES], [folder, project / KERNEL_FOLDER]


def _compile_all(build: Build, project: Path, written: Manifest, pool: ThreadPoolExecutor) -> None:
    """Compile what differs between nodes once a node, the rest once."""
    jobs: dict[Path, tuple[Path, list[Path]]] = {}
    for node in written.nodes:
        sources, includes = _sources(project, node)
        for source in sources:
            jobs.setdefault(build.place(source, includes), (source, includes))
    list(pool.map(lambda job: build.compile(*job), jobs.values()))


def _run(build: Build, project: Path, node: WrittenNode) -> list[SlotResult] | str:
    """Results of a node, or why it did not run to its end."""
    sources, includes = _sources(project, node)
    program = build.link(f"{node.folder}.run", [build.place(source, includes) for source in sources])
    work = build.folder / node.folder
    shutil.copytree(project / node.folder / "data", work / "data")
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    done = subprocess.run(
        [str(program)], cwd=work, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        return _complaint(done)
    results = []
    for tile in range(len(node.plan.tiles)):
        expected = _values(work / "data" / f"golden_{tile}.txt", node)
        actual = _values(work / OUTPUT_FOLDER / f"y_{tile}.txt", node)
        if actual.size != expected.size:
            return f"tile {tile} wrote {actual.size} codes, needs {expected.size}"
        results += _compare(node, tile, expected, actual)
    return results


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = next((line.removeprefix("what():").strip() for line in lines if line.startswith("what():")), None)
    stopped = signal_name(done.returncode)
    how = f"ended with status {done.returncode}" if stopped is None else f"was stopped by {stopped}"
    return said or (lines[-1] if lines else how)


def _values(path: Path, node: WrittenNode) -> Array:
    try:
        values = from_text(path.read_text(encoding="ascii"), node.output)
    except FileNotFoundError as error:
        raise CodegenError(f"node '{node.name}'", f"wrote no {path.name}", remedy="Check graph.h") from error
    except ValueError as error:
        raise CodegenError(f"node '{node.name}'", f"{path.name} holds something else than numbers") from error
    return values


def _compare(node: WrittenNode, tile: int, expected: Array, actual: Array) -> list[SlotResult]:
    plan = node.plan
    shape = (plan.iterations, plan.slots, plan.rows, plan.work.columns)
    if expected.size != np.prod(shape):
        remedy = "Write the project again"
        raise CodegenError(
            f"node '{node.name}'", f"golden_{tile}.txt has a wrong length", found=expected.size,
            needs=int(np.prod(shape)), remedy=remedy,
        )  # fmt: skip
    expected, actual = expected.reshape(shape), actual.reshape(shape)
    place = plan.tiles[tile]
    results = []
    for number, slot in enumerate(place.slots):
        differs = expected[:, number] != actual[:, number]
        first = None
        if differs.any():
            at = tuple(int(index) for index in np.argwhere(differs)[0])
            found, needs = int(actual[:, number][at]), int(expected[:, number][at])
            row = slot.start + at[0] * plan.rows + at[1]
            first = f"row {row}, column {at[2]}: {found}, needs {needs}"
        head = slot.head if slot.count else None
        results.append(
            SlotResult(
                node.name, head, tile, place.column, place.row, slot.count, differs.size, int(differs.sum()), first
            )
        )
    return results
