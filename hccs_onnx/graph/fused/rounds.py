"""Taking operators apart until nothing is left to take apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from hccs_onnx.graph.fused.parts import Surroundings, surroundings_of
from hccs_onnx.graph.names import nested_graphs


def expand_in_rounds(
    model: onnx.ModelProto,
    folder: Path,
    holds: Callable[[onnx.GraphProto], object],
    expand: Callable[[onnx.GraphProto, Surroundings], dict[str, str]],
) -> dict[str, str]:
    """Take operators of all graphs apart, in place, in rounds: behind what was taken apart more shapes are known.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where it lies.
    holds : callable
        Whether a graph has operators to look at.
    expand : callable
        Takes apart what it can in a graph; returns what it found, and nothing if it left the graph as it was.

    Returns
    -------
    dict of str to str
        All that was found.

    Examples
    --------
    >>> expand_in_rounds(onnx.ModelProto(), Path(), lambda graph: graph.node, lambda graph, around: {})
    {}
    """
    found: dict[str, str] = {}
    while graphs := [graph for graph in nested_graphs(model.graph) if holds(graph)]:
        around = surroundings_of(model, folder)
        new: dict[str, str] = {}
        for graph in reversed(graphs):  # those inside others first: nodes are copied
            new |= expand(graph, around)
        if not new:
            break
        found |= new
    return found
