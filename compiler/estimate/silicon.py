"""From the facts of a design to its die, clock, power, unit cost and NRE, entered in a ledger."""

from __future__ import annotations

from collections.abc import Mapping

from hwcompile.compiler.estimate import nodes
from hwcompile.compiler.estimate.die import RETICLE_MM2
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.figures import Figure, Table, measured
from hwcompile.compiler.estimate.ledger import Ledger

Tables = Mapping[str, Table]

DESIGN_LINES = ("architecture", "verification", "physical", "tools_ip")

_AREA_SOURCE = {
    "synthesised": "synthesis of this design onto the cells of {}",
    "modelled": "area model of this design in the cells of {}",
}


def record_silicon(ledger: Ledger, facts: DesignFacts, tables: Tables, node: str) -> None:
    """Everything about the chip itself, at the tabulated ``node``."""
    give_section(ledger, "node", tables["nodes"], node)
    give_section(ledger, "geometry", tables["geometry"])
    give_section(ledger, "links", tables["links"])
    if facts.embedding != "logic":
        give_section(ledger, "embedding", tables["embedding"], facts.embedding)
    _record_core(ledger, facts, tables["nodes"], node)
    _record_performance(ledger, facts)
    _record_die(ledger)
    _record_yield(ledger, facts)
    _record_power(ledger, facts, tables["energy"], node)
    _record_unit_cost(ledger, tables["packaging"])
    _record_nre(ledger, facts, tables, node)


def give_section(ledger: Ledger, group: str, table: Table, section: str = "") -> None:
    """Enter the figures of a table, or of one section of it, as ``group.name``."""
    prefix = f"{section}." if section else ""
    for key, figure in table.figures.items():
        if key.startswith(prefix):
            ledger.give(f"{group}.{key.removeprefix(prefix)}", figure)


def _record_core(ledger: Ledger, facts: DesignFacts, table: Table, node: str) -> None:
    source = _AREA_SOURCE[facts.area_basis].format(facts.library)
    origin = nodes.nearest(table, facts.node_nm)
    unsized = sum(m.bits for m in facts.memories if m.area_um2 is None and m.kind != "rom")
    rom = sum(m.bits for m in facts.memories if m.area_um2 is None and m.kind == "rom")
    sized = sum(m.area_um2 or 0.0 for m in facts.memories)
    spread = "model_spread" if facts.cell_range is None else "statistics_spread"
    spread = "synthesis_spread" if facts.area_basis == "synthesised" else spread
    ledger.give("design.cells_um2", _cells(facts, source))
    ledger.give("design.memories_um2", measured(sized, "um2", source))
    ledger.give("design.unsized_bits", measured(unsized, "bit", "the memories of this design"))
    ledger.give("design.io_signals", measured(facts.io_signals, "signals", "ports of this design"))
    ratio = _record_projection(ledger, table, origin) if origin != node else ()
    scaled = " * cell_ratio" if ratio else ""
    ledger.derive(
        "area.cells_mm2",
        "mm2",
        f"cells_um2 * spread{scaled} / 1e6",
        "design.cells_um2",
        f"spread=geometry.{spread}",
        *ratio,
    )
    embedded = facts.embedding != "logic"
    efficiency = "embedding" if embedded else "geometry"
    ledger.derive(
        "area.memory_mm2",
        "mm2",
        f"(memories_um2{scaled} + unsized_bits * sram_bit_um2 / memory_efficiency) / 1e6",
        "design.memories_um2",
        "design.unsized_bits",
        "node.sram_bit_um2",
        f"{efficiency}.memory_efficiency",
        *ratio,
        note="memories without a sized macro are taken as SRAM of this array efficiency",
    )
    _record_rom(ledger, facts, rom, f"{node}.rom_bit_um2" in table)
    parts = "cells_mm2 / utilisation + memory_mm2 + rom_mm2"
    inputs: tuple[str, ...] = (
        "area.cells_mm2",
        "geometry.utilisation",
        "area.memory_mm2",
        "area.rom_mm2",
    )
    if embedded:
        ledger.give(
            "design.logic_transistors",
            measured(facts.logic_transistors, "transistors", "published budget of such a chip"),
        )
        ledger.derive(
            "area.logic_mm2",
            "mm2",
            "logic_transistors / (mtr_per_mm2 * 1e6 * logic_utilisation)",
            "design.logic_transistors",
            "node.mtr_per_mm2",
            "embedding.logic_utilisation",
            note="multipliers, attention, vectors and control of the published machine",
        )
        parts = f"({parts} + logic_mm2) / fill"
        inputs = (*inputs, "area.logic_mm2", "embedding.fill")
    ledger.derive(
        "area.gates_mm2",
        "mm2",
        "cells_mm2 + logic_mm2" if embedded else "cells_mm2",
        "area.cells_mm2",
        *(("area.logic_mm2",) if embedded else ()),
        note="what is clocked and leaks as logic",
    )
    ledger.derive(
        "area.core_mm2",
        "mm2",
        parts,
        *inputs,
        note="fill: what stays empty between the macros of a large die" if embedded else "",
    )
    source = "memory interfaces given with the design"
    ledger.give("design.interface_mm2", measured(facts.interface_mm2, "mm2", source))
    ledger.derive(
        "area.link_mm2",
        "mm2",
        "2 * gbps / gbps_per_mm2",
        "links.gbps",
        "links.gbps_per_mm2",
        note="links of one die to two neighbours, where a model takes several dies",
    )
    ledger.derive(
        "area.dies",
        "dies",
        f"dies_needed(core_mm2, {RETICLE_MM2:g} * reticle_share, interface_mm2, link_mm2)",
        "area.core_mm2",
        "geometry.reticle_share",
        "design.interface_mm2",
        "area.link_mm2",
        note="dies that one copy of the model takes; an exposure field is 26 mm x 33 mm",
    )
    ledger.derive("area.hops", "hops", "dies - 1", "area.dies", note="crossings of an item")


