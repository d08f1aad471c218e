"""HCCS for one AI Engine tile: C++ headers for the AIE API, which compile against `hccs_onnx.aie.emulation` too."""

from __future__ import annotations

from pathlib import Path

HEADERS = (
    "hccs_kernel.h",  # the one to include
    "hccs_arch.h",
    "hccs_contract.h",
    "hccs_reference.h",
    "hccs_divide.h",
    "hccs_tile.h",
    "hccs_statistics.h",
    "hccs_normalise.h",
)
"""Names of all headers of the kernels."""

_LANES = 32
_FIXED_BYTES = 2 * 8 * 64 + 64 + 5 * _LANES * 2 + 4 * _LANES * 4  # two sets of matrices, a spare line, a lane a row
_UNROLLED_BLOCKS = 8  # of 64 codes
_SCRATCH_LIMIT = {10: 4096}
_SCRATCH_LIMIT_ML = 8192


def include_dir() -> Path:
    """Folder of the headers, to pass to the compiler as ``-I`` or to copy `HEADERS` from.

    Examples
    --------
    >>> all((include_dir() / name).is_file() for name in HEADERS)
    True
    """
    return Path(__file__).resolve().parent


def padded_columns(n: int) -> int:
    """Row length in the kernel's buffers: the next multiple of 32.

    Examples
    --------
    >>> padded_columns(49), padded_columns(128)
    (64, 128)
    """
    return (n + 31) // 32 * 32


def is_long(n: int) -> bool:
    """Whether the kernel goes through a row in loops, as unrolled it would not fit into program memory.

    Examples
    --------
    >>> is_long(512), is_long(513)
    (False, True)
    """
    return _stride(n) > 64 * _UNROLLED_BLOCKS


def band_rows(n: int, arch: int = 20) -> int:
    """Rows that the kernel works on at once: 32, or fewer where they are long.

    Examples
    --------
    >>> band_rows(256), band_rows(300), band_rows(300, arch=10)
    (32, 16, 8)
    """
    band = _LANES
    while band > 1 and band * _stride(n) > _SCRATCH_LIMIT.get(arch, _SCRATCH_LIMIT_ML):
        band //= 2
    return band


def working_bytes(n: int, rows: int, *, masked: bool, arch: int = 20) -> int:
    """Bytes of stack that ``hccs::softmax`` needs for its arrays; ``hccs::working_bytes`` in C++.

    Give the kernel 1 KiB more for what the compiler spills. ``hccs::softmax_reference`` needs none.

    Parameters
    ----------
    n : int
        Row length, >= 1.
    rows : int
        Rows a head, >= 1.
    masked : bool
        Whether the kernel has the mask.
    arch : int
        Value of ``__AIE_ARCH__``.

    Examples
    --------
    >>> working_bytes(128, 32, masked=False)
    6016
    """
    return min(band_rows(n, arch), rows) * _stride(n) * (2 if masked else 1) + _FIXED_BYTES


def _stride(n: int) -> int:
    """Bytes of a row in the kernel's scratch memory."""
    return (n + 63) // 64 * 64
