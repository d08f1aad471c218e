"""The folder that the flow aie4ml writes: whole or not at all, and never over files that it did not write."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hccs_onnx.aie.folder import ANOTHER, holds_files, replace_folder
from hccs_onnx.aie.manifest import AIE4ML_FORMAT, NAME
from hccs_onnx.errors import CodegenError
from hccs_onnx.graph.files import file_sha256

VERSION = 1


def check_folder(target: Path) -> None:
    """Refuse a target that is there and is not a folder of this flow as it was written.

    Raises
    ------
    CodegenError
        With what to do instead.
    """
    if not holds_files(target):
        return
    present = sorted(path for path in target.rglob("*") if not path.is_dir())
    written = _written(target)
    for path in present:
        name = path.relative_to(target).as_posix()
        if name != NAME and (name not in written or written[name] != file_sha256(path)):
            raise CodegenError(str(target), "holds files that codegen did not write", found=name, remedy=ANOTHER)


def write_folder(target: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Make `target` a folder of exactly these files and a manifest that lists them.

    Parameters
    ----------
    target : pathlib.Path
        The folder.
    files : mapping of str to bytes
        Content by path in the folder, with ``/``.
    manifest : mapping
        What else the manifest says.

    Raises
    ------
    CodegenError
        As `check_folder`.
    ModelError
        If it cannot be written.
    """
    target = Path(os.path.realpath(target))
    check_folder(target)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    document = {"format": AIE4ML_FORMAT, "version": VERSION, **manifest, "files": digests}
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
    replace_folder(target, {**files, NAME: text.encode()})


def _written(folder: Path) -> dict[str, str]:
    """Files that a manifest lists, with their SHA-256; none where there is no manifest of this flow."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return dict(content["files"]) if content["format"] == AIE4ML_FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
