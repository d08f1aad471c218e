"""Progress bars on stderr, off where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int = 0) -> Iterator[T]:
    """Go through `items` with a bar on stderr if that is a terminal.

    Examples
    --------
    >>> list(progress([1, 2], "counting"))
    [1, 2]
    """
    with bar(what, total) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def bar(what: str, total: int = 0) -> Iterator[Callable[[int], object]]:
    """A bar on stderr if that is a terminal, and what moves it on.

    Examples
    --------
    >>> with bar("counting", 3) as advance:
    ...     _ = advance(2)
    """
    from tqdm import tqdm

    with tqdm(desc=what, total=total or None, disable=not sys.stderr.isatty(), unit="feed", file=sys.stderr) as shown:
        yield shown.update
