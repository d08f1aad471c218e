"""Turn the attention blocks beside this script into aie4ml projects.

    python write_firmware.py [BLOCK ...]

Needs ``pip install 'hccs-onnx[aie4ml]'``. Vitis is needed by what comes after: `make` in a block's folder ``firmware``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def write_firmware(block: Path) -> Path:
    """Write the folder ``firmware`` of a block, with its golden input as the simulators' input; returns it.

    Raises
    ------
    CodegenError
        If aie4ml is not installed, or the graph holds something that it cannot compute.
    """
    from hccs_onnx.aie import aie4ml_plugin

    aie4ml_plugin.register()  # before from_onnx: teaches it HCCS
    aie4ml = aie4ml_plugin.import_aie4ml()
    config = json.loads((block / "config.json").read_text(encoding="utf-8"))
    model = aie4ml.from_onnx(str(block / "model.onnx"), config, output_dir=block / "firmware", project_name=block.name)
    model.write()
    with np.load(block / "golden.npz") as golden:
        model.write_inputs(golden["x"])
    return block / "firmware"


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    for folder in [here / name for name in sys.argv[1:]] or sorted(path.parent for path in here.glob("*/model.onnx")):
        write_firmware(folder)
