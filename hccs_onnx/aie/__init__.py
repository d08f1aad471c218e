"""AMD Versal AI Engines: kernels, projects, host emulation and hand-off to real compile flows."""

from __future__ import annotations
