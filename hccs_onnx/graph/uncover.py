"""Bringing every Softmax of a model to light: those written out, and those inside fused operators."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import onnx

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.fused import expand_fused
from hccs_onnx.graph.fused.products import expand_products
from hccs_onnx.graph.handmade import fold_handmade


def uncover(model: onnx.ModelProto, folder: Path, keep: Collection[str] = ()) -> dict[str, str]:
    """Give hidden Softmax a node of its own, in place; the model computes the same.

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
        For each Softmax that came to light, its output and a name of where it came from.

    Raises
    ------
    ModelError
        If the graph is not valid.

    Examples
    --------
    >>> uncover(model, Path("models"))  # doctest: +SKIP
    {'encoder/attention/AttnWeightSoftmax': 'encoder/attention'}
    """
    try:
        found = fold_handmade(model, folder, keep) | expand_fused(model, folder, keep)
        return found | expand_products(model, folder, keep)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Nodes with too few inputs, attributes of wrong types, names that are no text: nobody has checked the model.
        problem = f"graph is not valid: {type(error).__name__} {error}"
        raise ModelError("model", problem, remedy="Run onnx.checker on it") from error
