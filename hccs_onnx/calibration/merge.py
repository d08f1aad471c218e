"""Adding up sketch files."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path

from hccs_onnx.calibration.model_sketch import ModelSketch, Subject
from hccs_onnx.calibration.sketch_file import Sum, read
from hccs_onnx.errors import CalibrationError
from hccs_onnx.progress import progress

_FILES_A_THREAD = 8  # as few are added sooner by one


def merge_files(paths: Sequence[Path], *, allow_repeats: bool = False) -> ModelSketch:
    """The sum of sketch files, in the memory of a few sketches.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        The files, in any order.
    allow_repeats : bool
        Whether data may be in it twice.

    Raises
    ------
    CalibrationError
        If a file is no sketch, is of another model or kind, or holds data that another one holds too.

    Examples
    --------
    >>> merge_files([Path("part1.sketch"), Path("part2.sketch")]).feeds  # doctest: +SKIP
    2000
    """
    if not paths:
        return Sum().result()
    first = Sum()
    first.add(read(paths[0]), str(paths[0]))
    subject = first.subject
    rest = list(paths[1:])
    threads = max(1, min(os.cpu_count() or 1, len(rest) // _FILES_A_THREAD))
    with ThreadPoolExecutor(threads) as pool:  # hashing, reading and adding leave other threads alone
        shares: list[Iterable[Path]] = [rest[number::threads] for number in range(threads)]
        shares[0] = progress(shares[0], "merging", len(rest[::threads]))
        sums = [first, *pool.map(lambda share: _sum(subject, share), shares)]
    if not allow_repeats:
        check_repeats(part for each in sums for part in each.parts)
    return reduce(operator.add, [each.result() for each in sums if each.parts])


def check_repeats(parts: Iterable[tuple[str, str]]) -> None:
    """Refuse data that would be counted twice.

    Parameters
    ----------
    parts : iterable of (str, str)
        Fingerprint of each part, and where it is.

    Raises
    ------
    CalibrationError
        If two are the same.

    Examples
    --------
    >>> check_repeats([("ab", "one.sketch"), ("cd", "two.sketch")])
    """
    places: dict[str, str] = {}
    for part, place in parts:
        if part in places:
            problem = f"holds the same data as {places[part]}" if places[part] != place else "holds the same data twice"
            remedy = "Leave one of them out, or say --allow-repeats if the data really has these samples twice"
            raise CalibrationError(place, problem, found=f"part {part[:12]}", remedy=remedy)
        places[part] = place


def _sum(subject: Subject | None, paths: Iterable[Path]) -> Sum:
    total = Sum(subject)
    for path in paths:
        total.add(read(path), str(path))
    return total
