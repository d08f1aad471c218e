"""Bit-accurate emulation of the AI Engine API and ADF graphs on the host: C++20 headers, no vendor tools."""

from __future__ import annotations

from pathlib import Path

ARCHITECTURES = {10: "AIE", 20: "AIE-ML", 21: "XDNA 2", 22: "AIE-MLv2"}
"""Values of the macro ``__AIE_ARCH__`` that the headers know, and what they stand for."""


def include_dir() -> Path:
    """Folder to pass to the compiler as ``-I``; it holds ``adf.h`` and ``aie_api/aie.hpp``.

    Examples
    --------
    >>> (include_dir() / "aie_api" / "aie.hpp").is_file()
    True
    """
    return Path(__file__).resolve().parent / "include"
