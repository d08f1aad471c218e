"""`torch.nn.MultiheadAttention` with HCCS."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hccs_onnx.errors import ModelError
from hccs_onnx.torch.module import HCCSSoftmax


class HCCSMultiheadAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` whose Softmax is the module `hccs`; made by `use`."""

    hccs: HCCSSoftmax

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As that of `torch.nn.MultiheadAttention`, masks included: True, or added -inf, hides a key.

        Masks of other types are refused, there as here. `is_causal` alone is no mask, there as here; it is a hint about
        `attn_mask`.

        Raises
        ------
        ModelError
            If `is_causal` is given without the mask, or a mask is neither bool nor float.
        """
        if is_causal and attn_mask is None:
            raise ModelError("MultiheadAttention", "is_causal needs attn_mask", remedy="Give both")
        single = query.dim() == 2
        if single:
            query, key, value = query[None], key[None], value[None]
        elif not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        q, k, v = (self._split(tensor) for tensor in self._project(query, key, value))
        logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))
        if attn_mask is not None:
            batched = attn_mask.dim() == 3
            logits = _hide(logits, attn_mask.unflatten(0, (-1, self.num_heads)) if batched else attn_mask, "attn_mask")
        if key_padding_mask is not None:
            padding = key_padding_mask.reshape(-1, 1, 1, key_padding_mask.shape[-1])
            logits = _hide(logits, padding, "key_padding_mask")
        weights = self.hccs(logits, overwrite=True)
        dropped = functional.dropout(weights, self.dropout, self.training)
        output = self.out_proj(torch.matmul(dropped, v).transpose(1, 2).flatten(2))
        if single:
            output, weights = output[0], weights[0]
        elif not self.batch_first:
            output = output.transpose(0, 1)
        if not need_weights:
            return output, None
        return output, weights.mean(dim=-3) if average_attn_weights else weights

    def _project(self, *inputs: Tensor) -> list[Tensor]:
        """Queries, keys and values, shape (batch, n, width)."""
        packed = self.in_proj_weight
        own = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = own if packed is None else packed.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return [functional.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]

    def _split(self, x: Tensor) -> Tensor:
        """(batch, n, width) to (batch, head, n, depth)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


def is_attention(module: nn.Module) -> bool:
    """Whether a module is torch's attention itself, not one derived from it, or has been made ours."""
    return type(module) in (nn.MultiheadAttention, HCCSMultiheadAttention)


def check(module: nn.Module) -> None:
    """Refuse attention that `use` cannot turn into ours.

    Raises
    ------
    ModelError
        If it has keys and values of its own (`add_bias_kv`, `add_zero_attn`).
    """
    if module.bias_k is not None or module.bias_v is not None or module.add_zero_attn:
        problem = "add_bias_kv and add_zero_attn are not supported"
        raise ModelError("MultiheadAttention", problem, remedy="Put HCCSSoftmax into its forward by hand")


def use(model: nn.Module, modules: list[tuple[nn.Module, HCCSSoftmax]]) -> None:
    """Turn attention modules of `model` into ours, and fused paths around them off; parameters stay the same."""
    for module, softmax in modules:
        module.__class__ = HCCSMultiheadAttention
        module._qkv_same_embed_dim = False  # what TransformerEncoderLayer asks before it calls a fused kernel instead
        module.hccs = softmax
    for module in model.modules() if modules else ():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _hide(logits: Tensor, mask: Tensor, name: str) -> Tensor:
    """Logits with a mask that is added if float; if bool, True where a key is hidden."""
    if mask.dtype == torch.bool:
        return logits.masked_fill(mask, -torch.inf)
    if mask.is_floating_point():
        return logits + mask
    raise ModelError("MultiheadAttention", f"{name} is neither bool nor float", found=mask.dtype)
