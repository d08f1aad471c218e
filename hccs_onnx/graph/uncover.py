"""Bringing every Softmax of a model to light: those in functions, written out, along other axes, in fused operators."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.functions import inline_functions, may_hold_softmax
from hccs_onnx.graph.fused import expand_fused
from hccs_onnx.graph.fused.products import expand_products
from hccs_onnx.graph.handmade import fold_handmade
from hccs_onnx.graph.names import all_nodes, subgraphs
from hccs_onnx.graph.scopes import make_names_unique
from hccs_onnx.graph.turned import turn_softmaxes


def uncover(model: onnx.ModelProto, folder: Path, keep: Collection[str] = ()) -> dict[str, str]:
    """Give hidden Softmax a node of its own along the last axis, in place; the model computes the same.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    folder : pathlib.Path
        Where it lies.
    keep : collection of str
        Values of an earlier result: what to leave as it is.

    Returns
    -------
    dict of str to str
        For each Softmax that came to light, its output and a name of where it came from. Also, for each function call
        that was taken apart, its name twice: there may be no Softmax in it after all.

    Raises
    ------
    ModelError
        If the graph is not valid, or functions call themselves or unfold to an absurd size.

    Examples
    --------
    >>> uncover(model, Path("models"))  # doctest: +SKIP
    {'encoder/attention/AttnWeightSoftmax': 'encoder/attention'}
    """
    try:
        return _uncover(model, folder, keep)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Nodes with too few inputs, attributes of wrong types, names that are no text: nobody has checked the model.
        problem = f"graph is not valid: {type(error).__name__} {error}"
        raise ModelError("model", problem, remedy="Run onnx.checker on it") from error


def _uncover(model: onnx.ModelProto, folder: Path, keep: Collection[str]) -> dict[str, str]:
    functions = {function.name for function in model.functions}
    bodies = (graph for node in all_nodes(model.graph.node) for graph in subgraphs(node))
    if any(may_hold_softmax(node) or node.op_type in functions for graph in bodies for node in graph.node):
        make_names_unique(model)
    calls = inline_functions(model, keep)
    found = fold_handmade(model, folder, keep) | expand_fused(model, folder, keep)
    found |= expand_products(model, folder, keep) | turn_softmaxes(model, folder, keep)
    for node in all_nodes(model.graph.node) if calls else ():
        if node.op_type == "Softmax" and node.output and node.output[0] in calls:
            found.setdefault(node.output[0], node.output[0])
    found = {softmax: calls.get(origin, origin) for softmax, origin in found.items()}
    return found | {call: call for call in calls.values()}
