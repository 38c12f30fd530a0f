"""A small grammar of sentences, and the training of character models on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from examples.training import export, fit, save_evaluation, save_vocabulary, set_up

SYMBOLS = [*"\n ,.", *"abcdefghijklmnopqrstuvwxyz"]
PEOPLE = ["miller", "sailor", "baker", "queen", "farmer", "weaver", "shepherd", "fox", "child"]
QUALITIES = ["old", "young", "kind", "quiet", "proud", "small", "clever"]
PLACES = ["mill", "river", "market", "harbour", "forest", "garden", "bridge"]
THINGS = ["bread", "apples", "a lamp", "a letter", "fresh fish", "blue wool", "a silver key"]
ACTIONS = ["sold", "brought", "gave", "showed", "promised"]
MOVES = ["walked", "ran", "went home", "sailed", "came back"]
TIMES = ["in the morning", "at night", "in winter", "after the rain", "before noon"]


def sentence(rng: np.random.Generator) -> str:
    def one(words: list[str]) -> str:
        return words[int(rng.integers(len(words)))]

    def person() -> str:
        return f"the {one(QUALITIES)} {one(PEOPLE)}" if rng.random() < 0.6 else f"the {one(PEOPLE)}"

    match int(rng.integers(4)):
        case 0:
            return f"{person()} {one(ACTIONS)} {one(THINGS)} to {person()}.\n"
        case 1:
            return f"{one(TIMES)}, {person()} {one(MOVES)} past the {one(PLACES)}.\n"
        case 2:
            return f"{person()} {one(MOVES)} to the {one(PLACES)} {one(TIMES)}.\n"
        case _:
            return f"at the {one(PLACES)} {person()} found {one(THINGS)}.\n"


def text_ids(rng: np.random.Generator, length: int) -> np.ndarray:
    """A run of sentences as ``length`` token ids."""
    place = {symbol: i for i, symbol in enumerate(SYMBOLS)}
    parts: list[int] = []
    while len(parts) < length:
        parts += [place[c] for c in sentence(rng)]
    return np.array(parts[:length], np.int64)


def windows(rng: np.random.Generator, text: np.ndarray, context: int, count: int) -> np.ndarray:
    starts = rng.integers(0, len(text) - context - 1, count)
    return text[starts[:, None] + np.arange(context + 1)[None, :]]


def train_language_model(
    model: nn.Module,
    context: int,
    path: Path,
    steps: int,
    finish: Callable[[], None] = lambda: None,
) -> None:
    """Train on sentences, export to ``path``; evaluation set and vocabulary go beside it."""
    rng = set_up(5)
    text = text_ids(rng, 400_000)

    def loss() -> Tensor:
        batch = torch.from_numpy(windows(rng, text, context, 48))
        logits = model(batch[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    fit(model, loss, steps)
    finish()
    held_out = text_ids(np.random.default_rng(6), 32 * (context + 1)).reshape(32, context + 1)
    with torch.no_grad():
        batch = torch.from_numpy(held_out)
        logits = model(batch[:, :-1])
        value = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    print(f"perplexity on held-out text: {math.exp(value.item()):.3f}")
    export(model, (torch.from_numpy(held_out[:1, :-1]),), ("input_ids",), path)
    save_evaluation(path.parent / "eval.npz", label=held_out[:, 1:], input_ids=held_out[:, :-1])
    save_vocabulary(path.parent / "vocab.json", SYMBOLS)
