"""Llama-shaped models of any size with weights that look like trained ones, streamed to disk.

    python -m benchmarks.synthetic_llama llama-3.1-8b -o llama.onnx     the file, 32 GB
    python -m benchmarks.synthetic_llama gpt-oss-120b --shape-only      its statistics, no file

Trained matrices are near normal with a heavier tail, and their columns differ in scale: here a
Student t of six degrees of freedom times a log-normal scale a column. The same name makes
the same bytes.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hwcompile.compiler.estimate.shape import AttentionShape, ModelShape, TableShape
from hwcompile.compiler.estimate.statistics import HALF, MatrixStatistics, float_histogram

FREEDOM, COLUMN_SPREAD = 6.0, 0.25
ROWS_AT_ONCE = 1 << 21
"""Elements that are made at a time."""
SAMPLE = (2048, 256)
"""Inputs and outputs of the sample that stands for a matrix in shape-only mode."""
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


@dataclass(frozen=True, slots=True)
class Spec:
    """A decoder in the shape of Llama; ``experts`` of which ``active`` serve a token."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    context: int = 128
    experts: int = 1
    active: int = 1

    def layer_matrices(self) -> dict[str, tuple[int, int]]:
        """Matrices of one layer by name: inputs and outputs, an expert's once."""
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        return {
            "q": (self.hidden, q),
            "k": (self.hidden, kv),
            "v": (self.hidden, kv),
            "o": (q, self.hidden),
            "gate": (self.hidden, self.intermediate),
            "up": (self.hidden, self.intermediate),
            "down": (self.intermediate, self.hidden),
        }

    @property
    def weights(self) -> int:
        """Weights in matrices, the output layer's included, embeddings not."""
        layer = sum(
            n * m * (self.experts if name in EXPERT else 1)
            for name, (n, m) in self.layer_matrices().items()
        )
        return self.layers * layer + self.hidden * self.vocabulary


EXPERT = ("gate", "up", "down")

