"""What the function body costs: a rewritten encoder against the original on stock onnxruntime, interleaved, medians."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from common import MINILM_L6, Feed, log, package_file, parser, publish, table

from hccs_onnx.workflow import rewrite

SHAPES = ((1, 32), (1, 128), (8, 128), (1, 512))


def main() -> None:
    """Command line."""
    arguments = parser(__doc__, "function_body_speed")
    arguments.add_argument("--rounds", type=int, default=31, help="timed calls of each model and shape")
    arguments.add_argument("--threads", type=int, default=1, help="threads of onnxruntime")
    options = arguments.parse_args()
    model = package_file(*MINILM_L6)
    with tempfile.TemporaryDirectory() as folder:
        rewritten = rewrite(model, Path(folder) / "rewritten.onnx").output
        sessions = [_session(path, options.threads) for path in (model, rewritten)]
    rows, results = [], {}
    for batch, length in SHAPES:
        log(f"[{batch}, {length}]")
        original, hccs = _medians(sessions, _feed(batch, length), options.rounds)
        rows.append((f"[{batch}, {length}]", f"{original * 1e3:.1f}", f"{hccs * 1e3:.1f}", f"{hccs / original:.2f}"))
        results[f"{batch}x{length}"] = {"original_s": original, "hccs_s": hccs}
    body = "\n\n".join([
        f"MiniLM L6, whole model, {options.threads} thread, medians of {options.rounds} interleaved calls; HCCS runs "
        "by the function body that the model carries.",
        table(["input [batch, tokens]", "original, ms", "rewritten, ms", "ratio"], rows),
    ])  # fmt: skip
    publish(options.out, "Speed of the function body", body, {"results": results})


def _session(model: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _feed(batch: int, length: int) -> Feed:
    ids = np.random.default_rng(0).integers(1000, 20000, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _medians(sessions: list[ort.InferenceSession], feed: Feed, rounds: int) -> tuple[float, ...]:
    times: list[list[float]] = [[] for _ in sessions]
    for number in range(rounds + 3):
        for session, seconds in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            if number >= 3:  # warm
                seconds.append(time.perf_counter() - start)
    return tuple(float(np.median(seconds)) for seconds in times)


if __name__ == "__main__":
    main()
