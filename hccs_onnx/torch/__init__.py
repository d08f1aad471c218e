"""Retraining with HCCS in torch: the module, the swap, calibration of a torch model, and export. Extra ``[torch]``."""

from hccs_onnx.torch.calibration import calibrate
from hccs_onnx.torch.export import export
from hccs_onnx.torch.module import HCCSSoftmax
from hccs_onnx.torch.swap import Swapped, swap

__all__ = ["HCCSSoftmax", "Swapped", "calibrate", "export", "swap"]
