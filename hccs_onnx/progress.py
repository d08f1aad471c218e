"""Progress bars on stderr, off where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int = 0) -> Iterator[T]:
    """Go through `items` with a bar on stderr if that is a terminal.

    Examples
    --------
    >>> list(progress([1, 2], "counting"))
    [1, 2]
    """
    from tqdm import tqdm

    yield from tqdm(
        items, desc=what, total=total or None, disable=not sys.stderr.isatty(), unit="feed", file=sys.stderr
    )
