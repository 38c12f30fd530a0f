"""The layers that the example models are made of, in PyTorch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def attention(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
    """Softmax attention ``[batch, heads, rows, size]``; keys that are ``hidden`` are not seen."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(-1) @ v


def future(rows: int) -> Tensor:
    """The causal mask: true above the diagonal."""
    return torch.ones(rows, rows, dtype=torch.bool).triu(1)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class Heads(nn.Module):
    """Multi-head attention; ``kv_heads`` below ``heads`` shares keys and values between heads."""

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        bias: bool = True,
        linear: type[nn.Linear] = nn.Linear,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.size = width // heads
        self.q = linear(width, width, bias=bias)
        self.k = linear(width, self.kv_heads * self.size, bias=bias)
        self.v = linear(width, self.kv_heads * self.size, bias=bias)
        self.o = linear(width, width, bias=bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        hidden: Tensor | None = None,
        rotate: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        batch, rows, width = x.shape
        q = self.q(x).view(batch, rows, self.heads, self.size).transpose(1, 2)
        keys = memory.shape[1]
        k = self.k(memory).view(batch, keys, self.kv_heads, self.size).transpose(1, 2)
        v = self.v(memory).view(batch, keys, self.kv_heads, self.size).transpose(1, 2)
        if rotate is not None:
            q, k = rotated(q, *rotate), rotated(k, *rotate)
        if self.kv_heads < self.heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, 1)
            v = v.repeat_interleave(self.heads // self.kv_heads, 1)
        mixed = attention(q, k, v, hidden)
        return self.o(mixed.transpose(1, 2).reshape(batch, rows, width))


def rotary_tables(rows: int, size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[rows, size / 2]`` of the rotary position."""
    rates = 10000.0 ** (-torch.arange(0, size, 2).float() / size)
    angles = torch.arange(rows).float()[:, None] * rates[None, :]
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)
