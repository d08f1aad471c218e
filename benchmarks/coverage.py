"""Which exports are understood: every model of tests/exporters found, rewritten without data, and compared.

Needs torch, onnxscript, transformers, keras and skl2onnx: `pip install -e ".[test,exporters]"`.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import ROOT, log, parser, publish, table

from hccs_onnx import HccsError, inspect, rewrite, verify

if TYPE_CHECKING:
    from exporters.export_models import Export

PACKAGES = ("torch", "onnxscript", "transformers", "keras", "skl2onnx")


@dataclass(frozen=True)
class Row:
    """What became of one export.

    Parameters
    ----------
    family, exporter, attention : str
        See `exporters.export_models.Export`.
    attentions, rewritten : int
        How many attention the model has; how many were replaced.
    heads : str
        Head counts found; ``counted`` where the graph does not tell, so that calibration counts them in the data.
    masked : int
        How many nodes may mask positions.
    cosine : float or None
        Smallest cosine of an output vector to the original's, random weights, data-free; None if it cannot be run.
    remark : str
        Why something is missing.
    """

    family: str
    exporter: str
    attention: str
    attentions: int
    rewritten: int
    heads: str
    masked: int
    cosine: float | None
    remark: str = ""


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "coverage")
    arguments.add_argument("--only", default="", metavar="REGEX", help="exports, such as 'bert-.*-dynamo'")
    options = arguments.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from exporters.export_models import EXPORTS

    with tempfile.TemporaryDirectory() as folder:
        place = Path(os.environ.get("HCCS_EXPORTED", folder))
        rows = [_row(item, place, Path(folder)) for item in EXPORTS if re.search(options.only, item.name)]
    complete = sum(row.rewritten == row.attentions for row in rows)
    body = "\n\n".join([
        f"{len(rows)} exports of small models with random weights; all attention rewritten in {complete} of them. "
        "*Cosine*: the worst output vector against the original's, data-free parameters, padded positions included; "
        "with random weights it says that nothing broke, not how accurate a trained model is.",
        table(
            ["model", "exporter", "attention in torch", "attentions", "rewritten", "heads", "masked", "cosine", ""],
            [_cells(row) for row in rows],
        ),
    ])  # fmt: skip
    publish(options.out, "Exports that are understood", body, {"exports": [asdict(row) for row in rows]}, PACKAGES)


def _row(item: Export, place: Path, scratch: Path) -> Row:
    from exporters.export_models import export

    log(item.name)
    path = place / f"{item.name}.onnx"
    if not path.exists():
        export(item, place)
    with np.load(path.with_suffix(".npz")) as data:
        feed = {name: value for name, value in data.items() if not name.startswith("out_")}
    listed = inspect(path)
    found = [entry for entry in listed if entry.reason is None]
    missing = item.attentions + item.others > len(found)
    remark = next((entry.reason for entry in listed if entry.reason is not None), "") if missing else ""
    heads = sorted({entry.heads for entry in found if entry.heads is not None})
    counted = any(entry.heads is None for entry in found)
    cosine = None
    if found:
        rewritten = rewrite(path, scratch / f"{item.name}.hccs.onnx").output
        try:
            cosine = min(output.worst_cosine for output in verify(path, rewritten, [feed]).outputs)
        except HccsError as error:
            remark = f"cannot run: {error}"
    return Row(
        item.family,
        item.exporter,
        item.attention,
        item.attentions,
        len(found),
        ", ".join([*map(str, heads), *(["counted"] if counted else [])]),
        sum(entry.masked for entry in found),
        cosine,
        remark,
    )


def _cells(row: Row) -> tuple[object, ...]:
    cosine = "-" if row.cosine is None else f"{row.cosine:.3f}"
    counts = (row.attentions, row.rewritten, row.heads, row.masked)
    return (row.family, row.exporter, row.attention, *counts, cosine, row.remark)


if __name__ == "__main__":
    main()
