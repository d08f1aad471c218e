"""``doctor``: what is installed, which kernel would run, and why not."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

from hccs_onnx.cli.common import add_command, add_json, note, print_json
from hccs_onnx.doctor import Diagnosis, diagnose
from hccs_onnx.errors import ExitStatus
from hccs_onnx.operator.native import KERNEL_VARIABLE, LIBRARY_VARIABLE


def add(commands: Any) -> None:
    """Add the command to the parser."""
    help_text = "say what is installed, try every backend, and tell which native kernel would run; status 1 on a fault"
    parser = add_command(commands, "doctor", help_text, "python -m hccs_onnx doctor")
    parser.add_argument("--require-native", action="store_true", help="count a missing native library as a fault")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> ExitStatus:
    found = diagnose()
    faults = list(found.faults)
    native = next(item for item in found.backends if item.name == "native")
    if options.require_native and not native.installed:
        faults.append(f"backend native: {native.problem}")
    if options.json:
        print_json({**asdict(found), "faults": faults})
    else:
        print(report(found))
    for fault in faults:
        note(f"error: {fault}")
    return ExitStatus.BAD_INPUT if faults else ExitStatus.OK


def report(found: Diagnosis) -> str:
    """The diagnosis as text."""
    lines = [f"hccs-onnx {found.version} on {found.system}", ""]
    lines += [f"{name:24}{version or 'not installed'}" for name, version in found.packages.items()]
    lines += ["", f"{'native library':24}{found.library.path if found.library else 'none'}"]
    if found.library:
        for kernels in found.library.kernels:
            state = "runs here" if kernels.runs_here else "not supported by this processor"
            lines.append(f"  {'kernels ' + kernels.name:22}{state}{_chosen(found.library.selected == kernels.name)}")
    for variable in (LIBRARY_VARIABLE, KERNEL_VARIABLE):
        if os.environ.get(variable):
            lines.append(f"  {variable:22}{os.environ[variable]} (from the environment)")
    lines.append("")
    for backend in found.backends:
        lines.append(f"{'backend ' + backend.name:24}{backend.problem or 'works, exact on a test model'}")
    return "\n".join(lines)


def _chosen(is_chosen: bool) -> str:
    return "; sessions created now use these" if is_chosen else ""
