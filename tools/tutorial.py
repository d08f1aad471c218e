"""Run docs/tutorial.ipynb and keep what it prints: ``python -m tools.tutorial``.

With ``--check`` the file stays as it is: it has to run, and to print what it holds, numbers aside.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"
CELL_SECONDS = 300


def execute(path: Path) -> Any:
    """The notebook with what its cells print now; progress and warnings (stderr) left out.

    It runs in an empty folder, with this interpreter first on the path.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        client = NotebookClient(
            notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=place, coalesce_streams=True
        )
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the time of day
        if cell.cell_type == "code":
            cell.outputs = [item for item in cell.outputs if item.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def wording(notebook: Any) -> list[str]:
    """What each code cell prints, without numbers and the space between columns, which depend on the machine."""
    printed = ["".join(item.get("text", "") for item in cell.get("outputs", ())) for cell in notebook.cells]
    return [" ".join(re.sub(r"[-.\d]+", " ", text).split()) for text in printed]


def main() -> int:
    """Run it; write it, or compare it."""
    import nbformat

    parser = argparse.ArgumentParser(description="Run docs/tutorial.ipynb and keep what it prints.")
    parser.add_argument("--check", action="store_true", help="compare with what it holds, and leave it as it is")
    options = parser.parse_args()
    fresh = execute(NOTEBOOK)
    if not options.check:
        nbformat.write(fresh, NOTEBOOK)
        return 0
    held = nbformat.read(NOTEBOOK, as_version=4)
    if wording(fresh) != wording(held):
        print("docs/tutorial.ipynb: prints something else now. Run: python -m tools.tutorial", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
