"""Writing an AI Engine project of a rewritten model: one ADF graph for each HCCS node, with test vectors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import onnx

from hccs_onnx._version import __version__
from hccs_onnx.aie import manifest
from hccs_onnx.aie.devices import Device, device
from hccs_onnx.aie.folder import check_folder, write_folder
from hccs_onnx.aie.manifest import NodeProject
from hccs_onnx.aie.nodes import HccsNode, NodeCodes, bind_shapes, codes_at_random, codes_from_data, find_nodes
from hccs_onnx.aie.plan import Plan, Work, make_plan
from hccs_onnx.aie.plan_estimate import plan_estimate
from hccs_onnx.aie.sources import KERNEL_FOLDER, KERNELS, common_sources, node_sources
from hccs_onnx.aie.vectors import make_work, rows_by_head, tile_inputs, tile_outputs, to_text
from hccs_onnx.calibration.data import DataSource
from hccs_onnx.errors import CodegenError
from hccs_onnx.graph.files import file_sha256, read_model
from hccs_onnx.reference import Array


@dataclass(frozen=True)
class ProjectReport:
    """What was written.

    Parameters
    ----------
    folder : pathlib.Path
        The project.
    device : Device
        The target.
    nodes : tuple of NodeProject
        What is in it.
    """

    folder: Path
    device: Device
    nodes: tuple[NodeProject, ...]


def write_project(
    model: Path | str,
    folder: Path | str,
    target: str,
    *,
    nodes: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    tiles: int | None = None,
    data: DataSource | None = None,
    kernel: str = "fast",
) -> ProjectReport:
    """Write a project for every HCCS node of a model that reads int8, or for some.

    Parameters
    ----------
    model : path
        A rewritten model.
    folder : path
        New folder; replaced if it holds an unchanged project.
    target : str
        Name of a device, or the path of a device file; see `hccs_onnx.aie.devices`.
    nodes : sequence of str
        Only nodes of these names.
    shapes : mapping of str to sequence of int, optional
        Shapes of graph inputs that are dynamic.
    tiles : int, optional
        Most tiles a node; see `hccs_onnx.aie.plan.make_plan`.
    data : path, iterable of feeds, or CalibrationDataReader, optional
        Test vectors are what nodes read on the first sample; without data they are random codes.
    kernel : {'fast', 'reference'}
        Which kernel tiles run.

    Returns
    -------
    ProjectReport

    Raises
    ------
    CodegenError
        If a node cannot be computed on the target, or the folder is not ours to write.
    ModelError, DataError, ParameterError
        If the model, its parameters or the data are not usable.

    Examples
    --------
    >>> write_project("encoder.hccs.onnx", "aie", "vek280", shapes={"ids": (1, 128)}).folder  # doctest: +SKIP
    PosixPath('aie')
    """
    path, output = Path(model), Path(folder)
    if kernel not in KERNELS:
        raise CodegenError("--kernel", "unknown", found=kernel, needs=f"one of {', '.join(KERNELS)}")
    chosen = device(target)
    check_folder(output)  # before any long work
    proto = read_model(path)
    found = find_nodes(proto, path, nodes)
    bind_shapes(proto, shapes or {})
    codes = _codes(proto, path, found, data)
    projects, files = [], _kernel_files()
    for index, (node, item) in enumerate(zip(found, codes, strict=True)):
        project = _plan_node(chosen, index, node, item, tiles, kernel)
        projects.append(project)
        for name, text in {**node_sources(project, kernel), **_vectors(project, item.codes)}.items():
            files[f"{project.folder}/{name}"] = text.encode()
    for name, text in common_sources(projects, chosen, path.name).items():
        files[name] = text.encode()
    content = {
        "format": manifest.FORMAT,
        "version": manifest.VERSION,
        "flow": "adf",
        "tool_version": __version__,
        "model": {"name": path.name, "sha256": file_sha256(path)},
        "device": {**asdict(chosen), "sources": dict(chosen.sources)},
        "kernel": kernel,
        "nodes": [project.to_dict() for project in projects],
        "files": {name: hashlib.sha256(text).hexdigest() for name, text in files.items()},
    }
    files[manifest.NAME] = manifest.to_json(content).encode()
    write_folder(output, files)
    return ProjectReport(output, chosen, tuple(projects))


def _codes(
    model: onnx.ModelProto, path: Path, nodes: Sequence[HccsNode], data: DataSource | None
) -> tuple[NodeCodes, ...]:
    if data is None:
        return codes_at_random(model, path, nodes)
    return codes_from_data(model, path, nodes, data)


def _plan_node(
    chosen: Device, index: int, node: HccsNode, item: NodeCodes, tiles: int | None, kernel: str
) -> NodeProject:
    """Where the node's rows go, once its parameters are known to be legal for them."""
    subject, shape, params = f"node '{node.name}'", item.codes.shape, node.params
    heads = None
    if len(params.heads) > 1:
        if not -len(shape) <= params.head_axis < len(shape) or params.head_axis % len(shape) == len(shape) - 1:
            problem = f"head_axis {params.head_axis} is no axis before the last"
            raise CodegenError(subject, problem, needs=f"one of rank {len(shape)}", remedy="Rewrite the original again")
        heads = shape[params.head_axis]
    reasons = params.violations(node.output, n=shape[-1], heads=heads)
    if reasons:
        raise CodegenError(subject, reasons[0], remedy="Calibrate and rewrite the original again")
    plan = _plan(chosen, make_work(item.codes, params, node.output), subject, tiles, node)
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", node.name).strip("._")[-60:]
    estimate = plan_estimate(chosen, plan, params, node.output) if kernel == "fast" else None
    return NodeProject(node, f"{index:02d}_{safe}", tuple(shape), item.origin, plan, estimate)


def _plan(chosen: Device, work: Work, subject: str, tiles: int | None, node: HccsNode) -> Plan:
    """The plan; left to choose, one of fewer tiles whose ports are wider, where the model says that it is faster."""
    plan = make_plan(chosen, work, subject, tiles)
    wide = chosen.ports(128)
    if tiles is not None or len(plan.tiles) <= wide or work.heads > wide:
        return plan
    plans = (plan, make_plan(chosen, work, subject, wide))
    return min(plans, key=lambda each: plan_estimate(chosen, each, node.params, node.output).microseconds)


def _vectors(project: NodeProject, codes: Array) -> dict[str, str]:
    """Text of what each tile reads and must write, by file name."""
    plan, node = project.plan, project.node
    inputs = tile_inputs(plan, rows_by_head(codes, node.params))
    outputs = tile_outputs(plan, inputs, node.params, node.output)
    files = {}
    for tile in range(len(plan.tiles)):
        files[f"data/x_{tile}.txt"] = to_text(inputs[tile], plan.port_bits)
        files[f"data/golden_{tile}.txt"] = to_text(outputs[tile], plan.port_bits)
    return files


def _kernel_files() -> dict[str, bytes]:
    """The kernel headers, by path in the project."""
    folder = resources.files("hccs_onnx.aie").joinpath("kernels")
    headers = sorted((item for item in folder.iterdir() if item.name.endswith(".h")), key=lambda item: item.name)
    return {f"{KERNEL_FOLDER}/{item.name}": item.read_bytes() for item in headers}
