"""Measure what `hccs_onnx estimate` reckons with: operations of the AI Engine kernels, counted by the host emulation.

    python benchmarks/aie/measure_counts.py [-o hccs_onnx/aie/operation_counts.json]

Needs g++ (or CXX). With the package aie4ml the published kernel is counted too; without it its counts stay.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hccs_onnx.aie import emulation, kernels

HERE = Path(__file__).resolve().parent
TABLE = HERE.parents[1] / "hccs_onnx" / "aie" / "operation_counts.json"
PARAMETERS = HERE.parents[1] / "tests" / "aie" / "emulation" / "sources"
ARCHITECTURES = (10, 20, 22)


def measure(arch: int) -> dict[str, Any]:
    """Operations a row by kernel, row length and phase."""
    flags = [
        "-std=c++20",
        "-O1",
        "-w",
        f"-D__AIE_ARCH__={arch}",
        "-I",
        kernels.include_dir(),
        "-I",
        emulation.include_dir(),
    ]
    specification = importlib.util.find_spec("aie4ml")
    if specification is not None and specification.origin is not None:
        sources = Path(specification.origin).parent / "templates" / "nnet_utils" / "softmax"
        flags += ["-DPUBLISHED", "-I", PARAMETERS, "-I", sources]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "counts"
        command = [os.environ.get("CXX", "g++"), *map(str, flags), str(HERE / "kernel_counts.cpp"), "-o", str(program)]
        subprocess.run(command, check=True)
        lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    table: dict[str, Any] = {}
    for line in lines:
        entry = json.loads(line)
        table.setdefault(entry.pop("kernel"), {})[str(entry.pop("n"))] = entry
    return table


def one_line_a_row_length(document: dict[str, Any]) -> str:
    """JSON that can be read and compared line by line."""
    lines: list[str] = []
    for arch, table in sorted(document.pop("arch").items()):
        lines += [
            f"  {json.dumps([arch, kernel, n, counts], sort_keys=True)}"
            for kernel, lengths in sorted(table.items())
            for n, counts in sorted(lengths.items(), key=lambda item: int(item[0]))
        ]
    head = json.dumps(document, sort_keys=True)[1:-1]
    return f'{{{head}, "counts": [\n' + ",\n".join(lines) + "\n]}\n"


def main() -> None:
    """Count on all architectures and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=TABLE)
    output = parser.parse_args().output
    table: dict[str, Any] = {str(arch): {} for arch in ARCHITECTURES}
    for arch, kernel, n, counts in json.loads(TABLE.read_text())["counts"] if TABLE.exists() else []:
        table[arch].setdefault(kernel, {})[n] = counts
    for arch in ARCHITECTURES:
        table[str(arch)].update(measure(arch))
    document = {"format": "hccs-aie-operation-counts", "version": 1, "unit": "operations a row", "arch": table}
    output.write_text(one_line_a_row_length(document), encoding="utf-8")
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
