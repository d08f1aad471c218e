"""An attention block as it is written for aie4ml: graph, tiles, golden integers, how close it comes to the model."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hccs_onnx.aie.aie4ml_block import AttentionBlock
from hccs_onnx.aie.aie4ml_config import Platform, Split, check_rows, check_width, configuration, split_layers
from hccs_onnx.aie.aie4ml_cut import REWRITE
from hccs_onnx.aie.aie4ml_graph import INPUT, OUTPUT, build_graph, layer_name
from hccs_onnx.aie.aie4ml_quantize import QuantizedBlock, quantize
from hccs_onnx.backends import best_backend, open_session
from hccs_onnx.calibration.collect import run, with_outputs
from hccs_onnx.errors import CodegenError
from hccs_onnx.reference import Array

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
class ExportedBlock:
    """A block with everything that is written of it.

    Parameters
    ----------
    block : AttentionBlock
        The block, measured in the model.
    folder : str
        Its folder in the project.
    integers : QuantizedBlock
        Its layers in integers.
    graph : onnx.ModelProto
        These as aie4ml takes them.
    splits : dict of str to Split
        Tiles of each layer.
    config : dict
        Platform and tiles, for aie4ml.
    golden : dict of str to ndarray
        Integers of the first sample.
    fidelity : Fidelity
        How close all samples come to the model.
    """

    block: AttentionBlock
    folder: str
    integers: QuantizedBlock
    graph: onnx.ModelProto
    splits: dict[str, Split]
    config: dict[str, Any]
    golden: dict[str, Array]
    fidelity: Fidelity

    @classmethod
    def make(cls, block: AttentionBlock, folder: str, platform: Platform) -> ExportedBlock:
        """Quantise a block, spread it over tiles and run it on the data.

        Raises
        ------
        CodegenError
            If aie4ml cannot compute it.
        """
        cut = block.cut
        subject = f"node '{cut.node}'"
        check_rows(subject, block.rows)
        check_width(subject, block.x.shape[-1], block.rows)
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