def _cells(facts: DesignFacts, source: str) -> Figure:
    area = facts.cell_area_um2
    if facts.cell_range is None:
        return measured(area, "um2", source)
    low, high = facts.cell_range
    return Figure(area, area * low, area * high, "um2", source, "this run", "derived")


def _record_rom(ledger: Ledger, facts: DesignFacts, bits: int, tabulated: bool) -> None:
    """Weights in a mask ROM: by its bit at this node, or by that of an SRAM."""
    ledger.give("design.rom_bits", measured(bits, "bit", "the weights of this design"))
    formula, inputs = (
        ("rom_bits * rom_bit_um2 / 1e6", ("node.rom_bit_um2",))
        if tabulated
        else (
            "rom_bits * sram_bit_um2 * rom_share_of_sram_bit / 1e6",
            ("node.sram_bit_um2", "geometry.rom_share_of_sram_bit"),
        )
    )
    if facts.embedding != "logic":
        formula, inputs = f"{formula} * bit_ratio", (*inputs, "embedding.bit_ratio")
    ledger.derive(
        "area.rom_mm2",
        "mm2",
        formula,
        "design.rom_bits",
        *inputs,
        note="weights in metal, with their adders"
        if facts.embedding == "metal"
        else "mask ROM macros with their periphery",
    )


def _record_die(ledger: Ledger) -> None:
    ledger.derive(
        "area.beside_mm2",
        "mm2",
        "interface_mm2 + link_mm2 * min(hops, 1)",
        "design.interface_mm2",
        "area.link_mm2",
        "area.hops",
        note="of each die, beside its share of the core",
    )
    ledger.derive(
        "area.die_mm2",
        "mm2",
        "die_area_mm2(core_mm2 / dies + beside_mm2, io_signals * power_pads, pad_pitch_um,"
        " pad_ring_um)",
        "area.core_mm2",
        "area.dies",
        "area.beside_mm2",
        "design.io_signals",
        "geometry.power_pads",
        "geometry.pad_pitch_um",
        "geometry.pad_ring_um",
        note="square; the core inside its pad ring, or as large as its pads need",
    )


def _record_projection(ledger: Ledger, table: Table, origin: str) -> tuple[str, ...]:
    ledger.give("origin.nand2_um2", table[f"{origin}.nand2_um2"])
    ledger.derive(
        "area.cell_ratio",
        "ratio",
        "nand2_um2 / origin_um2 * projection_spread",
        "node.nand2_um2",
        "origin_um2=origin.nand2_um2",
        "geometry.projection_spread",
        note=f"the same cells at another node, by the area of a NAND2; from {origin} nm",
    )
    return ("area.cell_ratio",)


