"""The table of heads: which columns, and what each shows and is sorted by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hccs_onnx import words
from hccs_onnx.report.content import Content, Head
from hccs_onnx.report.text import fixed
from hccs_onnx.words import Word


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what its row is sorted by."""

    text: str
    value: float


@dataclass(frozen=True)
class Column:
    """A column.

    Parameters
    ----------
    heading, meaning : str
        What it is called, and what that means.
    cell : callable
        Cell of a head.
    worst_first : bool
        Sorted downwards at first: more is worse.
    """

    heading: str
    meaning: str
    cell: Callable[[Head], Cell]
    worst_first: bool = False


def columns(content: Content) -> list[Column]:
    """Those for which there are numbers.

    Examples
    --------
    >>> [column.heading for column in columns(content)][:2]  # doctest: +SKIP
    ['fitted KL (nats)', 'measured KL (nats)']
    """
    found = [_kl("fitted", "on the calibration data, each layer fed by the original model", _fitted)]
    if content.result is not None:
        found.append(_kl("measured", "in the rewritten model, on this report's data", _measured))
    found += [
        _column(words.OFFSET, lambda head: _integer(head.fit.params.B)),
        _column(words.SLOPE, lambda head: _integer(head.fit.params.S)),
        _column(words.CLIP_DISTANCE, lambda head: _integer(head.fit.params.Dmax)),
        _column(words.CLIP_RANGE, lambda head: _decimal(head.fit.params.clip_range, 2)),
        _column(words.FLOOR, lambda head: _integer(head.fit.params.floor)),
        _column(words.DEFICIT, _deficit),
    ]
    if any(head.gaps is not None for head in content.heads):
        found.append(_column(words.KEYS, _keys))
    return [*found, _column(words.MASKED, _masked)]


def _column(word: Word, cell: Callable[[Head], Cell]) -> Column:
    return Column(word.heading, word.meaning, cell)


def _kl(what: str, where: str, cell: Callable[[Head], Cell]) -> Column:
    return Column(f"{what} {words.KL.heading}", f"{words.KL.meaning}; {where}", cell, worst_first=True)


def _fitted(head: Head) -> Cell:
    return _decimal(head.fit.kl, 4)


def _measured(head: Head) -> Cell:
    return _NOTHING if head.measured is None else _decimal(head.measured.kl, 4)


def _deficit(head: Head) -> Cell:
    return _decimal(head.fit.deficit if head.measured is None else head.measured.deficit, 4)


def _keys(head: Head) -> Cell:
    return _NOTHING if head.gaps is None else _decimal(head.gaps.effective_keys, 1)


def _masked(head: Head) -> Cell:
    return Cell("yes" if head.masked else "no", int(head.masked))


def _integer(value: int) -> Cell:
    return Cell(str(value), value)


def _decimal(value: float, digits: int) -> Cell:
    return Cell(fixed(value, digits), value)


_NOTHING = Cell("-", -1.0)
