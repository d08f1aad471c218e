"""Building AI Engine graphs for this machine: the host's C++ compiler and the emulation's headers."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hccs_onnx.aie.emulation import include_dir
from hccs_onnx.errors import CodegenError, HccsError

_COMPILERS = ("c++", "g++", "clang++")
_STANDARD = "-std=c++20"
# What compilers say when a program that they have started was stopped, or memory ran out.
_STOPPED = re.compile(
    "signal terminated program|terminated with signal|due to signal|unable to execute command|internal compiler error"
    "|out of memory|virtual memory exhausted"
)
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def find_compiler() -> tuple[str, ...]:
    """The command that compiles C++: ``CXX`` from the environment, or the first of c++, g++, clang++.

    Raises
    ------
    HccsError
        If there is none.

    Examples
    --------
    >>> find_compiler()  # doctest: +SKIP
    ('c++',)
    """
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        if shutil.which(named[0]) is None:
            raise HccsError("CXX", "names no program", found=named[0], remedy="Name a C++20 compiler, or unset CXX")
        return tuple(named)
    for name in _COMPILERS:
        if shutil.which(name) is not None:
            return (name,)
    raise HccsError(
        "simulate", "no C++ compiler was found", needs=" or ".join(_COMPILERS),
        remedy="Install one that knows C++20 (Debian: apt install g++), or name it in CXX",
    )  # fmt: skip


@dataclass(frozen=True)
class Build:
    """Programs that share what is compiled alike.

    Parameters
    ----------
    compiler : tuple of str
        The compiler's command.
    arch : int
        ``__AIE_ARCH__`` to emulate.
    folder : pathlib.Path
        Where objects and programs go.
    """

    compiler: tuple[str, ...]
    arch: int
    folder: Path

    def place(self, source: Path, includes: Sequence[Path]) -> Path:
        """Where the object of a source goes: the same place for sources and headers of equal text."""
        digest = hashlib.sha256()
        for path in _closure(source, includes):
            digest.update(path.read_bytes() + b"\0")
        return self.folder / f"{source.stem}-{digest.hexdigest()[:16]}.o"

    def compile(self, source: Path, includes: Sequence[Path]) -> None:
        """Compile a source to its place.

        Raises
        ------
        CodegenError
            If it does not compile, with the compiler's first complaint.
        HccsError
            If the compiler was stopped, which says nothing about the source.
        """
        flags = [_STANDARD, "-O1", f"-D__AIE_ARCH__={self.arch}", "-D__X86SIM__", "-DAIE_EMULATION_COUNT=0"]
        paths = [f"-I{path}" for path in (*includes, include_dir())]
        self._run([*flags, *paths, "-c", str(source), "-o", str(self.place(source, includes))], source, "compile")

    def link(self, name: str, objects: Iterable[Path]) -> Path:
        """A program linked of objects."""
        target = self.folder / name
        self._run([*map(str, objects), "-o", str(target), "-pthread"], target, "link")
        return target

    def _run(self, arguments: Sequence[str], subject: Path, what: str) -> None:
        command = [*self.compiler, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if not done.returncode:
            return
        lines = done.stderr.splitlines()
        stopped = signal_name(done.returncode) or next((line for line in lines if _STOPPED.search(line)), None)
        if stopped is not None:
            remedy = "That says nothing about the source. Often memory ran out: end other programs, then try again"
            problem = f"was stopped before it could {what} {subject}"
            raise HccsError(shlex.join(self.compiler), problem, found=stopped.strip()[:400], remedy=remedy)
        complaint = next((line for line in lines if "error:" in line), lines[0] if lines else "no message")
        remedy = f"The compiler is {shlex.join(self.compiler)}; it has to know C++20"
        raise CodegenError(str(subject), f"does not {what}: {complaint.strip()[:400]}", remedy=remedy)


def signal_name(status: int) -> str | None:
    """The signal that ended a program, None where none did; shells add 128 to its number.

    Examples
    --------
    >>> signal_name(-9), signal_name(137), signal_name(1)
    ('SIGKILL', 'SIGKILL', None)
    """
    number = -status if status < 0 else status - 128
    return signal.Signals(number).name if number in list(signal.Signals) else None


def _closure(source: Path, includes: Sequence[Path]) -> list[Path]:
    """A source and the headers that it includes by ``#include "..."``, those of the emulation left out."""
    found, waiting = [], [source]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.append(path)
        for name in _INCLUDE.findall(path.read_text(encoding="utf-8", errors="replace")):
            places = (folder / name for folder in (path.parent, *includes))
            waiting += [next((place for place in places if place.is_file()), path)]
    return found
