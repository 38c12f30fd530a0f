"""Trains the smallest example, a GPT of one layer, exported in the ``step`` form.

One token a call, with its position and fixed key and value caches. Small enough to simulate its
whole context in seconds.

The text comes from the small grammar of ``examples.stories``. Run ``python -m examples.tiny.train``
from the root of the repository.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from examples.layers import Heads, attention, future
from examples.stories import SYMBOLS, train_language_model
from examples.training import export

CONTEXT = 32
WIDTH, HEADS, HIDDEN = 16, 2, 64
SIZE = WIDTH // HEADS


class TinyGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(SYMBOLS), WIDTH)
        self.place = nn.Embedding(CONTEXT, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.heads = Heads(WIDTH, HEADS)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(SYMBOLS), bias=False)
        self.register_buffer("later", future(CONTEXT), persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids) + self.place.weight
        y = self.norm1(x)
        return self.finish(x + self.heads(y, y, self.later))

    def finish(self, x: Tensor) -> Tensor:
        x = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return self.head(self.norm(x))


class Step(nn.Module):
    """The same weights, one token a call."""

    def __init__(self, model: TinyGPT) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("places", torch.arange(CONTEXT), persistent=False)

    def forward(
        self, token: Tensor, position: Tensor, cache_k0: Tensor, cache_v0: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        m = self.model
        x = m.embedding(token) + m.place(position)
        y = m.norm1(x)
        q, k, v = (
            part(y).view(1, 1, HEADS, SIZE).transpose(1, 2)
            for part in (m.heads.q, m.heads.k, m.heads.v)
        )
        here = (self.places == position).float()[None, None, :, None]
        keys, values = cache_k0 * (1 - here) + k * here, cache_v0 * (1 - here) + v * here
        seen = (self.places <= position)[None, :]
        mixed = attention(q, keys, values, ~seen)
        x = x + m.heads.o(mixed.transpose(1, 2).reshape(1, 1, WIDTH))
        return m.finish(x), keys, values


def main() -> None:
    torch.manual_seed(8)
    model = TinyGPT()
    folder = Path(__file__).parent
    path = folder / "tiny.onnx"
    train_language_model(model, CONTEXT, path, steps=2500)
    keys, values = torch.randn(2, 1, HEADS, CONTEXT, SIZE).unbind()
    names = ("token", "position", "cache_k0", "cache_v0")
    token, position = torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    example = (token, position, keys.clone(), values.clone())
    export(Step(model), example, names, path, outputs=("logits", "cache_k0_out", "cache_v0_out"))
    with np.load(folder / "eval.npz") as data:
        arrays = {"token": data["input_ids"], "label": data["label"]}
    np.savez_compressed(folder / "eval.npz", **arrays)


if __name__ == "__main__":
    main()