def _record_yield(ledger: Ledger, facts: DesignFacts) -> None:
    ledger.derive(
        "yield.gross_dies",
        "dies/wafer",
        "dies_per_wafer(die_mm2, wafer_mm, scribe_mm, edge_mm)",
        "area.die_mm2",
        "geometry.wafer_mm",
        "geometry.scribe_mm",
        "geometry.edge_mm",
        note="floor(pi d^2 / 4A - pi d / sqrt(2A)), d the usable diameter, A with scribe lines",
    )
    ledger.derive(
        "yield.defects",
        "defects/die",
        "mean_defects(die_mm2, defects_per_cm2)",
        "area.die_mm2",
        "node.defects_per_cm2",
    )
    ledger.derive(
        "yield.murphy",
        "share",
        "murphy(defects)",
        "yield.defects",
        note="((1 - e^-x) / x)^2",
    )
    ledger.derive(
        "yield.negative_binomial",
        "share",
        "negative_binomial(defects, negative_binomial_alpha)",
        "yield.defects",
        "geometry.negative_binomial_alpha",
        note="(1 + x / alpha)^-alpha",
    )
    ledger.derive(
        "yield.good_dies",
        "dies/wafer",
        "gross_dies * priced_yield",
        "yield.gross_dies",
        f"priced_yield={_record_graded(ledger, facts)}",
    )


def _record_graded(ledger: Ledger, facts: DesignFacts) -> str:
    """The yield that the cost uses.

    A defect in a mask ROM costs one weight; a model that was measured to bear so many wrong
    weights makes dies with such defects good. In weight logic a defect is an adder, thus a whole
    output: there the graded yield is not used.
    """
    if facts.bearable_defects is None or not ledger.mid("design.rom_bits"):
        return "yield.murphy"
    source = "random wrong weights in the integer program of this model"
    ledger.give("design.bearable_defects", measured(facts.bearable_defects, "weights", source))
    ledger.derive(
        "yield.critical_share",
        "share",
        "1 - rom_mm2 / dies / die_mm2",
        "area.rom_mm2",
        "area.dies",
        "area.die_mm2",
        note="all of the die but the mask ROM, where a defect costs one weight",
    )
    ledger.derive(
        "yield.graded",
        "share",
        "tolerant(murphy(defects * critical_share), defects * (1 - critical_share),"
        " bearable_defects / dies)",
        "yield.defects",
        "yield.critical_share",
        "design.bearable_defects",
        "area.dies",
        note="good although some weights are wrong: no more than the model bears",
    )
    return "yield.graded"


def _record_performance(ledger: Ledger, facts: DesignFacts) -> None:
    timing = f"static timing of this design with the delay model of {facts.library}"
    schedule = "the static schedule of this design"
    given = (
        ("critical_path_ns", facts.critical_path_ns, "ns", timing),
        ("clock_period_ns", facts.clock_period_ns, "ns", "the clock that was asked for"),
        ("cycles_per_item", facts.cycles_per_item, "cycles", schedule),
        ("slots", facts.slots, "sequences", schedule),
        ("macs_per_item", facts.macs_per_item, "MAC", "the operations of this model"),
        ("memory_bits_per_item", facts.memory_bits_per_item, "bit", schedule),
        ("weights", facts.weights_total, "weights", "the model file"),
        ("cut_bits_per_item", facts.cut_bits_per_item, "bit", "the widths of this model's layers"),
    )
    for name, value, unit, source in given:
        ledger.give(f"design.{name}", measured(value, unit, source))
    ledger.derive(
        "performance.clock_hz",
        "Hz",
        "clock_hz(critical_path_ns * timing_spread, clock_period_ns)",
        "design.critical_path_ns",
        "geometry.timing_spread",
        "design.clock_period_ns",
        note="the clock asked for, or slower if the critical path needs it",
    )
    ledger.derive(
        "performance.per_user_rate",
        f"{facts.item}/s",
        "per_user_rate(clock_hz, cycles_per_item, hops, latency_ns, cut_bits_per_item, gbps)",
        "performance.clock_hz",
        "design.cycles_per_item",
        "area.hops",
        "links.latency_ns",
        "design.cut_bits_per_item",
        "links.gbps",
        note="basis: one user alone, batch 1",
    )
    ledger.derive(
        "performance.chip_rate",
        f"{facts.item}/s",
        "aggregate_rate(per_user_rate, slots, hops, cut_bits_per_item, gbps)",
        "performance.per_user_rate",
        "design.slots",
        "area.hops",
        "design.cut_bits_per_item",
        "links.gbps",
        note="basis: aggregate of one copy of the model, all its sequences in flight",
    )


