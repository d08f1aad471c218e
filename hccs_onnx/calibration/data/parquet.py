"""Samples in Parquet files: a column an input, a row a sample. Needs pyarrow, the extra ``[parquet]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hccs_onnx.calibration.data.inputs import Feed, InputSpec, batch_size, check_names, whole_batches
from hccs_onnx.errors import DataError
from hccs_onnx.reference import Array

_ROWS = 64  # decoded at a time
SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file: numbers, or lists (of lists ...) of numbers of one shape within a row.

    Columns that the model does not take are not read. Memory depends on the size of a row group, not of the file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    """

    path: Path

    def absolute(self) -> ParquetFile:
        """The same with an absolute path."""
        return ParquetFile(self.path.absolute())

    def count(self, specs: Sequence[InputSpec]) -> int:
        """Number of feeds."""
        with self._opened() as file:
            return whole_batches(file.metadata.num_rows, specs, str(self.path))

    def feeds(self, specs: Sequence[InputSpec], start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Feed]]:
        """Feeds from `start` to before `stop`, each with what to call it; row groups before `start` are not read."""
        batch, last = batch_size(specs), self.count(specs) if stop is None else stop
        names = [spec.name for spec in specs]
        with self._opened() as file:
            columns = file.schema_arrow.names
            if not set(names) <= set(columns):  # there may be more
                check_names(columns, specs, str(self.path))
            groups, skipped = _groups(file, start * batch)
            rows = islice(self._rows(file, groups, names), skipped, None)
            for number in range(start, last):
                subject = f"{self.path}: sample {number * batch}"
                yield subject, _stacked(list(islice(rows, batch)), names, subject)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            problem = "is Parquet, which needs pyarrow"
            raise DataError(str(self.path), problem, remedy="pip install hccs-onnx[parquet]") from error
        try:
            with pq.ParquetFile(self.path) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            problem = f"cannot be read as Parquet ({str(error).splitlines()[0][:200].rstrip('.')})"
            raise DataError(str(self.path), problem, remedy="Write it again") from error

    def _rows(self, file: Any, groups: list[int], names: list[str]) -> Iterator[Feed]:
        """One row after the other, as arrays with a first axis of 1."""
        for record in file.iter_batches(_ROWS, row_groups=groups, columns=names):
            for row in range(record.num_rows):
                yield {name: _array(record.column(name).slice(row, 1), f"{self.path}: '{name}'") for name in names}


def _groups(file: Any, start: int) -> tuple[list[int], int]:
    """Row groups from that of row `start` on, and how many rows of the first lie before it."""
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if start < rows:
            return list(range(group, file.num_row_groups)), start
        start -= rows
    return [], 0


def _array(values: Any, subject: str) -> Array:
    """Arrow values as an array: lists become axes.

    Raises
    ------
    DataError
        If values are missing, or lists beside each other differ in length.
    """
    import pyarrow as pa

    shape = [len(values)]
    if isinstance(values.type, pa.FixedShapeTensorType):
        whole: Array = values.to_numpy_ndarray()
        return whole
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or _is_fixed(values.type):
        _check_present(values, subject)
        inner = values.flatten()
        size = len(inner) // max(len(values), 1)
        lengths = values.value_lengths() if not _is_fixed(values.type) else None
        if lengths is not None and any(length.as_py() != size for length in lengths):
            problem = "holds lists of different lengths within one row"
            raise DataError(subject, problem, remedy="Pad them, or put them into rows of their own")
        shape.append(size)
        values = inner
    _check_present(values, subject)
    numbers: Array = values.to_numpy(zero_copy_only=False)
    return numbers.reshape(shape)


def _is_fixed(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))


def _check_present(values: Any, subject: str) -> None:
    if values.null_count:
        raise DataError(subject, "holds missing values", found=values.null_count, remedy="Leave those rows out")


def _stacked(rows: list[Feed], names: list[str], subject: str) -> Feed:
    """Rows as one feed."""
    if len(rows) == 1:
        return rows[0]
    try:
        return {name: np.concatenate([row[name] for row in rows]) for name in names}
    except ValueError as error:
        problem = "rows of one batch differ in shape" if rows else "is missing: the file is damaged"
        raise DataError(subject, problem, remedy="Pad the data" if rows else "Write the file again") from error
