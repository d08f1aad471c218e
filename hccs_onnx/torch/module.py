"""`HCCSSoftmax`: the module that takes Softmax's place, in training and at export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hccs_onnx.errors import ParameterError
from hccs_onnx.params import DATA_FREE, HccsParams, HeadParams, LogitQuantizer, OutputType
from hccs_onnx.torch.line import Line
from hccs_onnx.torch.numerics import Profile, Rows
from hccs_onnx.torch.surrogate import surrogate

_MASKED_DATA_FREE = HccsParams((DATA_FREE,), masked=True)


class HCCSSoftmax(nn.Module):
    """Clipped-linear Softmax along the last axis, with gradients.

    The forward pass equals `hccs_onnx.hccs` bit for bit; the backward pass is that of the unrounded line. For integer
    output the logits are quantised first, and the integers come out as floats, times 2^-8 or 2^-15: what
    QuantizeLinear, ``hccs::HCCS`` and DequantizeLinear compute. What the quantiser saturates at the upper end gets its
    gradient all the same.

    Parameters
    ----------
    params : HccsParams
        Parameters, one entry for all heads or one a head; by default the data-free ones, masked.
    output : {'float', 'uint8', 'int16'}
        What probabilities are rounded to.
    quantizer : LogitQuantizer, optional
        How logits become int8 codes, one entry or one a head; needed for integer output, and only there. The `scale` of
        `params` is not read then.
    learn : bool
        Train clip range and floor of each entry, too; every forward pass uses the legal integers nearest to them. For
        float output and `norm`.

    Raises
    ------
    ParameterError
        If the parameters are illegal, or do not fit each other.

    Examples
    --------
    >>> softmax = HCCSSoftmax()
    >>> softmax(torch.tensor([[1.0, 0.0, -float("inf")]]))
    tensor([[0.5871, 0.4129, 0.0000]])
    """

    B: Tensor
    S: Tensor
    Dmax: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def __init__(
        self,
        params: HccsParams = _MASKED_DATA_FREE,
        *,
        output: OutputType = "float",
        quantizer: LogitQuantizer | None = None,
        learn: bool = False,
    ) -> None:
        super().__init__()
        _check(params, output, quantizer, learn)
        heads = params.heads if quantizer is None else _with_code_sizes(params.heads, quantizer)
        self.head_axis = params.head_axis
        self.profile = Profile(output, params.reciprocal, params.masked, params.mask_gap)
        self.line = Line(heads) if learn else None
        for name in ("B", "S", "Dmax"):
            values = torch.tensor([getattr(head, name) for head in heads], dtype=torch.int32)
            self.register_buffer(name, None if learn else values)
        free_scale = learn and quantizer is None
        scale = torch.tensor([head.scale for head in heads], dtype=torch.float32)
        self.register_buffer("scale", None if free_scale else scale)
        zero_points = None if quantizer is None else torch.tensor(quantizer.zero_point, dtype=torch.int32)
        self.register_buffer("zero_point", zero_points)
        self.frozen: tuple[HccsParams, LogitQuantizer | None] | None = None  # what is exported, while it is
        self._lengths: set[int] = set()  # row lengths that the parameters were found legal for

    @property
    def params(self) -> HccsParams:
        """The parameters as they are now; scales in the units of the logits.

        Examples
        --------
        >>> HCCSSoftmax(learn=True).params.heads[0].B
        16259
        """
        columns = [column.tolist() for column in self._integers()]
        heads = tuple(HeadParams(int(b), int(s), int(d), scale) for b, s, d, scale in zip(*columns, strict=True))
        profile = self.profile
        return HccsParams(heads, self.head_axis, profile.reciprocal, profile.masked, profile.mask_gap)

    @property
    def quantizer(self) -> LogitQuantizer | None:
        """How logits become codes; None for float output."""
        if self.zero_point is None:
            return None
        scale, zero_point = self.scale.tolist(), self.zero_point.tolist()
        return LogitQuantizer(tuple(scale), tuple(zero_point if len(zero_point) > 1 else zero_point * len(scale)))

    def forward(self, logits: Tensor, *, overwrite: bool = False) -> Tensor:
        """Probabilities.

        Parameters
        ----------
        logits : Tensor, shape (..., head, ..., n)
            What Softmax would read, the mask added: -inf or the lowest float where masked. Any float type; computed in
            float32.
        overwrite : bool
            Allow the probabilities to take the logits' memory, for logits that nobody else reads.

        Returns
        -------
        Tensor, shape and type of `logits`

        Raises
        ------
        ParameterError
            If the parameters are not legal for rows of this length, or do not divide the head axis.
        """
        if self.frozen is not None:
            from hccs_onnx.torch.operator import hccs_softmax

            if logits.dtype == torch.float32:
                return hccs_softmax(logits, self.profile.output, *self.frozen)
            return hccs_softmax(logits.float(), self.profile.output, *self.frozen).to(logits.dtype)
        if logits.shape[-1] == 0:
            return logits
        if logits.shape[-1] not in self._lengths:
            self.check(logits.shape[-1])
        x = logits.float()
        x = x if x.dim() > 1 else x[None]
        line = None
        if self.line is not None:
            clip, ratio = self.line()
            line = per_row(clip, x, self.head_axis), per_row(ratio, x, self.head_axis)
        return surrogate(x, self._rows(x), self.profile, line, inplace=overwrite).view_as(logits).to(logits.dtype)

    def check(self, n: int | None = None) -> None:
        """Refuse parameters that are not legal, for rows of length `n` where that matters.

        Raises
        ------
        ParameterError
            With the reason.
        """
        reasons = self.params.violations(self.profile.output, n=n)
        if reasons:
            raise ParameterError("HCCSSoftmax", reasons[0], remedy="Calibrate for this length")
        if n is not None:
            self._lengths.add(n)

    def extra_repr(self) -> str:
        """What it computes, for printing a model."""
        profile, heads = self.profile, (self.B if self.line is None else self.line.log_clip_range).numel()
        reciprocal = "" if profile.output == "float" else f", reciprocal={profile.reciprocal}"
        return f"heads={heads}, output={profile.output}{reciprocal}, masked={profile.masked}"

    def _integers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """B, S, Dmax, scale, shape (head,)."""
        if self.line is not None:
            return self.line.integers(self.scale)
        return self.B, self.S, self.Dmax, self.scale

    def _rows(self, x: Tensor) -> Rows:
        zero_point = x.new_zeros(1) if self.zero_point is None else self.zero_point
        return Rows(*(per_row(values.float(), x, self.head_axis) for values in (*self._integers(), zero_point)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HCCSSoftmax:
        def same_type(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            return made if made.dtype == tensor.dtype else tensor.to(made.device)  # model.half() is not for these

        super()._apply(same_type, recurse)
        return self

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self._lengths.clear()


def per_row(values: Tensor, x: Tensor, head_axis: int) -> Tensor:
    """One value a head as one value a row.

    Parameters
    ----------
    values : Tensor, shape (head,) or (1,)
        In order of heads.
    x : Tensor, shape (..., head, ..., n)
        Logits of rank 2 or more; the size of the head axis is a multiple of the number of heads.
    head_axis : int
        Their head axis.

    Returns
    -------
    Tensor
        Broadcasts against `x`, with the last axis of size 1.

    Examples
    --------
    >>> per_row(torch.tensor([1.0, 2.0]), torch.zeros(5, 4, 3, 3), -3).flatten()
    tensor([1., 2., 1., 2.])
    """
    shape = [1] * x.dim()
    count = values.numel()
    if count == 1:
        return values.reshape(shape)
    axis = head_axis % x.dim() if -x.dim() <= head_axis < x.dim() else None
    if axis is None or axis == x.dim() - 1 or x.shape[axis] % count:
        found, needs = f"logits {tuple(x.shape)}, head_axis {head_axis}", f"a multiple of {count} there"
        raise ParameterError("HCCSSoftmax", "parameters do not fit the head axis", found=found, needs=needs)
    shape[axis] = x.shape[axis]
    return values.repeat(x.shape[axis] // count).reshape(shape)


def _check(params: HccsParams, output: OutputType, quantizer: LogitQuantizer | None, learn: bool) -> None:
    integer = output != "float"
    if integer != (quantizer is not None):
        problem = "integer output needs a quantizer" if integer else "float output has no use for a quantizer"
        raise ParameterError("HCCSSoftmax", problem, found=output, remedy="Give both or neither")
    if learn and integer and params.reciprocal != "norm":
        remedy = "Choose norm, or leave learn out"
        raise ParameterError("HCCSSoftmax", "only norm can learn", found=params.reciprocal, remedy=remedy)
    reasons = params.violations(output)
    if quantizer is not None and not reasons:
        lengths = {len(params.heads), len(quantizer.scale), len(quantizer.zero_point)} - {1}
        if len(lengths) > 1:
            reasons = (f"quantizer has another number of heads ({len(quantizer.scale)}, needs {len(params.heads)})",)
        elif not all(scale > 0 for scale in quantizer.scale):
            reasons = (f"quantizer scale is not positive ({min(quantizer.scale)}, needs > 0)",)
    if reasons:
        raise ParameterError("HCCSSoftmax", reasons[0], remedy="Calibrate again")


def _with_code_sizes(heads: tuple[HeadParams, ...], quantizer: LogitQuantizer) -> tuple[HeadParams, ...]:
    """One entry a head, each with the size of its codes as scale."""
    count = max(len(heads), len(quantizer.scale))
    each = heads * count if len(heads) == 1 else heads
    scales = quantizer.scale * count if len(quantizer.scale) == 1 else quantizer.scale
    return tuple(replace(head, scale=scale) for head, scale in zip(each, scales, strict=True))
