"""Engines: where a model runs over data. All give the same bytes; they differ in speed and in what they survive."""

from __future__ import annotations

from typing import Protocol

from hccs_onnx.calibration.collect import Job
from hccs_onnx.calibration.data import Samples
from hccs_onnx.calibration.engines.local import LocalEngine
from hccs_onnx.calibration.engines.ray import RayEngine
from hccs_onnx.calibration.model_sketch import ModelSketch

__all__ = ["Engine", "LocalEngine", "RayEngine"]


class Engine(Protocol):
    """Maps a job over shards of the data and adds up the sketches."""

    def sketch(self, job: Job, samples: Samples) -> ModelSketch:
        """The sketch of all samples, as one part.

        Raises
        ------
        DataError, ModelError, CalibrationError
            Whatever a shard raises.
        """
