"""Process that takes damaged models from stdin, one after the other, and says what inspect and rewrite made of each.

Each model comes as its length (8 bytes, little-endian) and its bytes. The answer is a line: ``ok``, ``refused`` or
``found`` and what is wrong.
"""

from __future__ import annotations

import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import onnx

from hccs_onnx import HccsError, inspect, rewrite

MEMORY = 3 << 30  # bytes of address space: an absurd size must not be believed


def main() -> None:
    """Answer until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    folder = Path(sys.argv[1])
    source, target = folder / "model.onnx", folder / "out.onnx"
    answers, sys.stdout = sys.stdout, sys.stderr
    while length := sys.stdin.buffer.read(8):
        source.write_bytes(sys.stdin.buffer.read(int.from_bytes(length, "little")))
        target.unlink(missing_ok=True)
        print(_judged(source, target), file=answers, flush=True)


def _judged(source: Path, target: Path) -> str:
    refusals = 0
    for step in (lambda: inspect(source), lambda: rewrite(source, target)):
        refusal, fault = _tried(step)
        if fault is not None:
            return f"found {fault!r}"
        refusals += refusal
    left = {path.name for path in source.parent.iterdir()} - {source.name, target.name}
    if left:
        return f"found strays: {sorted(left)}"
    if target.exists():
        onnx.ModelProto.FromString(target.read_bytes())
        return "ok"
    return "refused" if refusals else "found neither output nor refusal"


def _tried(step: Callable[[], object]) -> tuple[bool, str | None]:
    """Whether a step refused the model, and what is wrong with how it ended."""
    try:
        step()
    except HccsError as error:
        text = str(error)
        return True, f"more than one line: {text}" if len(text.splitlines()) != 1 else None
    except BaseException:
        return False, traceback.format_exc()
    return False, None


if __name__ == "__main__":
    main()
