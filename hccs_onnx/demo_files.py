"""Which files in a folder are the demo's own, so that it replaces no others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.files import atomic_file, file_sha256, writing_errors

RECORD = "hccs_demo.json"
"""File in the folder that tells the SHA-256 of the files made there."""

_FORMAT = "hccs-demo"


def check_own(folder: Path, bundled: Mapping[str, Path], made: Sequence[str]) -> None:
    """Refuse a folder in which the demo would replace what it has not written, or what was changed since.

    Parameters
    ----------
    folder : pathlib.Path
        Where files will be written.
    bundled : mapping of str to pathlib.Path
        Files that will be copied there, by name.
    made : sequence of str
        Names of files that will be made there.

    Raises
    ------
    ModelError
        Naming the file.

    Examples
    --------
    >>> check_own(Path("no such folder"), {}, ["digits.hccs.onnx"])
    """
    with writing_errors(folder):
        own = _record(folder)
        for name in (*bundled, *made):
            path = folder / name
            if not path.exists() and not path.is_symlink():
                continue
            known = [own.get(name), *([file_sha256(bundled[name])] if name in bundled else [])]
            if not path.is_file() or file_sha256(path) not in known:
                raise _foreign(path)


@contextmanager
def recorded(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Record, however the block ends, which files of these names it leaves in the folder.

    Raises
    ------
    ModelError
        If the record cannot be written.

    Examples
    --------
    >>> with recorded(Path("hccs-demo"), ["digits.hccs.onnx"]):  # doctest: +SKIP
    ...     rewrite("digits.onnx", "hccs-demo/digits.hccs.onnx")
    """
    try:
        yield
    finally:
        made = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
        content = {"format": _FORMAT, "files": _record(folder) | made}
        with writing_errors(folder / RECORD), atomic_file(folder / RECORD) as file:
            file.write(json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")


def _record(folder: Path) -> dict[str, str]:
    """SHA-256 of files that the demo has made, by name."""
    path = folder / RECORD
    if not path.exists() and not path.is_symlink():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _foreign(path) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("files"), dict):
        raise _foreign(path)
    return dict(content["files"])


def _foreign(path: Path) -> ModelError:
    remedy = "Choose another folder with -o, or move the file away"
    return ModelError(str(path), "is not as the demo writes it, and would be replaced", remedy=remedy)
