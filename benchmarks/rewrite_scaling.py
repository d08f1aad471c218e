"""Time and memory of ``python -m hccs_onnx rewrite``: MiniLM L6, synthetic encoders of up to 4,000 attention blocks."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import MINILM_L6, ChildRun, log, package_file, parser, publish, run_module, table, verdict

_L6 = "MiniLM L6"
_L6_SECONDS, _L6_MB, _LARGE_SECONDS = 3.0, 300.0, 60.0
_MOST_GROWTH = 2.5  # of the increment per doubling; 2 is linear, 4 is quadratic


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "rewrite_scaling")
    arguments.add_argument("--blocks", type=int, nargs="+", default=[125, 250, 500, 1000, 2000], help="model sizes")
    arguments.add_argument("--repeats", type=int, default=3, help="runs of each, taken in turns; the median counts")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {_L6: package_file(*MINILM_L6)}
        for blocks in options.blocks:
            models[str(blocks)] = folder / f"blocks{blocks}.onnx"
            _in_a_process(blocks, models[str(blocks)])
        runs: dict[str, list[ChildRun]] = {model: [] for model in models}
        for repeat in range(options.repeats):
            for model, path in models.items():
                runs[model].append(run_module("hccs_onnx", "rewrite", path, "-o", folder / "out.onnx"))
                log(f"round {repeat + 1}: {model}: {runs[model][-1]}")
        sizes = {model: path.stat().st_size / 1e6 for model, path in models.items()}
    body = _report({model: _median(values) for model, values in runs.items()}, sizes, options.blocks)
    numbers = {model: [asdict(run) for run in values] for model, values in runs.items()}
    publish(options.out, "Rewrite: time and memory", body, {"nodes_per_block": _nodes_per_block(), "runs": numbers})


def _median(runs: Sequence[ChildRun]) -> ChildRun:
    return ChildRun(statistics.median(run.seconds for run in runs), statistics.median(run.peak_mb for run in runs))


def _report(medians: Mapping[str, ChildRun], sizes: Mapping[str, float], blocks: Sequence[int]) -> str:
    nodes = {str(count): f"{count * _nodes_per_block():,}" for count in blocks}
    rows = [
        (model, nodes.get(model, ""), f"{sizes[model]:.1f}", f"{run.seconds:.2f}", f"{run.peak_mb:.0f}")
        for model, run in medians.items()
    ]
    l6, large = medians[_L6], medians[str(max(blocks))]
    growth = _growth([medians[str(count)].seconds for count in sorted(blocks)[-3:]])
    targets = [
        (f"{_L6}: seconds", f"{l6.seconds:.2f}", f"< {_L6_SECONDS}", l6.seconds < _L6_SECONDS),
        (f"{_L6}: peak memory, MB", f"{l6.peak_mb:.0f}", f"< {_L6_MB}", l6.peak_mb < _L6_MB),
        (
            f"{max(blocks)} blocks: seconds",
            f"{large.seconds:.2f}",
            f"< {_LARGE_SECONDS}",
            large.seconds < _LARGE_SECONDS,
        ),
        ("growth of the increment per doubling", f"{growth:.2f}", f"<= {_MOST_GROWTH}", growth <= _MOST_GROWTH),
    ]
    about = (
        "Wall-clock time and peak resident memory (VmHWM) of a fresh `python -m hccs_onnx rewrite MODEL -o OUT`, start "
        f"of the interpreter included; medians. Synthetic encoders have {_nodes_per_block()} nodes a block, written as "
        "PyTorch's TorchScript exporter writes BERT: shapes computed, scale as Div, mask as Add. The last doubling "
        "should add twice the time that the one before added (linear: 2, quadratic: 4)."
    )
    sections = [
        about,
        table(["model or blocks", "nodes", "size, MB", "seconds", "peak, MB"], rows),
        table(["target", "measured", "needs", ""], [(*row[:3], verdict(row[3])) for row in targets]),
    ]
    return "\n\n".join(sections)


def _growth(seconds: Sequence[float]) -> float:
    """Ratio of the last two increments of three times, each for twice the blocks of the one before."""
    first, second, third = seconds
    return (third - second) / (second - first)


def _in_a_process(blocks: int, path: Path) -> None:
    """Write a synthetic model without this process growing by it."""
    process = multiprocessing.get_context("spawn").Process(target=write_encoder, args=(blocks, path))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"cannot write a model of {blocks} blocks")


def write_encoder(blocks: int, path: Path) -> None:
    """Write an encoder of `blocks` attention blocks, 2 heads of 4 channels, dynamic batch and length."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    random = np.random.default_rng(0)
    shared = {"zero": np.int64(0), "one": np.int64(1), "axis": [0], "two_heads": [2], "depth": [4], "width": [8]}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in shared.items()]
    nodes = []
    for block in range(blocks):
        for name, reads in _block(block):
            nodes.append(helper.make_node(_operator(name), reads, [f"{name}_output_0"], name, **_attributes(name)))
        for name in ("q", "k", "v", "dense"):
            values = random.normal(0, 0.3, (8, 8)).astype(np.float32)
            weights.append(numpy_helper.from_array(values, f"layer.{block}.{name}.weight"))
            weights.append(numpy_helper.from_array(values[0], f"layer.{block}.{name}.bias"))
    hidden: list[str | int | None] = ["batch", "sequence", 8]
    inputs = [
        helper.make_tensor_value_info("hidden", TensorProto.FLOAT, hidden),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", 1, 1, "sequence"]),
    ]
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, hidden)]
    graph = helper.make_graph(nodes, "encoder", inputs, outputs, weights)
    save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def _nodes_per_block() -> int:
    return len(_block(0))


