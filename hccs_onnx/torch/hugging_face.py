"""Attention of Hugging Face transformers with HCCS: an attention function of theirs, registered as ``hccs``."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from hccs_onnx.errors import ModelError
from hccs_onnx.torch.module import HCCSSoftmax

NAME = "hccs"
_INTERFACE = "ALL_ATTENTION_FUNCTIONS"
_CHOICE = "_attn_implementation"  # of a configuration: the name of the function
_NOT_KNOWN = ("softcap", "s_aux", "sinks", "position_bias", "head_mask")  # what changes logits or probabilities, too


def is_attention(module: nn.Module) -> bool:
    """Whether a module looks up its attention function in transformers' table."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and _INTERFACE in code.co_names


def head_count(module: nn.Module) -> int:
    """Number of query heads of an attention module; 1 if it does not tell."""
    for holder in (module, getattr(module, "config", None)):
        for name in ("num_attention_heads", "num_heads", "n_heads", "num_attention_head", "n_head"):
            if isinstance(value := getattr(holder, name, None), int):
                return value
    return 1


def use(model: nn.Module, modules: list[tuple[nn.Module, HCCSSoftmax]]) -> None:
    """Give attention modules of `model` their HCCS, and let them use it: all of them, or none.

    Parameters
    ----------
    model : torch.nn.Module
        Holds transformers models, or is one.
    modules : list of pairs
        Attention module and what takes Softmax's place in it.

    Raises
    ------
    ModelError
        If a part of the model cannot choose its attention function.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    configs = [part.config for part in model.modules() if hasattr(getattr(part, "config", None), _CHOICE)]
    before = [(config, getattr(config, _CHOICE)) for config in configs]
    try:
        _choose(model, [module for module, _ in modules])
    except Exception:
        for config, choice in before:  # outer ones come first: they set inner ones, too
            setattr(config, _CHOICE, choice)
        raise
    for module, softmax in modules:
        module.hccs = softmax


def _choose(model: nn.Module, modules: list[nn.Module]) -> None:
    from transformers import PreTrainedModel

    outermost: list[str] = []
    for name, part in model.named_modules():
        if isinstance(part, PreTrainedModel) and not any(name.startswith(outer) for outer in outermost):
            outermost.append(name and name + ".")
            part.set_attn_implementation(NAME)
    for module in modules:
        if getattr(getattr(module, "config", None), _CHOICE, None) != NAME:
            problem = "cannot choose its attention function"
            remedy = "Put HCCSSoftmax into its forward by hand"
            raise ModelError(type(module).__name__, problem, remedy=remedy)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as transformers' eager functions compute it, with the module's HCCS in Softmax's place if it has one.

    Parameters
    ----------
    module : torch.nn.Module
        Attention module that `use` has seen.
    query : Tensor, shape (batch, head, query, depth)
        Queries.
    key, value : Tensor, shape (batch, key head, key, depth)
        Keys and values; their heads divide the query's.
    attention_mask : Tensor, optional
        Added to the logits if float; if bool, True where a query may look.
    scaling : float, optional
        Of the logits; depth ** -0.5 by default.
    dropout : float
        Share of probabilities that are dropped in training.
    **options
        What else a model says; refused if it changes logits.

    Returns
    -------
    tuple of Tensor
        Output (batch, query, head, depth) and probabilities (batch, head, query, key).

    Raises
    ------
    ModelError
        If the module wants what this function cannot do.
    """
    softmax = getattr(module, "hccs", None)  # None in a float model that shares its configuration with a swapped one
    unknown = [name for name in _NOT_KNOWN if options.get(name) is not None]
    if unknown:
        remedy = "Put HCCSSoftmax into its forward by hand"
        raise ModelError(type(module).__name__, f"attention with {unknown[0]} is not supported", remedy=remedy)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    logits = torch.matmul(query * scale, key.transpose(-2, -1))
    if attention_mask is not None:
        logits = with_mask(logits, attention_mask)
    probabilities = torch.softmax(logits, dim=-1) if softmax is None else softmax(logits, overwrite=True)
    dropped = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    return torch.matmul(dropped, value).transpose(1, 2).contiguous(), probabilities


def with_mask(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits with a mask that is added if float; if bool, True where a query may look."""
    if mask.dtype == torch.bool:
        return logits.masked_fill(~mask, -torch.inf)
    return logits + mask
