"""What a re-spin to new weights changes: numbers, modules, cells and nets, masks, cost, time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hwcompile.compiler import pipeline, structural
from hwcompile.compiler.appraisal import appraise
from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate import nodes
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.ledger import Ledger, Quantity
from hwcompile.compiler.estimate.lora import LoraShape, record_lora
from hwcompile.compiler.estimate.scenario import DEFAULT, load_scenario
from hwcompile.compiler.estimate.service import record_service
from hwcompile.compiler.estimate.shape import Embedding
from hwcompile.compiler.estimate.silicon import record_silicon
from hwcompile.compiler.execute import open_design, port_options
from hwcompile.compiler.frontend.large import open_weights
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import Program
from hwcompile.compiler.names import label
from hwcompile.compiler.options import Options
from hwcompile.compiler.stages import Listener
from hwcompile.compiler.structural import ModuleChange
from hwcompile.passes.plan_chip import plan_chip

Masks = Literal["none", "via", "metal", "all"]

BLOCKS = "hw_matrix_"
"""Modules that hold weights."""

RULES: Mapping[Masks, str] = {
    "none": "no netlist differs: no mask changes",
    "via": "the weights are in vias",
    "metal": "every netlist that differs has the same cells: only connections, thus metal, change",
    "all": "cells differ: all masks change, unless spare cells are placed and wired",
}


@dataclass(frozen=True, slots=True)
class LayerChange:
    """Constants of one operation. ``module``: its weight block, where it has one."""

    layer: str
    kind: str
    module: str
    constants: int
    changed: int


@dataclass(frozen=True, slots=True)
class Design:
    """One side: what it computes, its netlists by module, what the estimator knows of it."""

    name: str
    program: Program
    ports: Mapping[str, bool]
    netlists: Mapping[str, str]
    facts: DesignFacts


@dataclass(frozen=True, slots=True)
class Difference:
    """``weights_masks``: what the weight blocks alone change, the tables and constants of other
    units apart. ``quantities``: cost and time of the re-spin, and of the adapter if asked for;
    ``weights_quantities``: of a re-spin in which the weight blocks alone change."""

    old: str
    new: str
    layers: tuple[LayerChange, ...]
    modules: tuple[ModuleChange, ...]
    masks: Masks
    rule: str
    weights_masks: Masks
    quantities: tuple[Quantity, ...]
    weights_quantities: tuple[Quantity, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        content = dataclasses.asdict(self)
        for part in ("quantities", "weights_quantities"):
            content[part] = {
                q.pop("name"): {key: q[key] for key in ("unit", "low", "mid", "high", "formula")}
                for q in content[part]
            }
        return content


# --- the two sides --------------------------------------------------------------------------------


def read_design(path: Path, options: Options, listener: Listener | None = None) -> Design:
    """A bundle as it lies on disk, or a model, which is compiled up to its netlists."""
    if path.is_dir():
        design = open_design(path, options.liberty)
        folder = path / "netlist"
        netlists = {f.stem: f.read_text("utf-8") for f in sorted(folder.glob("*.v"))}
        facts = pipeline.read_report(path)["estimate"]["facts"]
        ports = port_options(design)
        return Design(path.name, design.program, ports, netlists, DesignFacts.from_json(facts))
    plain = replace(options, dry_run=True, verify="none")
    made = pipeline.compile_model(path, plain, listener).artefacts
    netlists = {
        name.removesuffix(".v"): text
        for name, text in made["silicon"].files.items()
        if name.endswith(".v")
    }
    ports = {"logits_port": options.logits_port, "cache_port": options.cache_port}
    return Design(path.stem, made["program"], ports, netlists, made["estimate"].facts)


def diff(
    old: str | Path, new: str | Path, options: Options | None = None, lora_rank: int | None = None
) -> Difference:
    """What a re-spin from ``old`` to ``new`` changes; bundles or models of one architecture.

    Raises:
        HwcompileError: UsageError when the architectures differ; see also ``compile_model``.
    """
    options = options or Options()
    sides = [read_design(Path(path), options) for path in (old, new)]
    return difference(sides[0], sides[1], options, lora_rank)


# --- the difference -------------------------------------------------------------------------------


def difference(old: Design, new: Design, options: Options, lora_rank: int | None) -> Difference:
    """Compare two designs of one architecture.

    Raises:
        UsageError: they are not of one architecture: their first operations that differ are named.
    """
    check_architecture(old.program, new.program)
    modules = _modules(old.netlists, new.netlists)
    masks = _masks(modules, new.facts)
    sizes = tuple(op.weight.shape for op in new.program.operations if isinstance(op, ir.Linear))
    quantities = _prices(new.facts, masks, options, lora_rank, sizes)
    layers = _layers(old, new)
    blocks = tuple(m for m in modules if m.module.startswith(BLOCKS))
    own = _masks(blocks, new.facts)
    apart = _prices(new.facts, own, options, None, sizes) if own not in (masks, "none") else ()
    return Difference(
        old.name, new.name, layers, modules, masks, RULES[masks], own, quantities, apart
    )


def check_architecture(old: Program, new: Program) -> None:
    """Raise UsageError unless both have the same operations on the same shapes."""
    first, second = ([_outline(op) for op in p.operations] for p in (old, new))
    if first == second:
        return
    pairs = zip(first, second, strict=False)
    where = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    said = [made[where] if where < len(made) else "nothing" for made in (first, second)]
    raise UsageError(
        f"these are not of one architecture: operation {where} is {said[0]}, then {said[1]}",
        "diff compares a model with its successor of the same shape, quantised the same way",
    )


def _outline(op: ir.Operation) -> str:
    sizes = [f"{name}{list(array.shape)}" for name, array in _arrays(op)]
    out = op.output
    return " ".join([type(op).__name__, f"to {out.rows}x{out.cols}", *sizes])


def _arrays(op: ir.Operation) -> list[tuple[str, np.ndarray[Any, Any]]]:
    named = [(f.name, getattr(op, f.name)) for f in dataclasses.fields(op)]
    return [(name, value) for name, value in named if isinstance(value, np.ndarray)]


def _layers(old: Design, new: Design) -> tuple[LayerChange, ...]:
    products = plan_chip(new.program, (), **new.ports).products
    blocks = {op.output.key: f"{BLOCKS}{number}" for number, op in enumerate(products)}
    found = []
    for before, after in zip(old.program.operations, new.program.operations, strict=True):
        pairs = list(zip(_arrays(before), _arrays(after), strict=True))
        if not pairs:
            continue
        found.append(
            LayerChange(
                after.origin or after.output.key,
                type(after).__name__,
                blocks.get(after.output.key, ""),
                sum(a.size for (_, a), _ in pairs),
                sum(int((a != b).sum()) for (_, a), (_, b) in pairs),
            )
        )
    return tuple(found)


def _modules(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[ModuleChange, ...]:
    found = []
    for name in dict.fromkeys((*old, *new)):
        if name in old and name in new:
            found.append(structural.compare(name, old[name], new[name]))
        else:
            is_new = name in new
            found.append(structural.only(name, (new if is_new else old)[name], is_new))
    return tuple(found)


def _masks(modules: tuple[ModuleChange, ...], facts: DesignFacts) -> Masks:
    kinds = [m.change for m in modules]
    if all(kind == "same" for kind in kinds):
        return "none"
    if facts.respin_scope != "all":
        return facts.respin_scope
    return "all" if "cells" in kinds else "metal"


# --- models without a netlist ---------------------------------------------------------------------


def large_difference(
    old: Path,
    new: Path,
    options: Options,
    embedding: Embedding,
    node_nm: float | None,
    lora_rank: int | None,
) -> Difference:
    """Compare two model files of any size, weight by weight in blocks; there are no netlists.

    Raises:
        UsageError: their weights differ in name or shape.
    """
    layers = tuple(_streamed(old, new))
    made = appraise(new, options, embedding, None, node_nm)
    masks: Masks = made.facts.respin_scope if any(x.changed for x in layers) else "none"
    rule = RULES[masks] if masks != "all" else "weights as logic: cells differ, all masks change"
    sizes = tuple((m.inputs, m.outputs) for m in made.shape.matrices for _ in range(m.copies))
    quantities = _prices(made.facts, masks, options, lora_rank, sizes)
    return Difference(old.stem, new.stem, layers, (), masks, rule, masks, quantities, ())


def _streamed(old: Path, new: Path) -> Iterator[LayerChange]:
    for before, after in zip_longest(open_weights(old), open_weights(new)):
        if before is None or after is None or before.shape != after.shape:
            said = (after or before).name
            raise UsageError(
                f"these are not of one architecture: the weights part at {label(said)}",
                "diff compares a model with its successor of the same shape",
            )
        pairs = zip(before.blocks(), after.blocks(), strict=True)
        changed = sum(int((a != b).sum()) for a, b in pairs)
        yield LayerChange(label(after.name), "weights", "", after.elements, changed)


# --- its price ------------------------------------------------------------------------------------


def _prices(
    facts: DesignFacts,
    masks: Masks,
    options: Options,
    rank: int | None,
    matrices: tuple[tuple[int, ...], ...],
) -> tuple[Quantity, ...]:
    tables = pipeline.tables(options)
    node = nodes.nearest(tables["nodes"], facts.node_nm)
    ledger = Ledger()
    facts = facts if masks == "none" else replace(facts, respin_scope=masks)
    record_silicon(ledger, facts, tables, node)
    record_service(ledger, facts, load_scenario(options.scenario or DEFAULT), tables)
    wanted = [] if masks == "none" else ["nre.variable_masks_usd", "nre.respin_usd"]
    wanted += [] if masks == "none" else ["nre.respin_weeks"]
    wanted.append("nre.total_usd")
    if rank is not None:
        record_lora(ledger, LoraShape(rank, matrices), tables)
        wanted += [q.name for q in ledger if q.name.startswith("lora.")]
    return tuple(ledger[name] for name in wanted)