SPECS = {
    spec.name: spec
    for spec in (
        Spec("toy", 2, 32, 4, 2, 8, 64, 64, 32),
        Spec("llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128_256),
        Spec("llama-3.2-3b", 28, 3072, 24, 8, 128, 8192, 128_256),
        Spec("llama-3.1-8b", 32, 4096, 32, 8, 128, 14_336, 128_256),
        Spec("llama-3.1-70b", 80, 8192, 64, 8, 128, 28_672, 128_256),
        Spec("gpt-oss-120b", 36, 2880, 64, 8, 64, 2880, 201_088, experts=128, active=4),
    )
}


# --- weights --------------------------------------------------------------------------------------


def weight_rows(name: str, inputs: int, outputs: int) -> Iterator[NDArray[np.float32]]:
    """A matrix ``[inputs, outputs]`` row by row, some rows at a time."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    scale = np.exp(COLUMN_SPREAD * rng.standard_normal(outputs, np.float32)) / np.sqrt(inputs)
    step = max(1, ROWS_AT_ONCE // outputs)
    for start in range(0, inputs, step):
        rows = min(step, inputs - start)
        normal = rng.standard_normal((rows, outputs), np.float32)
        # Chi-square over its freedom, drawn once a row and column rather than once an element.
        tail = rng.chisquare(FREEDOM, outputs).astype(np.float32) / np.float32(FREEDOM)
        spread = rng.chisquare(FREEDOM, (rows, 1)).astype(np.float32) / np.float32(FREEDOM)
        yield normal * scale / np.sqrt(np.float32(0.5) * (tail + spread))


def shape_of(spec: Spec, bits: int = 4, context: int | None = None) -> ModelShape:
    """The shape with statistics of sampled weights; nothing is written."""
    matrices: list[MatrixStatistics] = []
    sampled: dict[tuple[int, int], list[int]] = {}
    for layer in range(spec.layers):
        for name, (inputs, outputs) in spec.layer_matrices().items():
            copies = spec.experts if name in EXPERT else 1
            used = spec.active / spec.experts if name in EXPERT else 1.0
            size = (inputs, outputs)
            if size not in sampled:
                sampled[size] = _sample(name, *size, bits)
            matrices.append(
                _statistics(f"{layer}.{name}", *size, bits, sampled[size], copies, used)
            )
    size = (spec.hidden, spec.vocabulary)
    matrices.append(_statistics("head", *size, bits, _sample("head", *size, bits), 1, 1.0))
    return ModelShape(
        spec.name,
        "token",
        context or spec.context,
        spec.hidden,
        tuple(matrices),
        (AttentionShape(spec.heads, spec.head_size, spec.kv_heads * spec.head_size),) * spec.layers,
        (TableShape("embedding", spec.vocabulary, spec.hidden),),
        (2 * spec.layers + 1) * spec.hidden,
    )


def _sample(name: str, inputs: int, outputs: int, bits: int) -> list[int]:
    shape = (min(inputs, SAMPLE[0]), min(outputs, SAMPLE[1]))
    rows = np.concatenate(list(weight_rows(name, *shape)))
    return float_histogram(lambda: [rows.reshape(-1)], shape, 1, bits)


def _statistics(
    name: str, inputs: int, outputs: int, bits: int, counts: list[int], copies: int, used: float
) -> MatrixStatistics:
    """The sample's histogram, grown to the size of all copies."""
    wanted = inputs * outputs * copies
    grown = [count * wanted // sum(counts) for count in counts]
    grown[HALF] += wanted - sum(grown)
    return MatrixStatistics(name, inputs, outputs, bits, tuple(grown), copies, used)


# --- the file -------------------------------------------------------------------------------------


class Writer:
    """A graph whose large weights go to a data file beside it, as they are made."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.data = path.with_suffix(".data")
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.stream = self.data.open("wb")
        self.count = 0

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns its name."""
        self.count += 1
        output = f"v{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """A small initialiser, kept in the file itself."""
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, inputs: int, outputs: int) -> str:
        """A large one, streamed."""
        tensor = TensorProto(name=name, data_type=TYPES[self.dtype], dims=[inputs, outputs])
        start = self.stream.tell()
        for rows in weight_rows(name, inputs, outputs):
            self.stream.write(rows.astype(self.dtype).tobytes())
        tensor.data_location = TensorProto.EXTERNAL
        about = {"location": self.data.name, "offset": start, "length": self.stream.tell() - start}
        for key, value in about.items():
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name


def write(spec: Spec, path: Path, dtype: str = "float32") -> None:
    """The model as ONNX: ``input_ids`` [1, context] to ``logits`` [1, context, vocabulary]."""
    w = Writer(path, dtype)
    kind = TYPES[dtype]
    x = w.node("Gather", w.weight("embedding", spec.vocabulary, spec.hidden), "input_ids", axis=0)
    positions = np.arange(spec.context)[:, None]
    turns = positions / 500_000.0 ** (np.arange(0, spec.head_size, 2) / spec.head_size)
    turns = np.concatenate([turns, turns], axis=1)
    w.constant("cosines", np.cos(turns).astype(dtype))
    w.constant("sines", np.sin(turns).astype(dtype))
    future = np.triu(np.ones((spec.context, spec.context)), 1) * -1e4
    w.constant("mask", future.astype(dtype))
    w.constant("root", np.array(spec.head_size**-0.5, dtype))
    w.constant("epsilon", np.array(1e-5, dtype))
    w.constant("two", np.array(2, dtype))
    w.constant("merged", np.array([1, spec.context, spec.heads * spec.head_size]))
    for heads in {spec.heads: None, spec.kv_heads: None}:
        w.constant(f"split{heads}", np.array([1, spec.context, heads, spec.head_size]))
    group = spec.heads // spec.kv_heads
    w.constant(
        "repeated", np.array([1, spec.kv_heads, group, spec.context, spec.head_size], np.int64)
    )
    w.constant("joined", np.array([1, spec.heads, spec.context, spec.head_size], np.int64))
    w.constant("two_axis", np.array([2], np.int64))
    half = spec.head_size // 2
    for name, value in (("zero", 0), ("half", half), ("full", spec.head_size), ("last", 3)):
        w.constant(name, np.array([value], np.int64))
    for layer in range(spec.layers):
        x = _layer(w, spec, layer, x)
    x = _norm(w, spec, "final", x)
    logits = w.node("MatMul", x, w.weight("head", spec.hidden, spec.vocabulary))
    w.nodes[-1].output[0] = logits = "logits"
    w.stream.close()
    shape = [1, spec.context]
    graph = helper.make_graph(
        w.nodes,
        spec.name,
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape)],
        [helper.make_tensor_value_info(logits, kind, [*shape, spec.vocabulary])],
        w.initializers,
    )
    opset = [helper.make_opsetid("", 17)]
    model: Any = helper.make_model(graph, opset_imports=opset)
    path.write_bytes(model.SerializeToString())


def _norm(w: Writer, spec: Spec, name: str, x: str) -> str:
    mean = w.node("ReduceMean", w.node("Pow", x, "two"), axes=[-1], keepdims=1)
    root = w.node("Sqrt", w.node("Add", mean, "epsilon"))
    gains = w.constant(f"{name}.gain", np.ones(spec.hidden, w.dtype))
    return w.node("Mul", w.node("Div", x, root), gains)


def _layer(w: Writer, spec: Spec, layer: int, x: str) -> str:
    def times(value: str, name: str) -> str:
        return w.node("MatMul", value, w.weight(f"{layer}.{name}", *spec.layer_matrices()[name]))

    def heads(value: str, count: int) -> str:
        return w.node("Transpose", w.node("Reshape", value, f"split{count}"), perm=[0, 2, 1, 3])

    def rotated(value: str) -> str:
        low = w.node("Slice", value, "zero", "half", "last")
        high = w.node("Slice", value, "half", "full", "last")
        turned = w.node("Concat", w.node("Neg", high), low, axis=-1)
        return w.node("Add", w.node("Mul", value, "cosines"), w.node("Mul", turned, "sines"))

    def repeated(value: str) -> str:
        wide = w.node("Expand", w.node("Unsqueeze", value, "two_axis"), "repeated")
        return w.node("Reshape", wide, "joined")

    normed = _norm(w, spec, f"{layer}.attention", x)
    q = rotated(heads(times(normed, "q"), spec.heads))
    k = repeated(rotated(heads(times(normed, "k"), spec.kv_heads)))
    v = repeated(heads(times(normed, "v"), spec.kv_heads))
    scores = w.node("Mul", w.node("MatMul", q, w.node("Transpose", k, perm=[0, 1, 3, 2])), "root")
    chances = w.node("Softmax", w.node("Add", scores, "mask"), axis=-1)
    mixed = w.node("Transpose", w.node("MatMul", chances, v), perm=[0, 2, 1, 3])
    x = w.node("Add", x, times(w.node("Reshape", mixed, "merged"), "o"))
    normed = _norm(w, spec, f"{layer}.feed", x)
    gate = times(normed, "gate")
    gated = w.node("Mul", w.node("Mul", gate, w.node("Sigmoid", gate)), times(normed, "up"))
    return w.node("Add", x, times(gated, "down"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", choices=SPECS)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--layers", type=int, help="fewer or more layers than the original")
    parser.add_argument("--dtype", choices=TYPES, default="float32")
    parser.add_argument("--shape-only", action="store_true", help="statistics, no file")
    parser.add_argument("--bits", type=int, default=4)
    args = parser.parse_args()
    spec = SPECS[args.spec]
    if args.layers:
        spec = replace(spec, layers=args.layers)
    if args.shape_only or args.output is None:
        shape = shape_of(spec, args.bits)
        zeros = sum(m.zeros for m in shape.matrices) / shape.weights
        digits = sum(m.digits for m in shape.matrices) / shape.weights
        print(f"{spec.name}: {shape.weights:,} weights in {len(shape.matrices)} matrices")
        print(f"{args.bits} bits: {zeros:.1%} zeros, {digits:.3f} signed digits a weight")
        return
    write(spec, args.output, args.dtype)
    size = args.output.with_suffix(".data").stat().st_size
    print(f"{args.output}: {spec.weights:,} weights in matrices, {size / 1e9:.2f} GB of data")


if __name__ == "__main__":
    main()
