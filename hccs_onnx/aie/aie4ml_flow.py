"""The flow aie4ml: attention blocks of a rewritten model as graphs that aie4ml turns into AI Engine firmware.

Everything around the blocks stays outside: aie4ml has no embeddings and no GELU, and residuals and layer norms between
blocks are computed in floats by the model. What a block reads and writes there is in the manifest.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import onnx

from hccs_onnx._version import __version__
from hccs_onnx.aie import aie4ml_plugin
from hccs_onnx.aie.aie4ml_block import read_blocks
from hccs_onnx.aie.aie4ml_config import platform_of
from hccs_onnx.aie.aie4ml_cut import REWRITE, BlockCut, find_cuts
from hccs_onnx.aie.aie4ml_export import ExportedBlock, WrittenBlock
from hccs_onnx.aie.aie4ml_folder import check_folder, write_folder
from hccs_onnx.calibration.data import DataSource, InputSpec, Samples, input_specs
from hccs_onnx.errors import CodegenError
from hccs_onnx.graph.files import file_sha256, read_model

logger = logging.getLogger(__name__)

SCRIPT = "write_firmware.py"


@dataclass(frozen=True)
class FlowReport:
    """What was written.

    Parameters
    ----------
    folder : pathlib.Path
        The project.
    blocks : tuple of WrittenBlock
        What is in it.
    """

    folder: Path
    blocks: tuple[WrittenBlock, ...]


def write_project(
    model: Path | str,
    folder: Path | str,
    target: str,
    *,
    nodes: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: DataSource | None = None,
    assume_unmasked: bool = False,
) -> FlowReport:
    """Write the attention blocks of a rewritten model for aie4ml.

    Parameters
    ----------
    model : path
        A model rewritten with ``--profile paper --to uint8|int16 --reciprocal div|clb``.
    folder : path
        New folder; replaced if it is one of this flow, as it was written.
    target : str
        ``vek280`` or ``vek385``.
    nodes : sequence of str
        Only the blocks of HCCS nodes of these names.
    shapes : mapping of str to sequence of int, optional
        Shapes of dynamic inputs, which samples then must have.
    data : path, iterable of feeds, or CalibrationDataReader
        Samples of one length, without padding. They choose the powers of two.
    assume_unmasked : bool
        Take blocks whose mask never masks anything, and leave it out. It must not on the data.

    Returns
    -------
    FlowReport

    Raises
    ------
    CodegenError
        If aie4ml cannot compute a block, with the reason, or the folder is not ours to write.
    ModelError, DataError, ParameterError
        If model or data are not usable.

    Examples
    --------
    >>> write_project("encoder.hccs.onnx", "aie", "vek280", data="samples.npz").blocks[0].tiles  # doctest: +SKIP
    180
    """
    path, output = Path(model), Path(folder)
    platform = platform_of(target)
    check_folder(output)  # before any long work
    proto = read_model(path)
    cuts = find_cuts(proto, path, nodes)
    for cut in cuts:
        _check_cut(cut, assume_unmasked)
    if data is None:
        remedy = "Add --data DATA: powers of two for activations are chosen from real ones"
        raise CodegenError(str(path), "cannot be quantised without data", remedy=remedy)
    blocks = read_blocks(proto, path, cuts, Samples(data, _bound(input_specs(proto), shapes or {})))
    files: dict[str, bytes] = {SCRIPT: resources.files(__package__).joinpath("aie4ml_script.py").read_bytes()}
    written, entries = [], []
    for index, block in enumerate(blocks):
        made = ExportedBlock.make(block, f"{index:02d}_{_file_name(block.cut.node)}", platform)
        files |= made.files()
        written.append(made.report())
        entries.append(made.entry())
    content = {
        "flow": "aie4ml",
        "tool_version": __version__,
        "aie4ml": aie4ml_plugin.VERSION,
        "model": {"name": path.name, "sha256": file_sha256(path)},
        "target": target,
        "part": platform.part,
        "assumed_unmasked": assume_unmasked and any(cut.masked for cut in cuts),
        "blocks": entries,
        "outside": {
            "what": "everything but the blocks: the model is cut at the tensors 'input' and 'output' of each, floats",
            "operators": _outside(proto, cuts),
        },
    }
    write_folder(output, files, content)
    for block_report in written:
        for warning in block_report.warnings:
            logger.warning("%s: %s", block_report.node, warning)
    return FlowReport(output, tuple(written))


def _check_cut(cut: BlockCut, assume_unmasked: bool) -> None:
    subject = f"node '{cut.node}'"
    reasons = cut.params.violations(cut.output, profile="paper")
    if reasons:
        raise CodegenError(subject, f"aie4ml's kernels cannot compute it: {reasons[0]}", remedy=REWRITE)
    if cut.masked and not assume_unmasked:
        problem = "positions can be masked, and aie4ml has no masked Softmax"
        remedy = (
            "If no input is ever padded say --assume-unmasked, and the mask is left out; otherwise use the flow adf"
        )
        raise CodegenError(subject, problem, remedy=remedy)


def _bound(specs: list[InputSpec], shapes: Mapping[str, Sequence[int]]) -> list[InputSpec]:
    """Inputs with the shapes that the user gave."""
    unknown = sorted(set(shapes) - {spec.name for spec in specs})
    if unknown:
        needs = f"one of {', '.join(spec.name for spec in specs)}"
        raise CodegenError("--shape", "names no input of the model", found=unknown[0], needs=needs)
    return [replace(spec, shape=tuple(shapes[spec.name])) if spec.name in shapes else spec for spec in specs]


def _outside(model: onnx.ModelProto, cuts: Sequence[BlockCut]) -> dict[str, int]:
    """Operators of the model that are in no block, with their number."""
    makers = {name: (index, node) for index, node in enumerate(model.graph.node) for name in node.output}
    inside: set[int] = set()
    for cut in cuts:
        pending, ends = [cut.result], {cut.source}
        while pending:
            name = pending.pop()
            if name in makers and name not in ends:
                index, node = makers[name]
                inside.add(index)
                ends.add(name)
                pending += node.input
    return dict(sorted(Counter(node.op_type for i, node in enumerate(model.graph.node) if i not in inside).items()))


def _file_name(node: str) -> str:
    """A node's name as part of a file name and of C++ names."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", node)[:60]
