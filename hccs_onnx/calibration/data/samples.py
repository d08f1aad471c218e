"""Samples of any data source, one checked feed at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Protocol

from hccs_onnx.calibration.data.inputs import Feed, InputSpec, checked
from hccs_onnx.calibration.data.shards import Piece, Shard, cut, sources
from hccs_onnx.errors import DataError


class CalibrationDataReader(Protocol):
    """What onnxruntime's quantiser calls a data reader."""

    def get_next(self) -> Feed | None:
        """The next feed, or None at the end."""


DataSource = Path | str | Shard | Iterable[Feed] | CalibrationDataReader


class Samples:
    """Feeds of a data source, checked, in order; can be gone through more than once if the source can.

    Parameters
    ----------
    source : path, Shard, iterable of feeds, or CalibrationDataReader
        An ``.npz`` (input name to array, first axis = samples), a Parquet file (a column an input, a row a sample) or a
        folder of them, a folder of ``.npz`` (one feed each), a folder of ONNX ``test_data_set_*/input_*.pb``, a glob
        pattern of any of these, a part of such data, or feeds (input name to array) from Python.
    specs : sequence of InputSpec
        What the model takes.

    Raises
    ------
    DataError
        If there is no data, or a feed does not fit the model: when going through it, naming the sample.

    Notes
    -----
    Samples of an ``.npz`` or Parquet file are fed in the model's fixed batch size, one by one where it is dynamic: so
    results do not depend on how the data was cut into files.

    Examples
    --------
    >>> import numpy as np
    >>> spec = InputSpec("x", np.dtype(np.float32), (None, 2))
    >>> [feed["x"].shape for feed in Samples([{"x": np.zeros((1, 2), np.float32)}], [spec])]
    [(1, 2)]
    """

    def __init__(self, source: DataSource, specs: Sequence[InputSpec]) -> None:
        if isinstance(source, Mapping):
            needs = "a list of dicts, one a feed"
            raise DataError("data", "is a single dict", needs=needs, remedy="Put it into a list")
        self._source = Path(source) if isinstance(source, str) else source
        self._specs = specs
        self.name = str(source) if isinstance(source, str | Path) else "data"
        self._files = sources(self._source) if isinstance(self._source, Path) else []

    @property
    def in_files(self) -> bool:
        """Whether it can be cut into shards; feeds from Python exist in this process alone."""
        return isinstance(self._source, Path | Shard)

    @property
    def repeatable(self) -> bool:
        """Whether the feeds can be gone through more than once."""
        return not (hasattr(self._source, "get_next") or isinstance(self._source, Iterator))

    def __len__(self) -> int:
        """Number of feeds where it can be told without reading them, else 0."""
        if self.in_files:
            return len(self._whole())
        return len(self._source) if isinstance(self._source, Sized) and not hasattr(self._source, "get_next") else 0

    def __iter__(self) -> Iterator[Feed]:
        """Checked feeds."""
        empty = True
        for subject, feed in self._feeds():
            yield checked(feed, self._specs, subject)
            empty = False
        if empty:
            raise DataError(self.name, "holds no samples", remedy="Give at least one")

    def shards(self, count: int) -> list[Shard]:
        """Cut into `count` shards of consecutive feeds, or fewer where there are not as many feeds.

        Raises
        ------
        DataError
            If the data is not in files, or there is none.
        """
        if not self.in_files:
            raise DataError(self.name, "is not in files, so it cannot be cut into shards", remedy="Write it to files")
        shards = cut(self._whole(), count)
        if not shards:
            raise DataError(self.name, "holds no samples", remedy="Give at least one")
        return shards

    def _whole(self) -> Shard:
        if isinstance(self._source, Shard):
            return self._source
        return Shard(tuple(Piece(file, 0, file.count(self._specs)) for file in self._files))

    def _feeds(self) -> Iterator[tuple[str, Feed]]:
        source = self._source
        if isinstance(source, Path):
            for file in self._files:
                yield from file.feeds(self._specs)
        elif isinstance(source, Shard):
            for piece in source.pieces:
                yield from piece.source.feeds(self._specs, piece.start, piece.stop)
        elif hasattr(source, "get_next"):
            number = 0
            while (feed := source.get_next()) is not None:
                yield f"{self.name}: sample {number}", feed
                number += 1
        else:
            for number, feed in enumerate(source):
                yield f"{self.name}: sample {number}", feed
