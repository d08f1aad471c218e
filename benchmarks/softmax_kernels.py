"""Kernels alone for `softmax.py`: builds the native library's kernel benchmark where it has to, and reads it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, log


@dataclass(frozen=True)
class KernelRate:
    """Speed of one kernel on rows that lie in cache, on one thread.

    Parameters
    ----------
    kernel : str
        Set of kernels, such as ``avx2``.
    types, form : str
        Such as ``int8 to uint8`` and ``div masked``.
    n : int
        Length of a row.
    gelements_per_s, limit_gelements_per_s : float
        10^9 elements a second, and what loading and storing alone would reach.
    """

    kernel: str
    types: str
    form: str
    n: int
    gelements_per_s: float
    limit_gelements_per_s: float


def kernel_rates(binary: Path | None, quick: bool) -> list[KernelRate]:
    """Speeds of all kernels that run here, those that the library prefers first.

    Parameters
    ----------
    binary : pathlib.Path, optional
        ``hccs_kernel_bench``; None builds it.
    quick : bool
        Fewer rounds.

    Raises
    ------
    SystemExit
        If it fails.
    FileNotFoundError
        If it is to be built and there is no cmake.
    """
    with tempfile.TemporaryDirectory() as folder:
        if binary is None:
            binary = _build(Path(folder))
        log("kernels alone")
        printed = _output(str(binary), "--json", *(["--rounds", "7"] if quick else []))
    rows = json.loads(printed)
    names = KernelRate.__dataclass_fields__
    return [KernelRate(**{name: row[name] for name in names}) for row in rows]


def _build(folder: Path) -> Path:
    if shutil.which("cmake") is None:
        raise FileNotFoundError("cmake is not there to build the kernel benchmark (pip install cmake)")
    log("building the kernel benchmark")
    _output("cmake", "-S", str(ROOT / "custom_ops"), "-B", str(folder), "-DHCCS_BUILD_TESTS=ON")
    _output("cmake", "--build", str(folder), "--config", "Release", "--target", "hccs_kernel_bench", "--parallel")
    return next(path for path in folder.rglob("hccs_kernel_bench*") if path.suffix in ("", ".exe") and path.is_file())


def _output(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"{command[0]}: {error.strerror}") from None
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or [f"status {result.returncode}"]
        raise SystemExit(f"{Path(command[0]).name} failed: {lines[-1]}")
    return result.stdout
