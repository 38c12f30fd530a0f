"""Trains a GPT whose matrices hold -1, 0 and +1 only, times one scale: logic of adders alone.

The text comes from the small grammar of ``examples.stories``. Run ``python -m
examples.ternary.train`` from the root of the repository.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from examples.layers import Heads, RMSNorm, future
from examples.stories import SYMBOLS, train_language_model

CONTEXT = 64
WIDTH, HEADS, HIDDEN, LAYERS = 32, 4, 128, 3


def ternary(weight: Tensor) -> Tensor:
    """The nearest of -s, 0, +s; s is the mean magnitude of the matrix."""
    scale = weight.abs().mean().clamp(min=1e-5)
    return (weight / scale).round().clamp(-1, 1) * scale


class TernaryLinear(nn.Linear):
    """A linear layer that trains real weights through their ternary rounding."""

    frozen = False

    def forward(self, x: Tensor) -> Tensor:
        if self.frozen:
            return nn.functional.linear(x, self.weight, self.bias)
        rounded = self.weight + (ternary(self.weight) - self.weight).detach()
        return nn.functional.linear(x, rounded, self.bias)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(WIDTH), RMSNorm(WIDTH)
        self.attention = Heads(WIDTH, HEADS, bias=False, linear=TernaryLinear)
        self.up = TernaryLinear(WIDTH, HIDDEN, bias=False)
        self.down = TernaryLinear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor, later: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, later)
        return x + self.down(self.up(self.norm2(x)).relu())


class TernaryGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(SYMBOLS), WIDTH)
        self.place = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.1)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = RMSNorm(WIDTH)
        self.head = TernaryLinear(WIDTH, len(SYMBOLS), bias=False)
        self.register_buffer("later", future(CONTEXT), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids) + self.place
        for block in self.blocks:
            x = block(x, self.later)
        return self.head(self.norm(x))

    def freeze(self) -> None:
        """Put the rounded weights in place of the real ones."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, TernaryLinear):
                    module.weight.copy_(ternary(module.weight))
                    module.frozen = True


def main() -> None:
    torch.manual_seed(4)
    model = TernaryGPT()
    path = Path(__file__).parent / "ternary.onnx"
    train_language_model(model, CONTEXT, path, steps=3000, finish=model.freeze)


if __name__ == "__main__":
    main()
