"""HCCS as a differentiable function: exact forward, straight-through backward, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hccs_onnx.torch.numerics import Profile, Rows, backward, float_forward, integer_forward, line_gradients

_BLOCK = 2**18  # elements: a few buffers of it stay in a core's cache


@torch.compiler.disable  # a compiler may fuse multiplications and additions, which rounds differently
def surrogate(
    logits: Tensor, rows: Rows, profile: Profile, line: tuple[Tensor, Tensor] | None = None, *, inplace: bool = False
) -> Tensor:
    """Probabilities of float32 logits, with gradients.

    Parameters
    ----------
    logits : Tensor of float32, shape (..., head, ..., n)
        Softmax's input.
    rows : Rows
        Legal parameters.
    profile : Profile
        What to compute.
    line : tuple of Tensor, optional
        Logarithm of the clip range, and floor ratio, which `rows` were rounded from and which get gradients; shapes of
        the tensors in `rows`.
    inplace : bool
        Write float probabilities over the logits, which must not be a leaf.

    Returns
    -------
    Tensor of float32, shape of `logits`
        Float probabilities, or integer ones times 2^-8 or 2^-15.
    """
    clip, ratio = line if line is not None else (None, None)
    return _Surrogate.apply(logits, clip, ratio, rows, profile, inplace)


class _Surrogate(torch.autograd.Function):
    """Saves shares and two numbers a row; for float output the shares are the probabilities, saved anyway."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, clip: Tensor | None, ratio: Tensor | None, rows: Rows, profile: Profile, inplace: bool
    ) -> Tensor:
        integer = profile.output != "float"
        y = x if inplace and not integer else torch.empty_like(x, memory_format=torch.contiguous_format)
        shares = torch.empty_like(y) if integer else y
        inverse, factor = [], []
        for part, of in _blocks(x, rows):
            if integer:
                ends = integer_forward(x[part], of, profile, y[part], shares[part])
                inverse.append(ends[0])
                factor.append(ends[1])
            else:
                inverse.append(float_forward(x[part], of, profile, y[part]))
        ctx.rows = rows
        one_over = torch.cat(inverse)
        ctx.save_for_backward(shares, one_over, torch.cat(factor) if integer else one_over, clip, ratio)
        if y is x:
            ctx.mark_dirty(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        shares, inverse, factor, clip, ratio = ctx.saved_tensors
        out = torch.empty_like(shares)
        lines = []
        for part, of in _blocks(shares, ctx.rows):
            mean = backward(grad[part], shares[part], inverse[part], factor[part], of, out[part])
            if clip is not None:
                lines.append(line_gradients(grad[part], mean, shares[part], inverse[part], factor[part], of))
        if clip is None:
            return out, None, None, None, None, None
        by_clip, by_ratio = (torch.cat(items) for items in zip(*lines, strict=True))
        return out, by_clip.sum_to_size(clip.shape), by_ratio.sum_to_size(ratio.shape), None, None, None


def _blocks(x: Tensor, rows: Rows) -> Iterator[tuple[slice, Rows]]:
    """Slices of the first axis, and the parameters that belong to each."""
    count = x.shape[0]
    size = max(1, _BLOCK * count // max(1, x.numel())) if x.device.type == "cpu" else max(1, count)
    for start in range(0, count, size) if count else [0]:
        part = slice(start, start + size)
        yield part, Rows(*(_cut(tensor, part) for tensor in vars(rows).values()))


def _cut(tensor: Tensor, part: slice) -> Tensor:
    return tensor if tensor.shape[0] == 1 else tensor[part]
