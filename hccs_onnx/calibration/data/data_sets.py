"""Samples as ONNX's own test data: folders of ``input_<k>.pb``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto, numpy_helper

from hccs_onnx.calibration.data.inputs import Feed, InputSpec
from hccs_onnx.errors import DataError


@dataclass(frozen=True)
class DataSet:
    """A folder of ``input_<k>.pb``: one feed.

    Parameters
    ----------
    path : pathlib.Path
        The folder.
    """

    path: Path

    def absolute(self) -> DataSet:
        """The same with an absolute path."""
        return DataSet(self.path.absolute())

    def count(self, specs: Sequence[InputSpec]) -> int:
        """Number of feeds."""
        return 1

    def feeds(self, specs: Sequence[InputSpec], start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Feed]]:
        """The feed."""
        yield str(self.path), _protobuf_feed(self.path, specs)


def data_sets(folder: Path) -> list[DataSet]:
    """The folder itself, or the ``test_data_set_*`` in it."""
    if list(folder.glob("input_*.pb")):
        return [DataSet(folder)]
    return [DataSet(path) for path in sorted(folder.glob("test_data_set_*")) if path.is_dir()]


def _protobuf_feed(folder: Path, specs: Sequence[InputSpec]) -> Feed:
    """Tensors of ``input_<k>.pb``: named, or the k-th input of the model."""
    names = [spec.name for spec in specs]
    feed = {}
    for file in sorted(folder.glob("input_*.pb")):
        try:
            tensor = TensorProto.FromString(file.read_bytes())
            number = int(file.stem.removeprefix("input_"))
            value = numpy_helper.to_array(tensor)
        except Exception as error:  # protobuf, number and tensor errors alike: the file is not what its name says
            raise DataError(str(file), "is not an ONNX tensor", remedy="Write it again") from error
        if tensor.name not in names and number >= len(names):
            needs = f"at most {len(names)}"
            raise DataError(str(folder), "has more inputs than the model", found=number + 1, needs=needs)
        feed[tensor.name if tensor.name in names else names[number]] = value
    return feed
