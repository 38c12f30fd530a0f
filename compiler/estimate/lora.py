"""A fine-tuned successor as a low-rank adapter beside the fixed weights, in memory.

``W + A B`` with ``A [n, r]``, ``B [r, m]`` (Hu et al., LoRA, 2021): the fixed matrix stays in
silicon, the adapter is loaded into SRAM. ``r`` multipliers work beside the matrix: A while the
input is loaded, B while the results leave, so that no cycle is added.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwcompile.compiler.estimate.figures import measured
from hwcompile.compiler.estimate.ledger import Ledger
from hwcompile.compiler.estimate.silicon import Tables, give_section

NAND2_PER_MULTIPLIER = 420.0
"""An 8 by 8 bit multiplier with its accumulator: 64 full adders, 24 flip-flops, about."""
BITS = 8


@dataclass(frozen=True, slots=True)
class LoraShape:
    """``rank`` of the adapter, and the matrices ``(inputs, outputs)`` that have one."""

    rank: int
    matrices: tuple[tuple[int, ...], ...]

    @property
    def weights(self) -> int:
        """Weights of all adapters."""
        return self.rank * sum(n + m for n, m in self.matrices)


def record_lora(ledger: Ledger, shape: LoraShape, tables: Tables) -> None:
    """Area and price of the adapter; :func:`record_silicon` and the service come first."""
    give_section(ledger, "adapter", tables["masks"], "adapter")
    source = "the matrices of this model"
    ledger.give("lora.weights", measured(shape.weights, "weights", source))
    ledger.give("lora.rank", measured(shape.rank, "multipliers", "as asked for"))
    efficiency = "embedding" if "embedding.memory_efficiency" in ledger else "geometry"
    ledger.derive(
        "lora.area_mm2",
        "mm2",
        f"(weights * {BITS} * sram_bit_um2 / memory_efficiency"
        f" + rank * {NAND2_PER_MULTIPLIER:g} * nand2_um2 / utilisation) / 1e6",
        "lora.weights",
        "node.sram_bit_um2",
        f"{efficiency}.memory_efficiency",
        "lora.rank",
        "node.nand2_um2",
        "geometry.utilisation",
        note="SRAM of the adapters, and as many multipliers as the rank",
    )
    ledger.derive(
        "lora.area_share",
        "share",
        "area_mm2 / core_mm2",
        "lora.area_mm2",
        "area.core_mm2",
        note="of the core without it",
    )
    ledger.derive(
        "lora.copy_usd",
        "USD/copy",
        "die_cost * dies * area_share",
        "die_cost=cost.die_usd",
        "area.dies",
        "lora.area_share",
        note="silicon of the adapter, on each copy, from the first chip on",
    )
    ledger.derive(
        "lora.fleet_usd",
        "USD",
        "copy_usd * chips / dies + work_usd",
        "lora.copy_usd",
        "fleet.chips",
        "area.dies",
        "adapter.work_usd",
        note="on the scenario's fleet, with the work on the adapter path",
    )
    ledger.derive(
        "lora.against_respin_usd",
        "USD",
        "respin_usd - fleet_usd",
        "nre.respin_usd",
        "lora.fleet_usd",
        note="what one successor saves as an adapter in place of a re-spin; days, not weeks",
    )
