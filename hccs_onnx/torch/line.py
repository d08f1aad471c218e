"""A clip range and a floor that learn, and the legal integers nearest to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hccs_onnx.params import MAX_CLIP_DISTANCE, MAX_OFFSET, MAX_SLOPE, HeadParams

_CLIP_RANGES = 1e-3, 1e3  # in the units of the logits
_FLOOR_RATIOS = 1.0 / (MAX_SLOPE * MAX_CLIP_DISTANCE + 1), 0.9  # a floor of 1 at the steepest line; slopes above 0


class Line(nn.Module):
    """Clip range and floor ratio of each head, trained as their logarithms.

    Parameters
    ----------
    heads : sequence of HeadParams
        Where to start.
    """

    def __init__(self, heads: Sequence[HeadParams]) -> None:
        super().__init__()
        clips = torch.tensor([head.clip_range for head in heads], dtype=torch.float64).clamp(*_CLIP_RANGES)
        ratios = torch.tensor([head.floor_ratio for head in heads], dtype=torch.float64).clamp(*_FLOOR_RATIOS)
        self.log_clip_range = nn.Parameter(clips.log().float())
        self.log_floor_ratio = nn.Parameter(ratios.log().float())

    def forward(self) -> tuple[Tensor, Tensor]:
        """Logarithm of the clip range and floor ratio, float64, shape (head,)."""
        return _within(self.log_clip_range, _CLIP_RANGES), _within(self.log_floor_ratio, _FLOOR_RATIOS).exp()

    @torch.no_grad()
    def integers(self, code: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Legal B, S, Dmax and scale closest to the line, as `hccs_onnx.calibration.fit.legal_head` finds them.

        Parameters
        ----------
        code : Tensor of float32, shape (head,), optional
            Size of a logit's code, for integer output. Without it `scale` is free.

        Returns
        -------
        tuple of Tensor of float32, shape (head,)
        """
        log_clip, ratio = self()
        clip = log_clip.exp()
        if code is None:
            distance = torch.full_like(clip, MAX_CLIP_DISTANCE)
            code = (clip / MAX_CLIP_DISTANCE).float()
        else:
            distance = torch.round(clip / code).clamp(1, MAX_CLIP_DISTANCE)
        fall = 1.0 - ratio
        slope = (MAX_OFFSET * fall / distance).floor().clamp(max=MAX_SLOPE)
        drop = slope * distance
        offset = torch.maximum(torch.round(drop / fall), drop + 1).clamp(max=MAX_OFFSET)
        return offset.float(), slope.float(), distance.float(), code


def _within(logarithm: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Logarithms kept within bounds, with gradients as if they were not: what has reached a bound can come back."""
    free = logarithm.double()
    low, high = map(math.log, bounds)
    return free + (free.clamp(low, high) - free).detach()
