"""Where the external data of a new model lies: in the files of the original, or in copies of them."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hccs_onnx.errors import ModelError

ExternalData = Literal["share", "copy"]
"""What becomes of external data: the new model refers to the same files, or to copies of its own."""


@dataclass(frozen=True)
class Placement:
    """Where external data goes.

    Parameters
    ----------
    locations : mapping of str to str
        New location of each file that gets another, relative to the new model's folder, by the one in the original.
    copies : tuple of (pathlib.Path, pathlib.Path)
        Files to copy, from and to.
    """

    locations: Mapping[str, str]
    copies: tuple[tuple[Path, Path], ...]


def place(locations: Sequence[str], source: Path, target: Path, how: ExternalData | None = None) -> Placement:
    """Decide for each file of external data; nothing is written.

    onnxruntime refuses data outside of the model's folder, links followed. So a file can be shared only if it really
    lies in the folder of `target`, or deeper.

    Parameters
    ----------
    locations : sequence of str
        Files that the original refers to, relative to its folder.
    source : pathlib.Path
        The original.
    target : pathlib.Path
        The new model.
    how : {'share', 'copy'}, optional
        Default: share what can be shared and copy the rest.

    Raises
    ------
    ModelError
        If a file cannot be shared as asked, is missing, or another is in the way of its copy.
    OSError
        If a file cannot be looked at.

    Examples
    --------
    >>> place(["weights.bin"], Path("model.onnx"), Path("new.onnx"))
    Placement(locations={}, copies=())
    >>> place(["weights.bin"], Path("bert/model.onnx"), Path("new.onnx")).locations
    {'weights.bin': 'bert/weights.bin'}
    """
    moved: dict[str, str] = {}
    copies: dict[Path, Path] = {}
    for location in locations:
        file = source.parent / location
        new = None if how == "copy" else _shared(location, file, target.parent)
        if new is None and how == "share":
            folder = Path(os.path.realpath(file)).parent
            problem = f"cannot share external data '{location}', which lies in {folder}"
            remedy = "Copy it (--external-data copy), or write the new model into that folder"
            raise ModelError(str(target), problem, remedy=remedy)
        if new is None:
            new = _location_of_copy(location, source, target)
            copy = target.parent / new
            _check(file, copy, target.parent)
            if copy == target or copies.setdefault(copy, file) != file:
                remedy = "Choose another name with -o"
                raise ModelError(str(copy), "would be two files of the new model in one", remedy=remedy)
        if new != location:
            moved[location] = new
    return Placement(moved, tuple((file, copy) for copy, file in copies.items() if not copy.exists()))


def _shared(location: str, file: Path, folder: Path) -> str | None:
    """How a model in `folder` can refer to a file of external data; None if it lies elsewhere."""
    if not _lies_in(folder, file):
        return None
    real = os.path.realpath(file)
    if os.path.realpath(folder / location) == real:
        return location
    return Path(real).relative_to(os.path.realpath(folder)).as_posix()


def _location_of_copy(location: str, source: Path, target: Path) -> str:
    """The same location as in the original, or one beside it where the original or a link out of the folder lies."""
    there = target.parent / location
    is_original = os.path.realpath(there) == os.path.realpath(source.parent / location)
    if not there.exists() or (_lies_in(target.parent, there) and not is_original):
        return location
    parent, _, name = location.rpartition("/")
    # model.onnx_data becomes new.onnx_data, weights.bin new.onnx.weights.bin
    rest = name.removeprefix(source.name) if name.startswith(source.name) else f".{name}"
    return f"{parent}/{target.name}{rest}" if parent else f"{target.name}{rest}"


def _check(file: Path, copy: Path, folder: Path) -> None:
    """Refuse to copy what is not there, out of the folder, or over something else."""
    if not file.is_file():
        raise ModelError(str(file), "is missing (external data of the model)", remedy="Put it beside the model")
    if not _lies_in(folder, copy.parent) or (copy.exists() and not _lies_in(folder, copy)):
        remedy = "Remove the link, or write into another folder"
        raise ModelError(str(copy), "lies behind a link out of the output's folder", remedy=remedy)
    if copy.exists() and not filecmp.cmp(file, copy, shallow=False):
        remedy = "Remove it, or write into another folder"
        raise ModelError(str(copy), "holds other data than the model's external data", remedy=remedy)


def _lies_in(folder: Path, path: Path) -> bool:
    """Whether a path is in a folder, or deeper, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
