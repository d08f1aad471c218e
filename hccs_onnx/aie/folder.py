"""Project folders: written whole or not at all, and never over what someone else put there."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from hccs_onnx.aie import manifest
from hccs_onnx.errors import CodegenError
from hccs_onnx.graph.files import writing_errors

BUILT = re.compile(r"Work\..*|.*simulator_output|.*\.log|libadf\.a|__pycache__")
"""Names of files and folders that `make` leaves in a project."""


ANOTHER = "Choose another folder with -o, or remove this one"


def check_folder(target: Path) -> None:
    """Refuse a target that cannot be written, or holds anything but an unchanged project.

    Raises
    ------
    CodegenError
        With what to do instead.
    """
    if not holds_files(target):
        return
    try:
        present = manifest.read(target)
    except CodegenError as error:
        raise CodegenError(str(target), "holds files that codegen did not write", remedy=ANOTHER) from error
    changed = [name for name in present.changed(target) if (target / name).exists()]
    added = [name for name in _files(target) if name not in present.files and name != manifest.NAME]
    for what, names in (("changed", changed), ("added", added)):
        if names:
            found = ", ".join(names[:3])
            raise CodegenError(str(target), f"holds files that were {what}", found=found, remedy=ANOTHER)


def holds_files(target: Path) -> bool:
    """Whether there is anything in a target; refused if it cannot be a folder.

    Raises
    ------
    CodegenError
        With what to do instead.
    """
    if not target.parent.is_dir():
        raise CodegenError(str(target), f"folder {target.parent} does not exist", remedy="Create it first")
    if not target.exists():
        return False
    if not target.is_dir():
        raise CodegenError(str(target), "is not a folder", remedy=ANOTHER)
    return any(target.iterdir())


def _files(folder: Path) -> list[str]:
    """Files of a project by path, without what compilers and simulators leave there."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir() and not any(BUILT.fullmatch(part) for part in path.relative_to(folder).parts)
    )


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Make `target` a folder of exactly these files, in place of an unchanged project.

    Parameters
    ----------
    target : pathlib.Path
        The folder.
    files : mapping of str to bytes
        Content by path in the folder, with ``/``.

    Raises
    ------
    CodegenError
        As `check_folder`.
    ModelError
        If it cannot be written.
    """
    target = Path(os.path.realpath(target))
    check_folder(target)
    replace_folder(target, files)


def replace_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Make `target` a folder of exactly these files, whatever is there: wholly or not at all.

    Raises
    ------
    ModelError
        If it cannot be written.
    """
    with writing_errors(target):
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
        try:
            new = staging / "new"
            for name, content in files.items():
                path = new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            if target.exists():
                target.rename(staging / "old")
                try:
                    new.rename(target)
                except BaseException:
                    (staging / "old").rename(target)
                    raise
            else:
                new.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
