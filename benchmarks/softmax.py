"""HCCS in ONNX Runtime against its float Softmax, its int8 chain and other runtimes, interleaved; kernels alone."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from common import RESULTS, ROOT, log, parser, publish
from softmax_contestants import read_shapes
from softmax_kernels import KernelRate, kernel_rates
from softmax_report import SCALING_SHAPE, Report
from softmax_timing import TURN_S, Results, measure

from hccs_onnx.errors import HccsError
from hccs_onnx.operator.native import KERNEL_VARIABLE, library_info

SHAPES = ROOT / "benchmarks" / "softmax_shapes.txt"
QUICK_SHAPES = ("[1,12,128,128]", "[8,12,64,64]", "[1,12,512,512]", "[1,12,197,197]")
IDLE_LOAD = 0.5
PACKAGES = ("torch", "openvino", "ai-edge-litert")


def main() -> None:
    """Command line."""
    options, start, load = _options(), time.perf_counter(), _load()
    if options.kernel:
        os.environ[KERNEL_VARIABLE] = options.kernel
    kernel = _kernel_in_use()
    shapes = read_shapes(options.shapes)
    if options.quick:
        shapes = [shape for shape in shapes if shape.label in QUICK_SHAPES] or shapes[:4]
    results = Results()
    rates = _kernel_rates(results, options)
    measure(results, shapes, SCALING_SHAPE, options.threads, options.rounds, options.seconds)
    report = Report(results, rates, shapes, kernel)
    data = {
        "kernel": kernel,
        "load_at_start": load,
        "took_s": round(time.perf_counter() - start),
        "turn_s": TURN_S,
        "skipped": results.skipped,
        "graphs": results.graphs,
        "run_copies": results.run_copies,
        "outputs_checked": results.checked,
        "targets": report.targets(),
        "kernels": [vars(rate) for rate in rates],
        "timings": [vars(timing) for timing in results.timings],
        "scaling": [vars(timing) for timing in results.scaling],
    }
    publish(options.out, "Softmax and HCCS, the operator alone", report.markdown(), data, PACKAGES, options.json)


def _load() -> float | None:
    """How many processes wanted a processor in the last minute, where that is known."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    if load > IDLE_LOAD:
        log(f"warning: the machine is not idle (load {load:.1f}); expect wrong ratios")
    return load


def _kernel_in_use() -> str:
    try:
        kernel = library_info().selected
    except HccsError as error:
        raise SystemExit(str(error)) from None
    if kernel is None:
        raise SystemExit(f"{KERNEL_VARIABLE}={os.environ.get(KERNEL_VARIABLE)}: no such kernels run here")
    return kernel


def _kernel_rates(results: Results, options: argparse.Namespace) -> list[KernelRate]:
    try:
        return kernel_rates(options.kernel_bench, options.quick)
    except FileNotFoundError as error:
        results.skip(f"kernels alone: {error}")
        return []


def _options() -> argparse.Namespace:
    arguments = parser(__doc__ or "", "softmax")
    arguments.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    arguments.add_argument("--shapes", type=Path, default=SHAPES, help="name, batch, heads, queries, keys a line")
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of every runtime")
    arguments.add_argument("--rounds", type=int, default=41, help="most rounds on a shape")
    arguments.add_argument("--seconds", type=float, default=390.0, help="time for all sessions, about")
    arguments.add_argument("--quick", action="store_true", help="about a minute for everything: four shapes")
    arguments.add_argument("--kernel", help="kernels to use instead of the best that run here, such as avx2, portable")
    arguments.add_argument("--kernel-bench", type=Path, help="a built hccs_kernel_bench; without it one is built")
    options = arguments.parse_args()
    if min(options.threads) < 1:
        arguments.error("--threads must be 1 or more")
    if options.quick:
        options.seconds = min(options.seconds, 40.0)
    if options.kernel and options.out == RESULTS / "softmax":
        options.out = RESULTS / f"softmax_{options.kernel}"
    return options


if __name__ == "__main__":
    main()
