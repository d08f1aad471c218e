"""The flow aie4ml: attention blocks of a rewritten model as graphs that aie4ml turns into AI Engine firmware.

Everything around the blocks stays outside: aie4ml has no embeddings and no GELU, and residuals and layer norms between
blocks are computed in floats by the model. What a block reads and writes there is in the manifest.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hccs_onnx._version import __version__
from hccs_onnx.aie import aie4ml_plugin
from hccs_onnx.aie.aie4ml_block import AttentionBlock, read_blocks
from hccs_onnx.aie.aie4ml_config import Platform, Split, check_rows, configuration, platform_of, split_layers
from hccs_onnx.aie.aie4ml_cut import REWRITE, BlockCut, find_cuts
from hccs_onnx.aie.aie4ml_folder import check_folder, write_folder
from hccs_onnx.aie.aie4ml_graph import INPUT, OUTPUT, build_graph, layer_name
from hccs_onnx.aie.aie4ml_quantize import QuantizedBlock, quantize
from hccs_onnx.backends import best_backend, open_session
from hccs_onnx.calibration.collect import run, with_outputs
from hccs_onnx.calibration.data import DataSource, InputSpec, Samples, input_specs
from hccs_onnx.errors import CodegenError
from hccs_onnx.graph.files import file_sha256, read_model
from hccs_onnx.reference import Array

logger = logging.getLogger(__name__)

SCRIPT = "write_firmware.py"
_ENOUGH_MASS = 0.8  # of 1, that a row of equal logits has to sum to


@dataclass(frozen=True)
class Fidelity:
    """The block in integers against the same block in the model, on the data.

    Parameters
    ----------
    relative_error : float
        Of the block's output, in the 2-norm.
    mean_code_difference : float
        Of the logit codes.
    equal_probabilities : float
        Share of HCCS outputs that are the same integers.
    """

    relative_error: float
    mean_code_difference: float
    equal_probabilities: float


@dataclass(frozen=True)
class WrittenBlock:
    """A block that was written.

    Parameters
    ----------
    node : str
        Its HCCS node in the model.
    folder : str
        Its folder in the project.
    heads, positions : int
        Heads, and positions that attend to each other.
    tiles : int
        Tiles that the layers take.
    fidelity : Fidelity
        How close it comes to the model.
    warnings : tuple of str
        What to know before it is used.
    """

    node: str
    folder: str
    heads: int
    positions: int
    tiles: int
    fidelity: Fidelity
    warnings: tuple[str, ...]


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
        made = _Block.make(block, f"{index:02d}_{_file_name(block.cut.node)}", platform)
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


@dataclass(frozen=True)
class _Block:
    """A block with everything that is written of it."""

    block: AttentionBlock
    folder: str
    integers: QuantizedBlock
    graph: onnx.ModelProto
    splits: dict[str, Split]
    config: dict[str, Any]
    golden: dict[str, Array]
    fidelity: Fidelity

    @classmethod
    def make(cls, block: AttentionBlock, folder: str, platform: Platform) -> _Block:
        cut = block.cut
        subject = f"node '{cut.node}'"
        check_rows(subject, block.rows)
        reasons = cut.params.violations(cut.output, profile="paper", n=block.rows)
        if reasons:
            raise CodegenError(subject, f"aie4ml's kernels cannot compute it: {reasons[0]}", remedy=REWRITE)
        integers = quantize(block)
        splits = split_layers(subject, integers, block.rows, cut.output, platform)
        graph = build_graph(block, integers, folder)
        golden, fidelity = _run(graph, block)
        return cls(block, folder, integers, graph, splits, configuration(splits, platform), golden, fidelity)

    def files(self) -> dict[str, bytes]:
        """Content by path."""
        archive = io.BytesIO()
        np.savez_compressed(archive, allow_pickle=False, **self.golden)
        return {
            f"{self.folder}/model.onnx": self.graph.SerializeToString(deterministic=True),
            f"{self.folder}/config.json": (json.dumps(self.config, indent=1) + "\n").encode(),
            f"{self.folder}/golden.npz": archive.getvalue(),
        }

    def report(self) -> WrittenBlock:
        """For the user."""
        return WrittenBlock(
            node=self.block.cut.node,
            folder=self.folder,
            heads=self.block.heads,
            positions=self.block.rows,
            tiles=sum(split.chains * split.length for split in self.splits.values()),
            fidelity=self.fidelity,
            warnings=_warnings(self.block),
        )

    def entry(self) -> dict[str, Any]:
        """For the manifest."""
        cut, integers, report = self.block.cut, self.integers, self.report()
        params, scales, zero_points = cut.params.heads, cut.quantizer.scale, cut.quantizer.zero_point
        heads = []
        for index, layers in enumerate(integers.heads):
            head = params[index % len(params)]
            heads.append(
                {
                    "B": head.B,
                    "S": head.S,
                    "Dmax": head.Dmax,
                    "logit_scale": scales[index % len(scales)],
                    "logit_zero_point": zero_points[index % len(zero_points)],
                    "fractions": {name: getattr(layers, name).fraction for name in ("query", "key", "value")},
                }
            )
        return {
            "node": cut.node,
            "folder": self.folder,
            "input": cut.source,
            "output": cut.result,
            "positions": report.positions,
            "output_type": cut.output,
            "reciprocal": cut.params.reciprocal,
            "heads": heads,
            "fractions": {
                "input": integers.x_fraction,
                "context": integers.context_fraction,
                "output": integers.output.fraction,
            },
            "logit_scale": "in the weights of the queries: queries times keys are the logit codes of the model",
            "logit_zero_point": "product of constant columns that queries and keys have beside their own",
            "left_out": ["mask, which masked nothing on the data"] if cut.masked else [],
            "samples": len(self.block.x),
            "tiles": report.tiles,
            "fidelity": asdict(report.fidelity),
            "warnings": list(report.warnings),
        }


def _run(graph: onnx.ModelProto, block: AttentionBlock) -> tuple[dict[str, Array], Fidelity]:
    """Input and integers of the first sample, and how close all samples come to the model."""
    import onnxruntime as ort

    roles = {role: [layer_name(role, head) for head in range(block.heads)] for role in ("codes", "hccs")}
    names = [*roles["codes"], *roles["hccs"], OUTPUT]
    extended = onnx.ModelProto()
    extended.CopyFrom(graph)
    options = ort.SessionOptions()
    # Fused int8 products saturate on some processors; float sums of these integers are exact.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session: Any = open_session(with_outputs(extended, names), Path(graph.graph.name), best_backend(), options)
    outputs = [run(session, names, {INPUT: x}) for x in block.x]
    codes = np.stack([np.stack(values[: block.heads]) for values in outputs])
    probabilities = np.stack([np.stack(values[block.heads : -1]) for values in outputs])
    y = np.stack([values[-1] for values in outputs])
    fidelity = Fidelity(
        relative_error=_rounded(np.linalg.norm(y - block.y) / np.linalg.norm(block.y)),
        mean_code_difference=_rounded(np.abs(codes.astype(int) - block.codes).mean()),
        equal_probabilities=_rounded((probabilities == block.probabilities).mean()),
    )
    return {"x": block.x[0], "codes": codes[0], "hccs": probabilities[0], "y": y[0]}, fidelity


def _rounded(value: float | np.floating[Any]) -> float:
    """Digits that another machine gives as well."""
    return float(f"{float(value):.3g}")


def _warnings(block: AttentionBlock) -> tuple[str, ...]:
    n = block.rows
    mass = n * (255 // n) / 256
    if block.cut.output == "uint8" and block.cut.params.reciprocal == "div" and mass < _ENOUGH_MASS:
        return (
            f"uint8 with div rounds every probability down: a row of {n} equal logits sums to {mass:.2f}, not 1. "
            "Compare with --to int16 and with --reciprocal clb",
        )
    return ()


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
