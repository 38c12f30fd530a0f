"""Trains the date converter: an encoder-decoder that writes dates in ISO form.

    mar 5, 1987  ->  1987-03-05

All data is made here. Run ``python -m examples.dates.train`` from the root of the repository.
"""

from __future__ import annotations

import calendar
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from examples.layers import Heads, future
from examples.training import END, PADDING, START, fit, save_evaluation, save_vocabulary, set_up
from examples.training import export as export_onnx

SOURCE_LENGTH, TARGET_LENGTH = 12, 11
WIDTH, HEADS, HIDDEN, LAYERS = 32, 4, 64, 2
MONTHS = [m.lower() for m in calendar.month_abbr[1:]]
SYMBOLS = [PADDING, START, END, *"0123456789-/., ", *sorted(set("".join(MONTHS)))]


def encode(text: str, length: int) -> list[int]:
    ids = [SYMBOLS.index(c) for c in text]
    return ids + [0] * (length - len(ids))


def written(year: int, month: int, day: int, form: int) -> str:
    """One of the forms people write dates in."""
    name = MONTHS[month - 1]
    return (
        f"{name} {day}, {year}",
        f"{day} {name} {year}",
        f"{day}.{month}.{year}",
        f"{month}/{day}/{year}",
        f"{day}.{month}.{year % 100:02}",
        f"{year}/{month:02}/{day:02}",
    )[form]


def pairs(rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Source ids ``[count, 12]`` and target ids with start and end ``[count, 12]``."""
    sources, targets = [], []
    for _ in range(count):
        year, month = int(rng.integers(1950, 2050)), int(rng.integers(1, 13))
        day = int(rng.integers(1, calendar.monthrange(year, month)[1] + 1))
        sources.append(encode(written(year, month, day, int(rng.integers(6))), SOURCE_LENGTH))
        iso = encode(f"{year}-{month:02}-{day:02}", 10)
        targets.append([SYMBOLS.index(START), *iso, SYMBOLS.index(END)])
    return np.array(sources), np.array(targets)


class EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Heads(WIDTH, HEADS)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, hidden)
        return x + self.down(self.up(self.norm2(x)).relu())


class DecoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.norm3 = nn.LayerNorm(WIDTH)
        self.attention, self.cross = Heads(WIDTH, HEADS), Heads(WIDTH, HEADS)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor, memory: Tensor, later: Tensor, hidden: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, later)
        x = x + self.cross(self.norm2(x), memory, hidden)
        return x + self.down(self.up(self.norm3(x)).relu())


class Dates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = (nn.Embedding(len(SYMBOLS), WIDTH) for _ in range(2))
        self.source_place = nn.Parameter(torch.randn(SOURCE_LENGTH, WIDTH) * 0.1)
        self.target_place = nn.Parameter(torch.randn(TARGET_LENGTH, WIDTH) * 0.1)
        self.encoder = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.decoder = nn.ModuleList(DecoderLayer() for _ in range(LAYERS))
        self.source_norm, self.target_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, len(SYMBOLS))
        self.register_buffer("later", future(TARGET_LENGTH), persistent=False)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        hidden = ~(src != 0)[:, None, None, :]
        memory = self.source(src) + self.source_place
        for layer in self.encoder:
            memory = layer(memory, hidden)
        memory = self.source_norm(memory)
        x = self.target(tgt) + self.target_place
        for layer in self.decoder:
            x = layer(x, memory, self.later, hidden)
        return self.head(self.target_norm(x))


def main() -> None:
    folder = Path(__file__).parent
    rng = set_up(1)
    model = Dates()

    def loss() -> Tensor:
        source, target = (torch.from_numpy(a) for a in pairs(rng, 128))
        logits = model(source, target[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())

    fit(model, loss, steps=5000)
    source, target = pairs(np.random.default_rng(2), 300)
    export_onnx(
        model,
        (torch.from_numpy(source[:1]), torch.from_numpy(target[:1, :-1])),
        ("src", "tgt"),
        folder / "dates.onnx",
    )
    with torch.no_grad():
        chosen = model(torch.from_numpy(source), torch.from_numpy(target[:, :-1])).argmax(-1)
    print("exact match:", float((chosen.numpy() == target[:, 1:]).all(1).mean()))
    save_evaluation(folder / "eval.npz", label=target[:, 1:], src=source, tgt=target[:, :-1])
    save_vocabulary(folder / "vocab.json", SYMBOLS)


if __name__ == "__main__":
    main()
