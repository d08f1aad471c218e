"""Remembering what was found out about a graph, so that many ways to one node are not all walked."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from hccs_onnx.graph.view import GraphView

P = ParamSpec("P")
R = TypeVar("R")


def once_per_view(function: Callable[Concatenate[GraphView, P], R]) -> Callable[Concatenate[GraphView, P], R]:
    """Compute a pure function of a view once for the same arguments; the results go with the view.

    Examples
    --------
    >>> @once_per_view
    ... def depth(view, name): ...
    """
    memory: WeakKeyDictionary[GraphView, dict[Hashable, R]] = WeakKeyDictionary()

    @wraps(function)
    def remembered(view: GraphView, /, *args: P.args, **kwargs: P.kwargs) -> R:
        known = memory.setdefault(view, {})
        key = (args, tuple(sorted(kwargs.items())))
        if key not in known:
            known[key] = function(view, *args, **kwargs)
        return known[key]

    return remembered
