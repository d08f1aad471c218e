"""The steps of the main job, from file to file: inspect, calibrate, rewrite."""

from hccs_onnx.workflow.calibration import MASKS_LOST, calibrate, sketch
from hccs_onnx.workflow.inspection import count_hccs, inspect
from hccs_onnx.workflow.rewriting import Correction, RewriteReport, default_output, rewrite

__all__ = [
    "MASKS_LOST",
    "Correction",
    "RewriteReport",
    "calibrate",
    "count_hccs",
    "default_output",
    "inspect",
    "rewrite",
    "sketch",
]
