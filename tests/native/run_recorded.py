"""Runs recorded one-node models on the native library and compares; needs onnxruntime and NumPy, nothing of ours.

    python run_recorded.py LIBRARY FOLDER      FOLDER holds <name>.onnx with <name>.npz (x, y)

Prints one JSON document: the runtime's version, whether the library was accepted, and the names that differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(library: str, folder: str) -> None:
    result = {"version": onnxruntime.__version__, "refused": None, "different": [], "equal": 0}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    try:
        options.register_custom_ops_library(library)
    except Exception as error:
        result["refused"] = str(error)
    else:
        for model in sorted(Path(folder).glob("*.onnx")):
            with np.load(model.with_suffix(".npz")) as arrays:
                data = dict(arrays)
            session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            y = session.run(None, {"X": data["x"]})[0]
            if y.dtype == data["y"].dtype and np.array_equal(y, data["y"], equal_nan=y.dtype == np.float32):
                result["equal"] += 1
            else:
                result["different"].append(model.stem)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
