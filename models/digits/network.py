"""The digits transformer in torch: the network that `train_digits.py` trains, and `retrain.py` retrains with HCCS."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10
SIDE = 8
PATCH = 2
GRID = SIDE // PATCH
TOKENS = GRID * GRID
WIDTH = 32
HEADS = 4
HEAD_WIDTH = WIDTH // HEADS
LAYERS = 2


class Attention(nn.Module):
    """Multi-head self-attention, either written out or through ``scaled_dot_product_attention``."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = False
        self.softmax: nn.Module | None = None  # what takes torch.softmax's place
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.reshape(-1, TOKENS, HEADS, HEAD_WIDTH).transpose(1, 2)

    def probabilities(self, tokens: Tensor) -> Tensor:
        """Return the attention probabilities ``[batch, heads, tokens, tokens]``."""
        query, key = self._heads(self.query(tokens)), self._heads(self.key(tokens))
        logits = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(HEAD_WIDTH)
        return torch.softmax(logits, dim=-1) if self.softmax is None else self.softmax(logits)

    def _mix(self, tokens: Tensor) -> Tensor:
        value = self._heads(self.value(tokens))
        if not self.fused:
            return torch.matmul(self.probabilities(tokens), value)
        query, key = self._heads(self.query(tokens)), self._heads(self.key(tokens))
        return functional.scaled_dot_product_attention(query, key, value)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[batch, tokens, width]`` to the same shape."""
        return self.output(self._mix(tokens).transpose(1, 2).reshape(-1, TOKENS, WIDTH))


class Block(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens ``[batch, tokens, width]`` to the same shape."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))


class DigitsTransformer(nn.Module):
    """Classifier of 8x8 images cut into sixteen 2x2 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(PATCH * PATCH, WIDTH)
        self.position = nn.Parameter(0.1 * torch.randn(TOKENS, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Return the embedded patches ``[batch, tokens, width]`` of pixels ``[batch, 64]``."""
        grid = pixels.reshape(-1, GRID, PATCH, GRID, PATCH).transpose(2, 3)
        return self.embed(grid.reshape(-1, TOKENS, PATCH * PATCH)) + self.position

    def forward(self, pixels: Tensor) -> Tensor:
        """Return class scores ``[batch, 10]`` of pixels ``[batch, 64]``."""
        tokens = self.tokens(pixels)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(dim=1))

    def set_fused(self, fused: bool) -> None:
        """Choose ``scaled_dot_product_attention`` (True) or attention written out (False) in every layer."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.fused = fused


def shift_images(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by -1, 0 or 1 pixel in each direction, filling with zeros.

    Parameters
    ----------
    pixels
        Images ``[batch, 64]``.
    generator
        Source of the random moves.

    Returns
    -------
    Tensor
        The moved images, in the same shape.
    """
    padded = functional.pad(pixels.reshape(-1, SIDE, SIDE), (1, 1, 1, 1))
    corner = torch.randint(0, 3, (2, len(pixels), 1), generator=generator)
    rows, columns = corner + torch.arange(SIDE)
    image = torch.arange(len(pixels))[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].reshape(-1, SIDE * SIDE)
