"""DATA: samples for a model, read one feed at a time whatever their amount, and checked against its inputs."""

from hccs_onnx.calibration.data.inputs import Feed, InputSpec, input_specs
from hccs_onnx.calibration.data.samples import CalibrationDataReader, DataSource, Samples
from hccs_onnx.calibration.data.shards import Shard

__all__ = ["CalibrationDataReader", "DataSource", "Feed", "InputSpec", "Samples", "Shard", "input_specs"]
