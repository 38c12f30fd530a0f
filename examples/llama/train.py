"""Trains a character model of the Llama kind: RMSNorm, rotary positions, SwiGLU, grouped queries.

The text comes from the small grammar of ``examples.stories``. Run ``python -m
examples.llama.train`` from the root of the repository.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from examples.layers import Heads, RMSNorm, future, rotary_tables
from examples.stories import SYMBOLS, train_language_model

CONTEXT = 64
WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS = 32, 4, 2, 88, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(WIDTH), RMSNorm(WIDTH)
        self.attention = Heads(WIDTH, HEADS, KV_HEADS, bias=False)
        self.gate, self.up = (nn.Linear(WIDTH, HIDDEN, bias=False) for _ in range(2))
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: Tensor, later: Tensor, rotate: tuple[Tensor, Tensor]) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, later, rotate)
        y = self.norm2(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(SYMBOLS), WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(SYMBOLS), bias=False)
        cosine, sine = rotary_tables(CONTEXT, WIDTH // HEADS)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.register_buffer("later", future(CONTEXT), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for block in self.blocks:
            x = block(x, self.later, (self.cosine, self.sine))
        return self.head(self.norm(x))


def main() -> None:
    torch.manual_seed(3)
    train_language_model(Llama(), CONTEXT, Path(__file__).parent / "llama.onnx", steps=2500)


if __name__ == "__main__":
    main()
