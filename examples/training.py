"""What the training scripts of the examples share: the loop and the export. Needs PyTorch.

pip install "hwcompile[train]"
python -m examples.dates.train
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PADDING = "<pad>"
START = "<start>"
END = "<end>"


def fit(
    model: nn.Module,
    loss: Callable[[], Tensor],
    steps: int,
    rate: float = 3e-3,
    decay: float = 0.01,
) -> None:
    """Adam with a short warm-up and a cosine to zero; ``loss`` draws its own batch."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.05)
    for step in range(steps):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            print(f"step {step} of {steps}: loss {value.item():.4f}", flush=True)


def count_weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def export(
    model: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    path: Path,
    outputs: Sequence[str] = ("logits",),
) -> None:
    """Write an ONNX file without a trace of the machine it was written on, and check it."""
    model.eval()
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        opset_version=18,
        input_names=list(inputs),
        output_names=list(outputs),
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)
    with torch.no_grad():
        made = model(*example)
    expected = made if isinstance(made, tuple) else (made,)
    feeds = {name: value.numpy() for name, value in zip(inputs, example, strict=True)}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for got, want in zip(session.run(None, feeds), expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=2e-4)
    print(f"{path.name}: {path.stat().st_size} bytes, {count_weights(model)} weights")


def _strip(proto: onnx.ModelProto) -> None:
    """Remove stack traces and other notes of the exporter."""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    proto.doc_string = proto.graph.doc_string = ""
    for item in [*proto.graph.node, *proto.graph.input, *proto.graph.output]:
        del item.metadata_props[:]
        item.doc_string = ""
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]


def save_evaluation(path: Path, label: NDArray[np.int64], **inputs: NDArray[np.generic]) -> None:
    """Write an evaluation set: the inputs by their ONNX names, and ``label``."""
    np.savez_compressed(path, label=label, **inputs)


def save_vocabulary(path: Path, symbols: Sequence[str]) -> None:
    """Write a vocabulary: a JSON list, index = token id."""
    path.write_text(json.dumps(list(symbols)) + "\n", encoding="utf-8")


def set_up(seed: int) -> np.random.Generator:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    return np.random.default_rng(seed)
