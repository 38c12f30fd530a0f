"""The estimate of a model without a netlist: from shape and statistics to the price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hwcompile.compiler import pipeline
from hwcompile.compiler.emit.report import LayerZeros, ReportInputs, build_report
from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.estimate import Estimate, estimate
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.scenario import DEFAULT, load_scenario
from hwcompile.compiler.estimate.shape import (
    Embedding,
    MatrixArea,
    ModelShape,
    choose_plan,
    embedded_facts,
    logic_facts,
    matrix_areas,
)
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.compiler.large_model import read_shape
from hwcompile.compiler.options import Options

AUTO_BITS = 8
"""Bits of float weights and of activations where the user names none."""


@dataclass(frozen=True, slots=True)
class Appraisal:
    """What was found. ``areas``: cells of each matrix, empty where weights are no logic."""

    shape: ModelShape
    facts: DesignFacts
    areas: tuple[MatrixArea, ...]
    estimate: Estimate

    def report(self) -> dict[str, Any]:
        """The document of ``report.json``, as far as it is known without a netlist."""
        zeros = tuple(LayerZeros(m.name, m.weights, m.zeros) for m in self.shape.matrices)
        how = {
            "logic": "weights as logic, areas by the cost model of weight blocks",
            "rom": "weights in mask ROM, priced by what was published of such a chip",
            "metal": "weights in metal, priced by what was published of such a chip",
        }[self.facts.embedding]
        return build_report(
            ReportInputs(
                title=self.shape.name,
                kind=f"estimate without a netlist: {how}",
                estimate=self.estimate,
                zeros=zeros,
                assumptions=self.shape.assumed,
                limits=(
                    "nothing was compiled: no netlist, no timing, no verification",
                    "the clock is the target's goal; cycles follow the compiler's rules, not a "
                    "schedule",
                ),
            )
        )

    def layers(self) -> list[dict[str, Any]]:
        """Statistics of each matrix, and its cells where it is logic."""
        cells: Mapping[str, MatrixArea] = {area.name: area for area in self.areas}
        return [
            {
                "name": m.name,
                "inputs": m.inputs,
                "outputs": m.outputs,
                "copies": m.copies,
                "weights": m.weights,
                "zeros": m.zeros,
                "signed_digits": m.digits,
                "bits": m.bits,
                "cells_um2": asdict(cells[m.name].area) if m.name in cells else None,
            }
            for m in self.shape.matrices
        ]


def appraise(
    path: Path,
    options: Options,
    embedding: Embedding = "logic",
    context: int | None = None,
    node_nm: float | None = None,
) -> Appraisal:
    """Estimate a model file of any size in bounded memory.

    ``node_nm``: of a ROM or metal chip; weight logic is that of the target's cells.
    """
    shape = read_shape(path, weight_bits(options), context, pipeline.shapes(options))
    return appraise_shape(shape, options, embedding, node_nm)


def appraise_shape(
    shape: ModelShape,
    options: Options,
    embedding: Embedding,
    node_nm: float | None = None,
    bearable_defects: int | None = None,
) -> Appraisal:
    """Estimate a model of which shape and statistics are known.

    ``bearable_defects``: wrong weights that it was measured to bear.
    """
    target = load_target(options.target, Path(options.liberty) if options.liberty else None)
    tables = pipeline.tables(options)
    x_bits = AUTO_BITS if options.activations == "auto" else int(options.activations[3:])
    areas: tuple[MatrixArea, ...] = ()
    if embedding == "logic":
        if node_nm is not None:
            raise UsageError("--node is for weights in ROM or metal", "name a --target")
        plan = choose_plan(shape, options.style, x_bits)
        areas = matrix_areas(shape, plan, target)
        facts = logic_facts(shape, plan, target, areas)
    else:
        bits = sum(m.bits * m.weights for m in shape.matrices) / shape.weights
        node = target.value("node_nm") if node_nm is None else node_nm
        facts = embedded_facts(shape, embedding, bits, x_bits, node, tables["embedding"])
    facts = replace(facts, bearable_defects=bearable_defects)
    found = estimate(facts, load_scenario(options.scenario or DEFAULT), tables)
    return Appraisal(shape, facts, areas, found)


def weight_bits(options: Options) -> int:
    """Bits that float weights are given: ``int4`` is 4, ternary 2, ``auto`` 8."""
    if options.weights == "auto":
        return AUTO_BITS
    return 2 if options.weights == "ternary" else int(options.weights.removeprefix("int"))