def _record_power(ledger: Ledger, facts: DesignFacts, table: Table, node: str) -> None:
    give_section(ledger, "energy", table)
    source = "the node that the energies are scaled to"
    ledger.give("node.nm", measured(float(node), "nm", source))
    for name, formula, inputs in (
        ("mac_pj", "int8_multiply_pj + int32_add_pj", ("int8_multiply_pj", "int32_add_pj")),
        ("bit_pj", "sram_pj_per_bit", ("sram_pj_per_bit",)),
    ):
        ledger.derive(
            f"power.{name}",
            "pJ",
            f"scaled_pj({formula}, nm, reference_nm, slope)",
            *(f"energy.{key}" for key in inputs),
            "node.nm",
            "energy.reference_nm",
            "energy.slope",
        )
    ledger.derive(
        "power.arithmetic_w",
        "W",
        "arithmetic_j(macs_per_item, mac_pj, overhead) * chip_rate",
        "design.macs_per_item",
        "power.mac_pj",
        "energy.overhead",
        "performance.chip_rate",
        note="every multiply-accumulate of the model, zeros included, times wires and control",
    )
    ledger.derive(
        "power.memory_w",
        "W",
        "memory_j(memory_bits_per_item, bit_pj) * chip_rate",
        "design.memory_bits_per_item",
        "power.bit_pj",
        "performance.chip_rate",
    )
    ledger.derive(
        "power.clock_w",
        "W",
        "clock_w(gates_mm2, memory_mm2 + rom_mm2, clock_pj_per_mm2, clock_array_share, clock_hz)",
        "area.gates_mm2",
        "area.memory_mm2",
        "area.rom_mm2",
        "energy.clock_pj_per_mm2",
        "energy.clock_array_share",
        "performance.clock_hz",
    )
    ledger.derive(
        "power.leakage_w",
        "W",
        "leakage_w(gates_mm2, memory_mm2 + rom_mm2, leakage_w_per_mm2,"
        " leakage_w_per_mm2 * memory_share)",
        "area.gates_mm2",
        "area.memory_mm2",
        "area.rom_mm2",
        "node.leakage_w_per_mm2",
        "memory_share=energy.memory_leakage_share",
    )
    ledger.derive(
        "power.link_w",
        "W",
        "link_w(chip_rate, hops, cut_bits_per_item, pj_per_bit)",
        "performance.chip_rate",
        "area.hops",
        "design.cut_bits_per_item",
        "links.pj_per_bit",
    )
    ledger.derive(
        "power.chip_w",
        "W",
        "arithmetic_w + memory_w + clock_w + leakage_w + link_w",
        "power.arithmetic_w",
        "power.memory_w",
        "power.clock_w",
        "power.leakage_w",
        "power.link_w",
        note="all dies of one copy at full load, on published anchors, not by the netlist",
    )
    ledger.derive(
        "power.density_w_per_mm2",
        "W/mm2",
        "chip_w / (die_mm2 * dies)",
        "power.chip_w",
        "area.die_mm2",
        "area.dies",
    )
    ledger.derive(
        "power.energy_per_item_j",
        f"J/{facts.item}",
        "energy_j(chip_w, chip_rate)",
        "power.chip_w",
        "performance.chip_rate",
    )


def _record_unit_cost(ledger: Ledger, table: Table) -> None:
    die_w = ledger.mid("power.chip_w") / ledger.mid("area.dies")
    package = package_class(ledger.mid("area.die_mm2"), die_w)
    give_section(ledger, "package", table, package)
    for section in ("tester", "lot", "card"):
        give_section(ledger, section, table, section)
    ledger.derive(
        "cost.die_usd",
        "USD",
        "die_usd(wafer_usd, good_dies)",
        "node.wafer_usd",
        "yield.good_dies",
        note="at volume: whole lots of wafers used up",
    )
    ledger.derive(
        "cost.test_usd",
        "USD",
        "test_s * usd_per_s",
        "package.test_s",
        "tester.usd_per_s",
    )
    ledger.derive(
        "cost.probe_usd",
        "USD",
        "test_usd * probe_share",
        "cost.test_usd",
        "tester.probe_share",
    )
    ledger.derive(
        "cost.chip_usd",
        "USD",
        "unit_usd(die_cost, probe_usd, package_yield, package_usd, test_usd)",
        "die_cost=cost.die_usd",
        "cost.probe_usd",
        "package_yield=package.yield",
        "package_usd=package.usd",
        "cost.test_usd",
        note=f"one good, packaged and tested die at volume; package class {package}",
    )
    ledger.derive(
        "cost.copy_usd",
        "USD",
        "chip_usd * dies",
        "cost.chip_usd",
        "area.dies",
        note="the chips of one copy of the model",
    )


