"""What of a model is attention, and what is HCCS already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.attention import AttentionSoftmax, find_attention
from hccs_onnx.graph.files import read_model
from hccs_onnx.graph.names import nested_graphs
from hccs_onnx.graph.opset import check_opset, too_old
from hccs_onnx.graph.uncover import uncover
from hccs_onnx.operator.schema import is_hccs


def inspect(model: Path | str) -> list[AttentionSoftmax]:
    """Every Softmax of a model: attention, or the reason why not.

    Parameters
    ----------
    model : path
        ONNX file; external data is not read.

    Raises
    ------
    ModelError
        If the model cannot be read.

    Examples
    --------
    >>> inspect("encoder.onnx")[0].heads  # doctest: +SKIP
    12
    """
    path = Path(model)
    proto = read_model(path)
    uncover(proto, path.parent)
    found, why = find_attention(proto, path.parent), too_old(proto)
    if why is None:
        return found
    return [item if item.reason else replace(item, reason=why, attention_like=True) for item in found]


def count_hccs(model: onnx.ModelProto) -> int:
    """HCCS nodes of a model, in bodies of If, Loop and Scan too.

    Examples
    --------
    >>> count_hccs(onnx.ModelProto())
    0
    """
    return sum(is_hccs(node) for graph in nested_graphs(model.graph) for node in graph.node)


def attention(path: Path, model: onnx.ModelProto, found: Sequence[AttentionSoftmax]) -> list[AttentionSoftmax]:
    """Those of the Softmax nodes found that are attention and can be rewritten.

    Raises
    ------
    ModelError
        If there are none, with the reason; `path` names the model.

    Examples
    --------
    >>> attention(Path("m.onnx"), onnx.ModelProto(), [])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    hccs_onnx.errors.ModelError: m.onnx: holds no Softmax node. ...
    """
    targets = [item for item in found if item.reason is None]
    if targets:
        check_opset(model, str(path))
        return targets
    if rewritten := count_hccs(model):
        left = f" ({len(found)} Softmax left alone, the first because {found[0].reason})" if found else ""
        problem = f"holds {rewritten} HCCS node{'s' * (rewritten != 1)} already, and no other attention{left}"
        raise ModelError(str(path), problem, remedy="Start from the original")
    if not found:
        raise ModelError(
            str(path), "holds no Softmax node", remedy="Export it without fused attention operators, which hide it"
        )
    problem = f"holds no attention ({len(found)} Softmax left alone, the first: {found[0].reason})"
    raise ModelError(str(path), problem, remedy="See python -m hccs_onnx inspect")
