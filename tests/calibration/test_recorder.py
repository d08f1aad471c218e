"""Recording tensors inside bodies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graph.models import build

from hccs_onnx.calibration.recorder import record, recording, register
from hccs_onnx.graph.scopes import scopes
from hccs_onnx.graph.sessions import load_session

# The state grows by a row in every iteration, so that scan outputs could not hold it.
GROWING = (
    "g (float[1,2] x, int64 trips) => (float[n,2] y) { y = Loop (trips, yes, x) <body = body "
    "(int64 i, bool go, float[m,2] state) => (bool on, float[k,2] z) "
    "{ on = Identity (go) twice = Add (state, state) z = Concat <axis = 0> (twice, x) }> }"
)


def session() -> ort.InferenceSession:
    model: onnx.ModelProto = build(GROWING, {"yes": np.array(True)})
    place = [place for place, _ in scopes(model)][1]
    options = ort.SessionOptions()
    options.register_custom_ops_library(register())
    return load_session(record(model, [(place, "twice"), (place, "state"), (place, "x")]), Path("m.onnx"), options)


FEED = {"x": np.ones((1, 2), np.float32), "trips": np.array(3)}


def test_tensors_are_handed_on_in_every_iteration_whatever_their_shape() -> None:
    taken: dict[str, list[tuple[int, ...]]] = {}
    with recording(lambda name, value: taken.setdefault(name, []).append(value.shape)):
        (y,) = session().run(["y"], FEED)
    assert taken == {name: [(1, 2), (2, 2), (3, 2)] for name in ("twice", "state")} | {"x": [(1, 2)] * 3}
    np.testing.assert_array_equal(y[:, 0], [8, 4, 2, 1])


def test_error_of_the_taker_is_raised_when_the_block_ends() -> None:
    def fails(name: str, value: np.ndarray) -> None:
        raise ValueError(name)

    running = session()
    with pytest.raises(ValueError, match=r"^(twice|state|x)$"), recording(fails):
        running.run(["y"], FEED)
    with recording(lambda name, value: None):  # nothing is left of it
        running.run(["y"], FEED)
