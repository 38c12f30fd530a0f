"""Ankhdjet's estimator and ours on the same ternary models and nodes.

    python -m benchmarks.ankhdjet [MODEL.onnx ...]

Ankhdjet (PyPI ``ankhdjet``, Apache-2.0) puts ternary weights into mask-programmed NOR arrays. It is
an optional peer: where it is not installed its columns say n/a. Both are given the same matrices.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.synthetic_llama import SPECS, Spec, shape_of
from hwcompile.compiler.appraisal import appraise_shape
from hwcompile.compiler.estimate.explain import number
from hwcompile.compiler.estimate.shape import ModelShape
from hwcompile.compiler.large_model import read_shape
from hwcompile.compiler.options import Options

OUT = Path("docs/results/ankhdjet.md")
TERNARY_BITS = 2
NODES = (("sky130_v4", 130.0, "sky130hd"), ("asap7", 7.0, None))
BITNET = Spec("bitnet-0.7b", 24, 1536, 16, 16, 96, 4096, 32_002, context=1024)
EXPLAINED = """\
* Ankhdjet's cell is one transistor of a NOR array and its area a digit; ours in ROM are two bits of
  a ROM macro, multipliers beside them as in HC1, and a fill. Both are models, neither is a layout
  of this model.
* Ours as logic drops the zeros and folds columns into shared trees; a ROM array keeps a place for
  every zero.
* Ankhdjet counts keys and values at its SRAM cell; ours at the node's SRAM bit over an efficiency
  of the array, and adds tables, data memory and, for ROM, the embedding.
* Its rate is that of layers in lock step (every layer's array works at once); ours as logic is
  one operation at a time, as this compiler builds it; ours in ROM is HC1's published pace.
* Ankhdjet gives no price, no yield and no range of the area; its range of the rate is that of the
  clock skew."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model at one node: mm2 and tokens a second of each estimate, as text."""

    model: str
    node: str
    peer: tuple[str, str]
    rom: tuple[str, str]
    logic: tuple[str, str]


def peer(shape: ModelShape, pdk_name: str) -> tuple[str, str]:
    """Ankhdjet's area and rate."""
    try:
        area_model: Any = importlib.import_module("ankhdjet.estimate.area_model")
        calibration: Any = importlib.import_module("ankhdjet.estimate.throughput_calibration")
        graph: Any = importlib.import_module("ankhdjet.frontend.ir")
        hf: Any = importlib.import_module("ankhdjet.frontend.hf")
        verilog: Any = importlib.import_module("ankhdjet.backend.verilog")
        pdks: Any = importlib.import_module("ankhdjet.pdks")
    except ImportError:
        return "n/a", "n/a"
    layers = [
        graph.Layer(
            name=m.name,
            layer_type=graph.LayerType.LINEAR,
            weights={"weight": hf._zero_weight()},
            input_dim=m.inputs,
            output_dim=m.outputs,
        )
        for m in shape.matrices
    ]
    model = graph.ModelIR(name=shape.name, layers=layers)
    pdk, known = pdks.discover_pdks()[pdk_name], calibration.load_calibrated()
    config = verilog.PipelineConfig(k_bits=8, tile_cols=64, pipelined=True, readout="digital")
    attention = shape.attention[0]
    found = [
        area_model.estimate_pipeline(
            model,
            config,
            calibration.apply_bracket(pdk, known, bracket),
            kv_context_tokens=shape.context,
            kv_bytes_per_token=sum(2 * a.kv_width for a in shape.attention),
            tile_cols=64,
            pipelined=True,
            head_dim=attention.head_size,
            n_heads=attention.heads,
            n_transformer_blocks=shape.layers,
        )
        for bracket in ("low", "mid", "high")
    ]
    rates = sorted(r.tokens_per_second for r in found)
    return number(found[1].total_mm2, 3), span(rates)


def ours(shape: ModelShape, node_nm: float, target: str | None) -> list[tuple[str, str]]:
    """Our area of the core and rate for one user: in ROM, and as folded logic."""
    options = Options(weights="ternary", target=target or "nangate45")
    rom = appraise_shape(shape, options, "rom", node_nm).estimate.by_name()
    logic = appraise_shape(shape, options, "logic").estimate
    rate = "performance.per_user_rate"
    answers = [(ranged(rom["area.core_mm2"]), span([rom[rate].low, rom[rate].mid, rom[rate].high]))]
    if target is None:
        key = f"{node_nm:g}"
        die = next(p.die_mm2 for p in logic.sweep if p.node_nm == key)
        return [*answers, (f"{number(die, 3)} (die, projected from 45 nm)", "not estimated")]
    n = logic.by_name()
    return [*answers, (ranged(n["area.core_mm2"]), span([n[rate].low, n[rate].mid, n[rate].high]))]


def ranged(quantity: Any) -> str:
    """``mid (low to high)``."""
    low, mid, high = (number(v, 3) for v in (quantity.low, quantity.mid, quantity.high))
    return f"{mid} ({low} to {high})"


def span(values: Sequence[float]) -> str:
    """The middle of three, with the outer ones."""
    low, mid, high = (number(v, 3) for v in values)
    return f"{mid} ({low} to {high})"


def rows(shapes: Sequence[ModelShape]) -> list[Row]:
    return [
        Row(shape.name, f"{node_nm:g} nm", peer(shape, pdk), *ours(shape, node_nm, target))
        for shape in shapes
        for pdk, node_nm, target in NODES
    ]


def report(found: Sequence[Row]) -> str:
    try:
        installed = f"ankhdjet {version('ankhdjet')}"
    except PackageNotFoundError:
        installed = "ankhdjet is not installed"
    lines = [
        "# Ankhdjet's estimator beside ours",
        "",
        f"Written by `python -m benchmarks.ankhdjet` ({installed}). Area in mm², rate in tokens a "
        "second for one user. Ankhdjet: digital readout, 64 columns a tree, 8-bit activations.",
        "",
        "| model | node | Ankhdjet, area | ours, ROM | ours, logic folded | Ankhdjet, rate "
        "| ours, ROM | ours, logic |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.model} | {r.node} | {r.peer[0]} | {r.rom[0]} | {r.logic[0]} "
        f"| {r.peer[1]} | {r.rom[1]} | {r.logic[1]} |"
        for r in found
    ]
    return "\n".join([*lines, "", "Where they differ:", "", EXPLAINED, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    files = args.models or [Path("examples/ternary/ternary.onnx")]
    shapes = [read_shape(path, TERNARY_BITS, None, {}) for path in files]
    shapes += [shape_of(BITNET, TERNARY_BITS), shape_of(SPECS["llama-3.2-1b"], TERNARY_BITS, 1024)]
    text = report(rows(shapes))
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