def package_class(die_mm2: float, power_w: float) -> str:
    """The cheapest package that carries the die and its heat."""
    if die_mm2 <= 50 and power_w <= 3:
        return "qfn"
    return "fcbga" if die_mm2 <= 400 and power_w <= 75 else "lidded"


def _record_nre(ledger: Ledger, facts: DesignFacts, tables: Tables, node: str) -> None:
    table = tables["masks"]
    give_section(ledger, "masks", table)
    ledger.derive(
        "nre.size_share",
        "share",
        f"size_share(die_mm2, {RETICLE_MM2:g}, floor_share)",
        "area.die_mm2",
        "floor_share=masks.design.floor_share",
        note="effort of a generated, regular design grows with its area, above a floor",
    )
    lines = []
    for line in DESIGN_LINES:
        name = f"nre.{line}_usd"
        ledger.derive(
            name,
            "USD",
            "full_usd * design_share * size_share",
            f"full_usd=masks.design.{line}_usd",
            "node.design_share",
            "nre.size_share",
        )
        lines.append(name)
    ledger.derive(
        "nre.bring_up_usd",
        "USD",
        "probe_card_usd + qualification_usd * size_share",
        "masks.bring_up.probe_card_usd",
        "masks.bring_up.qualification_usd",
        "nre.size_share",
    )
    ledger.derive(
        "nre.mask_units",
        "DUV masks",
        "mask_units(duv_masks, euv_masks, euv_weight)",
        "node.duv_masks",
        "node.euv_masks",
        "masks.euv_weight",
    )
    changed = (
        ("changed=nre.mask_units",)
        if facts.respin_scope == "all"
        else (f"changed=masks.changed.{facts.respin_scope}",)
    )
    ledger.derive(
        "nre.masks_usd",
        "USD",
        "multi_chip_masks_usd(mask_set_usd, min(changed, mask_units), mask_units, dies)",
        "node.mask_set_usd",
        *changed,
        "nre.mask_units",
        "area.dies",
        note="the dies of a model share all masks but those that hold its weights",
    )
    ledger.derive(
        "nre.variable_masks_usd",
        "USD",
        "mask_share_usd(mask_set_usd, min(changed, mask_units), mask_units) * dies",
        "node.mask_set_usd",
        *changed,
        "nre.mask_units",
        "area.dies",
        note=f"masks that new weights change: {facts.respin_scope}; each die has its own",
    )
    ledger.derive(
        "nre.shared_masks_usd",
        "USD",
        "masks_usd - variable_masks_usd",
        "nre.masks_usd",
        "nre.variable_masks_usd",
        note="masks that all models of this frame share",
    )
    everything = ["nre.shared_masks_usd", "nre.variable_masks_usd", *lines, "nre.bring_up_usd"]
    symbols = [name.rpartition(".")[2] for name in everything]
    ledger.derive("nre.total_usd", "USD", " + ".join(symbols), *everything)
    ledger.derive(
        "nre.actuary_usd",
        "USD",
        "actuary_nre_usd(die_mm2, press_usd * design_share)",
        "area.die_mm2",
        "masks.design.press_usd",
        "node.design_share",
        note="a second opinion, not used: design cost of the press in the model of Chiplet Actuary",
    )
    ledger.derive(
        "nre.respin_usd",
        "USD",
        "variable_masks_usd + work_usd * design_share + wafers * wafer_usd",
        "nre.variable_masks_usd",
        "masks.respin.work_usd",
        "node.design_share",
        "lot.wafers",
        "node.wafer_usd",
        note="new weights: their masks, verification and tape-out, one lot",
    )
    ledger.derive(
        "nre.respin_weeks",
        "weeks",
        "weeks",
        f"weeks=masks.weeks.{facts.respin_scope}",
        note="from new weights to chips; metal and via on base wafers that are banked",
    )
