"""Trains a vision transformer on the 8 x 8 digits that come with scikit-learn.

Data: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998, CC BY 4.0. Needs scikit-learn. Run ``python -m examples.vit.train`` from the
    root of the repository.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from examples.layers import Heads
from examples.training import export, fit, save_evaluation, set_up

SIDE, PATCH = 8, 2
PATCHES = (SIDE // PATCH) ** 2
WIDTH, HEADS, HIDDEN, LAYERS, CLASSES = 32, 4, 128, 2, 10


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Heads(WIDTH, HEADS)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class DigitViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.place = nn.Parameter(torch.randn(1, PATCHES + 1, WIDTH) * 0.1)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], 1, WIDTH), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def main() -> None:
    folder = Path(__file__).parent
    rng = set_up(7)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    order = rng.permutation(len(images))
    test, train = order[:300], order[300:]
    model = DigitViT()

    def loss() -> Tensor:
        batch = rng.choice(train, 96)
        noise = rng.normal(0, 0.05, (96, 1, SIDE, SIDE)).astype(np.float32)
        image = torch.from_numpy(images[batch] + noise)
        return nn.functional.cross_entropy(model(image), torch.from_numpy(labels[batch]))

    fit(model, loss, steps=1500, rate=2e-3)
    export(model, (torch.from_numpy(images[test[:1]]),), ("image",), folder / "digits.onnx")
    with torch.no_grad():
        chosen = model(torch.from_numpy(images[test])).argmax(-1).numpy()
    print("accuracy on held-out digits:", float((chosen == labels[test]).mean()))
    save_evaluation(folder / "eval.npz", label=labels[test], image=images[test])


if __name__ == "__main__":
    main()
