"""hccs-onnx: attention's Softmax in integers, from any ONNX exporter to any ONNX runtime.

The road is ``inspect`` -> ``calibrate`` -> ``rewrite`` -> ``verify``; each takes files and gives a plain value.
"""

from hccs_onnx._version import __version__
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.errors import HccsError
from hccs_onnx.operator.native import library_path, session_options
from hccs_onnx.params import HccsParams, HeadParams
from hccs_onnx.reference import hccs
from hccs_onnx.verify import Bounds, verify
from hccs_onnx.workflow import calibrate, inspect, rewrite

__all__ = [
    "Bounds",
    "Calibration",
    "HccsError",
    "HccsParams",
    "HeadParams",
    "__version__",
    "calibrate",
    "hccs",
    "inspect",
    "library_path",
    "rewrite",
    "session_options",
    "verify",
]
