"""What DATA is made of, and cutting it into shards that can be worked on anywhere."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from hccs_onnx.calibration.data.data_sets import data_sets
from hccs_onnx.calibration.data.inputs import Feed, InputSpec
from hccs_onnx.calibration.data.npz import NpzFeed, NpzFile
from hccs_onnx.calibration.data.parquet import SUFFIXES, ParquetFile
from hccs_onnx.errors import DataError


class Source(Protocol):
    """A file or folder of feeds; a small value that can be sent to other processes."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def count(self, specs: Sequence[InputSpec]) -> int:
        """Number of feeds."""

    def feeds(self, specs: Sequence[InputSpec], start: int = 0, stop: int | None = None) -> Iterator[tuple[str, Feed]]:
        """Feeds from `start` to before `stop`, each with what to call it in errors."""

    def absolute(self) -> Source:
        """The same with an absolute path."""


@dataclass(frozen=True)
class Piece:
    """Consecutive feeds of one source.

    Parameters
    ----------
    source : Source
        Where they are.
    start, stop : int
        The first one, and the one after the last.
    """

    source: Source
    start: int
    stop: int

    def __len__(self) -> int:
        """Number of feeds."""
        return self.stop - self.start


@dataclass(frozen=True)
class Shard:
    """A part of DATA: feeds in order.

    Parameters
    ----------
    pieces : tuple of Piece
        Where they are.
    """

    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        """Number of feeds."""
        return sum(len(piece) for piece in self.pieces)

    def absolute(self) -> Shard:
        """The same, whatever the current folder is."""
        return Shard(tuple(replace(piece, source=piece.source.absolute()) for piece in self.pieces))

    def split(self, feeds: int) -> tuple[Shard, Shard]:
        """The first feeds, and the others."""
        first, others = [], []
        for piece in self.pieces:
            middle = min(piece.stop, piece.start + feeds)
            feeds -= middle - piece.start
            first.append(Piece(piece.source, piece.start, middle))
            others.append(Piece(piece.source, middle, piece.stop))
        return Shard(tuple(filter(len, first))), Shard(tuple(filter(len, others)))


def sources(path: Path) -> list[Source]:
    """The sources that a path or glob pattern stands for, in order of names.

    Raises
    ------
    DataError
        If there is no such file or folder, or nothing that the pattern matches.

    Examples
    --------
    >>> sources(Path("missing.npz"))
    Traceback (most recent call last):
    hccs_onnx.errors.DataError: missing.npz: no such file or folder. Check --data.
    """
    return [source for each in matches(path) for source in _sources_of(each)]


def matches(path: Path, option: str = "--data") -> list[Path]:
    """What a path or glob pattern stands for; a file that is called like a pattern is that file.

    Raises
    ------
    DataError
        As `sources` does.
    """
    pattern = str(path)
    try:
        path.stat()
    except FileNotFoundError as error:
        if not glob.has_magic(pattern):
            raise DataError(pattern, "no such file or folder", remedy=f"Check {option}") from error
    except OSError as error:
        raise DataError(pattern, f"cannot be read ({error.strerror})", remedy=f"Check {option}") from error
    else:
        return [path]
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob refuses absolute patterns
    if not found:
        raise DataError(pattern, "matches no file or folder", remedy=f"Check {option}")
    return [Path(name) for name in found]


def files(path: Path) -> list[Path]:
    """The files that a path or glob pattern stands for: those that `sources` read.

    Raises
    ------
    DataError
        As `sources` does.
    """
    places = [source.path for source in sources(path)]
    return [file for place in places for file in (sorted(place.glob("input_*.pb")) if place.is_dir() else [place])]


def _sources_of(path: Path) -> Sequence[Source]:
    if not path.is_dir():
        return [ParquetFile(path) if path.suffix.lower() in SUFFIXES else NpzFile(path)]
    tables = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]
    feeds = sorted(path.glob("*.npz"))
    if feeds and tables:
        raise DataError(str(path), "holds .npz and Parquet files", remedy="Name those that are meant: 'FOLDER/*.npz'")
    return [NpzFeed(file) for file in feeds] or [ParquetFile(file) for file in tables] or data_sets(path)


def cut(shard: Shard, count: int) -> list[Shard]:
    """`count` shards of consecutive feeds, as equal as can be; fewer if there are fewer feeds, none of none.

    Examples
    --------
    >>> shard = Shard((Piece(NpzFile(Path("a.npz")), 0, 5), Piece(NpzFile(Path("b.npz")), 0, 2)))
    >>> [len(part) for part in cut(shard, 3)]
    [2, 2, 3]
    """
    total, pieces = len(shard), list(reversed(shard.pieces))
    count = min(count, total)
    shards = []
    for number in range(count):
        wanted = total * (number + 1) // count - total * number // count
        taken: list[Piece] = []
        while wanted:
            piece = pieces.pop()
            stop = min(piece.stop, piece.start + wanted)
            wanted -= stop - piece.start
            taken.append(Piece(piece.source, piece.start, stop))
            if stop < piece.stop:
                pieces.append(Piece(piece.source, stop, piece.stop))
        shards.append(Shard(tuple(filter(len, taken))))
    return shards
