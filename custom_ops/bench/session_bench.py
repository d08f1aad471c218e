"""`session.run` of HCCS against ONNX Runtime's float Softmax, interleaved, medians.

python session_bench.py LIBRARY [--threads 1] [--rounds 101] [--shape 1,12,128,128 ...]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

SHAPES = ("1,12,128,128", "8,12,64,64", "1,12,512,512", "1,12,49,49", "1,12,197,197", "1,12,577,577", "1,12,32,32")


def _session(
    library: str, threads: int, op_type: str, x: int, y: int, **attributes: object
) -> onnxruntime.InferenceSession:
    domain = "hccs" if op_type == "HCCS" else ""
    node = helper.make_node(op_type, ["X", "zero"] if domain else ["X"], ["Y"], domain=domain, **attributes)
    zero = [helper.make_tensor("zero", y, [], [0])] if domain else []
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [tensor("X", x, ["b", "h", "q", "k"])], [tensor("Y", y, ["b", "h", "q", "k"])], zero
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hccs", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(library)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def contestants(library: str, threads: int, shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    """Calls to time, the float Softmax first."""
    random = np.random.default_rng(0)
    floats = random.normal(0, 2, shape).astype(np.float32)
    codes = np.clip(np.rint(floats * 16), -127, 127).astype(np.int8)
    hidden = np.broadcast_to(np.arange(shape[-1]) >= shape[-1] * 3 // 4, shape)
    masked_codes = np.where(hidden, -128, codes).astype(np.int8)
    masked_floats = np.where(hidden, -1e4, floats).astype(np.float32)
    head = {"B": [16259], "S": [127], "Dmax": [127], "scale": [3.3 / 127]}
    div = {"B": [max(32767 // shape[-1], 300)], "S": [2], "Dmax": [40], "reciprocal": "div"}
    f, i8, u8, i16 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16
    makers = {
        "Softmax float": (("Softmax", f, f, {"axis": -1}), floats),
        "uint8 norm": (("HCCS", i8, u8, head), codes),
        "uint8 norm masked": (("HCCS", i8, u8, {**head, "masked": 1}), masked_codes),
        "uint8 div": (("HCCS", i8, u8, div), codes),
        "int16 norm": (("HCCS", i8, i16, head), codes),
        "int16 norm masked": (("HCCS", i8, i16, {**head, "masked": 1}), masked_codes),
        "float": (("HCCS", f, f, head), floats),
        "float masked": (("HCCS", f, f, {**head, "masked": 1}), masked_floats),
        "Identity float": (("Identity", f, f, {}), floats),
        "Identity int8": (("Identity", i8, i8, {}), codes),
    }
    calls: dict[str, Callable[[], object]] = {}
    for name, ((op_type, x, y, attributes), data) in makers.items():
        session = _session(library, threads, op_type, x, y, **attributes)
        own = data.copy()  # so that caches favour none
        calls[name] = lambda session=session, data=own: session.run(None, {"X": data})
    return calls


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--shape", nargs="+", default=SHAPES)
    arguments = parser.parse_args()
    for text in arguments.shape:
        shape = tuple(int(size) for size in text.split(","))
        calls = contestants(arguments.library, arguments.threads, shape)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            for _ in range(5):
                call()
        for _ in range(arguments.rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
        medians = {name: float(np.median(values)) for name, values in times.items()}
        for name, median in medians.items():
            speed = np.prod(shape) / median * 1e-9
            ratio = medians["Softmax float"] / median
            print(f"{text:14} {name:18} {median * 1e6:9.1f} us {speed:7.2f} G/s {ratio:6.2f} x")


if __name__ == "__main__":
    main()