def _block(block: int) -> list[tuple[str, list[str]]]:
    """Nodes of one block: name, which ends in the operator and a number, and inputs."""
    at, hidden = f"/layer.{block}", f"/layer.{block - 1}/out/Add1_output_0" if block else "hidden"
    nodes: list[tuple[str, list[str]]] = []

    def add(name: str, *inputs: str) -> str:
        nodes.append((f"{at}/{name}", list(inputs)))
        return f"{at}/{name}_output_0"

    sizes = []
    for number, index in enumerate(("zero", "one")):
        size = add(f"Gather{number}", add(f"Shape{number}", hidden), index)
        sizes.append(add(f"Unsqueeze{number}", size, "axis"))
    split = add("Concat0", *sizes, "two_heads", "depth")
    heads = {}
    for name in ("q", "k", "v"):
        product = add(f"{name}/MatMul", hidden, f"layer.{block}.{name}.weight")
        shifted = add(f"{name}/Add", f"layer.{block}.{name}.bias", product)
        heads[name] = add(f"{name}/Transpose", add(f"{name}/Reshape", shifted, split))
    logits = add("Div", add("MatMul0", heads["q"], heads["k"]), add("Constant"))
    weighted = add("MatMul1", add("Softmax", add("Add", logits, "mask")), heads["v"])
    merged = add("Reshape1", add("Transpose1", weighted), add("Concat1", *sizes, "width"))
    dense = add("dense/Add", f"layer.{block}.dense.bias", add("dense/MatMul", merged, f"layer.{block}.dense.weight"))
    add("out/Add1", dense, hidden)
    return nodes


def _operator(name: str) -> str:
    return name.rpartition("/")[2].rstrip("0123456789")


def _attributes(name: str) -> dict[str, Any]:
    """Attributes of the node with this name."""
    op = _operator(name)
    if op == "Transpose":
        return {"perm": [0, 2, 3, 1] if "/k/" in name else [0, 2, 1, 3]}
    others: dict[str, dict[str, Any]] = {
        "Concat": {"axis": 0},
        "Softmax": {"axis": -1},
        "Constant": {"value_float": 2.0},
    }
    return others.get(op, {})


if __name__ == "__main__":
    main()
