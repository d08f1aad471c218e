"""Other stand-ins for Softmax, after their papers: torch functions of logits, rows along the last axis.

They are reference functions in floating point, without the number formats of the hardware that they were made for,
which favours them. Each gives masked positions, whose logits lie more than 64 nats below the maximum, no probability.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import torch
from torch import Tensor, nn

_MASK_GAP = 64.0  # nats
_TABLE, _TABLE_RANGE = 32, 6.6  # entries, nats


def base2(logits: Tensor) -> Tensor:
    """2^x instead of e^x, as in Softermax (Stevens et al., arXiv 2103.09301)."""
    return _normalised(torch.exp2(-_gap(logits)), logits)


def polynomial(logits: Tensor) -> Tensor:
    """A second-degree polynomial on (-ln 2, 0] and shifts for exp, as in I-BERT (Kim et al., arXiv 2101.01321)."""
    gap = _gap(logits)
    shifts = torch.floor(gap.detach() / log(2))
    remainder = shifts * log(2) - gap
    return _normalised((0.3585 * (remainder + 1.353) ** 2 + 0.344) * torch.exp2(-shifts), logits)


def table(logits: Tensor) -> Tensor:
    """A table of 32 8-bit entries over 6.6 nats for exp, 0 beyond, as in IntAttention (Zhong et al., 2025)."""
    gap = _gap(logits)
    exact = torch.exp(-gap)
    step = _TABLE_RANGE / (_TABLE - 1)
    entries = torch.round(255 * torch.exp(-step * torch.round(gap.detach() / step))) / 255
    entries = entries * (gap.detach() <= _TABLE_RANGE)
    return _normalised(exact + (entries - exact).detach(), logits)


def sparsemax(logits: Tensor) -> Tensor:
    """Euclidean projection on the simplex (Martins and Astudillo, arXiv 1602.02068)."""
    shifted = -_gap(logits)
    ordered = shifted.sort(dim=-1, descending=True).values
    sums = ordered.cumsum(dim=-1)
    counts = torch.arange(1, logits.shape[-1] + 1, device=logits.device, dtype=logits.dtype)
    support = (1 + counts * ordered > sums).sum(dim=-1, keepdim=True)
    threshold = (sums.gather(-1, support - 1) - 1) / support
    return torch.relu(shifted - threshold)


def relu(logits: Tensor) -> Tensor:
    """Positive logits over their sum; a row without any is uniform over what is not masked."""
    scores = torch.relu(logits) * _seen(logits)
    total = scores.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, scores / total.clamp(min=1e-6), uniform(logits))


def uniform(logits: Tensor) -> Tensor:
    """The same for every key that is not masked: what is left of a model without attention's choice."""
    seen = _seen(logits)
    return seen / seen.sum(dim=-1, keepdim=True)


def use_softmax(model: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
    """Let all transformers' encoders in a model compute attention's probabilities by `function`."""
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.masking_utils import eager_mask

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float,
        dropout: float = 0.0,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        logits = torch.matmul(query * scaling, key.transpose(-2, -1))
        probabilities = function(logits if attention_mask is None else logits + attention_mask)
        dropped = nn.functional.dropout(probabilities, dropout, module.training)
        return torch.matmul(dropped, value).transpose(1, 2).contiguous(), probabilities

    name = f"benchmark_{function.__name__}"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, eager_mask)
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.set_attn_implementation(name)


SURROGATES: dict[str, Callable[[Tensor], Tensor]] = {
    "base-2 (Softermax)": base2,
    "polynomial exp (I-BERT)": polynomial,
    "32-entry table (IntAttention)": table,
    "sparsemax": sparsemax,
    "normalised ReLU": relu,
    "uniform (no attention)": uniform,
}


def _seen(logits: Tensor) -> Tensor:
    """1 for keys that are not masked, else 0."""
    return (_gap(logits.detach()) <= _MASK_GAP).to(logits.dtype)


def _gap(logits: Tensor) -> Tensor:
    """Row maximum minus logit, in nats, no more than tells what is masked."""
    return (logits.max(dim=-1, keepdim=True).values - logits).clamp(max=2 * _MASK_GAP)


def _normalised(scores: Tensor, logits: Tensor) -> Tensor:
    scores = scores * _seen(logits)
    return scores / scores.sum(dim=-1, keepdim=True)
