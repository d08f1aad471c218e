"""What patterns return."""

from __future__ import annotations

from dataclasses import dataclass

from hccs_onnx.graph.mask_levels import MaskLevels


@dataclass(frozen=True)
class Step:
    """One node that logits pass on their way from the query-key product to the Softmax.

    Parameters
    ----------
    node : int
        Its position in the graph's node list; -1 for a node of a graph around it.
    data : str
        Tensor that brings the logits; its other inputs are not logits.
    factor : float, optional
        What it multiplies the logits with, where it does nothing else and the factor is a positive constant.
    mask : MaskLevels, optional
        What it adds to the logits, where it is a mask or a bias.
    reader : int, optional
        Position of the node that reads `data`, where the step is over more nodes than one.
    bends : bool
        Whether it is not linear, so that no scale may be moved past it.
    moves_heads : bool
        Whether it changes the order of other axes than the last two.
    reshapes : bool
        Whether it splits or folds axes, so that they may count differently before it.
    """

    node: int
    data: str
    factor: float | None = None
    mask: MaskLevels | None = None
    reader: int | None = None
    bends: bool = False
    moves_heads: bool = False
    reshapes: bool = False


@dataclass(frozen=True)
class NoMatch:
    """Why something is not the attention that was looked for."""

    reason: str
