"""From chip and scenario to price a million items, break-even, fleet and present value."""

from __future__ import annotations

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.ledger import Ledger
from hwcompile.compiler.estimate.scenario import Scenario
from hwcompile.compiler.estimate.silicon import Tables, give_section

REFERENCE_GPU = "h100"
"""What a device's chip is compared with in speed; it takes no part in the value of a device."""


def in_device(scenario: Scenario, tables: Tables) -> bool:
    """Whether the chip replaces a part of a device, not a rented GPU."""
    return scenario.alternative in tables["edge"].sections()


def record_service(ledger: Ledger, facts: DesignFacts, scenario: Scenario, tables: Tables) -> None:
    """Everything about running the chip; :func:`record_silicon` comes first."""
    for name, figure in scenario.figures.items():
        ledger.give(f"scenario.{name}", figure)
    give_section(ledger, "datacentre", tables["datacentre"])
    _record_alternative(ledger, facts, scenario, tables)
    _record_card(ledger)
    _record_price(ledger, facts)
    _record_respins(ledger)
    _record_edge(ledger, facts, scenario, tables)
    if in_device(scenario, tables):
        _record_device_fleet(ledger)
        _record_device_value(ledger)
    else:
        _record_fleet(ledger, facts)
        _record_value(ledger)
        _record_full_price(ledger, facts)
        _record_owning(ledger)
    _record_break_even(ledger, facts)


def _record_alternative(
    ledger: Ledger, facts: DesignFacts, scenario: Scenario, tables: Tables
) -> None:
    name = REFERENCE_GPU if in_device(scenario, tables) else scenario.alternative
    known = [gpu for gpu in tables["gpus"].sections() if gpu != "common"]
    if name not in known:
        parts = (*known, *tables["edge"].sections())
        raise UsageError(f"no GPU or part {name!r} in the tables", ", ".join(parts))
    give_section(ledger, "gpu", tables["gpus"], name)
    give_section(ledger, "gpu", tables["gpus"], "common")
    ledger.derive(
        "gpu.flops_per_s",
        "1/s",
        "2 * anchor_weights * anchor_rate",
        "gpu.anchor_weights",
        "gpu.anchor_rate",
        note="achieved arithmetic of a published serving result, well batched",
    )
    ledger.derive(
        "gpu.rate",
        f"{facts.item}/s",
        "gpu_rate(macs_per_item, flops_per_s, overhead_s)",
        "design.macs_per_item",
        "gpu.flops_per_s",
        "gpu.overhead_s",
        note="basis: aggregate of one GPU, well batched; the overhead bounds small models",
    )
    ledger.derive(
        "gpu.per_user_rate",
        f"{facts.item}/s",
        "gpu_per_user_rate(weights, anchor_weights * anchor_user_rate, step_floor_s)",
        "design.weights",
        "gpu.anchor_weights",
        "gpu.anchor_user_rate",
        "gpu.step_floor_s",
        note="basis: one user alone, batch 1",
    )
    ledger.derive(
        "gpu.usd_per_million",
        f"USD/M{facts.item}",
        "rented_usd_per_million(usd_per_hour, rate, utilisation)",
        "gpu.usd_per_hour",
        "gpu.rate",
        "gpu.utilisation",
        note=f"basis: aggregate, {name.upper()} rented at this use",
    )


def _record_card(ledger: Ledger) -> None:
    ledger.derive(
        "card.chips",
        "chips",
        "max(1, min(chips_per_card, power_limit_w * dies // max(chip_w, 1e-6)))",
        "package.chips_per_card",
        "card.power_limit_w",
        "area.dies",
        "power.chip_w",
        note="chips on one card, by power and by room",
    )
    ledger.derive(
        "card.overhead_usd",
        "USD/copy",
        "(board_usd + host_usd) / chips * dies",
        "card.board_usd",
        "card.host_usd",
        "card.chips",
        "area.dies",
    )
    ledger.derive(
        "card.copy_w",
        "W",
        "chip_w + host_w / chips * dies",
        "power.chip_w",
        "card.host_w",
        "card.chips",
        "area.dies",
        note="one copy of the model with its share of the host",
    )
    ledger.derive(
        "card.copy_usd",
        "USD/copy",
        "chip_cost + overhead_usd",
        "chip_cost=cost.copy_usd",
        "card.overhead_usd",
        note="one copy of the model in a server, chips at volume",
    )


def _record_price(ledger: Ledger, facts: DesignFacts) -> None:
    ledger.derive(
        "price.years",
        "years",
        "max(0, life_years - lag_years)",
        "scenario.life_years",
        "scenario.lag_years",
        note="the model's life less the time to silicon",
    )
    ledger.derive(
        "price.expected_years",
        "years",
        "useful_years(years, hazard_per_year)",
        "price.years",
        "scenario.hazard_per_year",
        note="expected, when the model becomes obsolete at this hazard",
    )
    unit = f"USD/M{facts.item}"
    ledger.derive(
        "price.running_usd_per_million",
        unit,
        "energy_usd_per_million(copy_w, chip_rate, utilisation, pue, usd_per_kwh)"
        " + building_usd_per_million(copy_w, chip_rate, utilisation, pue,"
        " infrastructure_usd_per_w, building_years)",
        "card.copy_w",
        "performance.chip_rate",
        "datacentre.utilisation",
        "datacentre.pue",
        "datacentre.usd_per_kwh",
        "datacentre.infrastructure_usd_per_w",
        "datacentre.building_years",
        note="basis: aggregate; energy and the share of the building",
    )
    ledger.derive(
        "price.usd_per_million",
        unit,
        "owned_usd_per_million(copy_usd, upkeep_per_year, chip_rate, utilisation, years, 0, 1, 0)"
        " + running_usd_per_million",
        "card.copy_usd",
        "datacentre.upkeep_per_year",
        "performance.chip_rate",
        "datacentre.utilisation",
        "price.years",
        "price.running_usd_per_million",
        note="basis: aggregate; silicon at volume over the useful life, NRE apart",
    )
    ledger.derive(
        "price.saving_usd_per_million",
        unit,
        "gpu_price - usd_per_million",
        "gpu_price=gpu.usd_per_million",
        "price.usd_per_million",
    )


def _record_fleet(ledger: Ledger, facts: DesignFacts) -> None:
    ledger.derive(
        "fleet.items_per_year",
        f"{facts.item}/year",
        "users * items_per_user_day * 365",
        "scenario.users",
        "scenario.items_per_user_day",
    )
    ledger.derive(
        "fleet.peak_rate",
        f"{facts.item}/s",
        "peak_rate(users, items_per_user_day, peak)",
        "scenario.users",
        "scenario.items_per_user_day",
        "scenario.peak",
    )
    ledger.derive(
        "fleet.chips",
        "chips",
        "fleet_chips(peak, chip_rate, dies, spare)",
        "peak=fleet.peak_rate",
        "performance.chip_rate",
        "area.dies",
        "datacentre.spare",
    )
    _record_wafers(ledger)
    ledger.derive(
        "fleet.capex_usd",
        "USD",
        "wafers * wafer_usd + chips * (chip_usd - die_cost / package_yield)"
        " + chips / dies * overhead_usd",
        "fleet.wafers",
        "node.wafer_usd",
        "fleet.chips",
        "cost.chip_usd",
        "die_cost=cost.die_usd",
        "package_yield=package.yield",
        "area.dies",
        "card.overhead_usd",
        note="the wafers that are bought, packages, test, cards",
    )


def _record_wafers(ledger: Ledger) -> None:
    ledger.derive(
        "fleet.wafers",
        "wafers",
        "wafers_bought(wafers_needed(chips, good_dies * package_yield), lot)",
        "fleet.chips",
        "yield.good_dies",
        "package_yield=package.yield",
        "lot=lot.wafers",
        note="whole lots",
    )


def _record_value(ledger: Ledger) -> None:
    ledger.derive(
        "value.avoided_usd",
        "USD",
        "items_per_year / 1e6 * gpu_price"
        " * discounted_years(lag_years, life_years, discount_per_year + hazard_per_year"
        " + alternative_decline_per_year)",
        "fleet.items_per_year",
        "gpu_price=gpu.usd_per_million",
        "scenario.lag_years",
        "scenario.life_years",
        "scenario.discount_per_year",
        "scenario.hazard_per_year",
        "scenario.alternative_decline_per_year",
        note="what the alternative would have cost, from first silicon to the model's end",
    )
    ledger.derive(
        "value.running_usd",
        "USD",
        "(items_per_year / 1e6 * running_usd_per_million + capex_usd * upkeep_per_year)"
        " * discounted_years(lag_years, life_years, discount_per_year + hazard_per_year)",
        "fleet.items_per_year",
        "price.running_usd_per_million",
        "fleet.capex_usd",
        "datacentre.upkeep_per_year",
        "scenario.lag_years",
        "scenario.life_years",
        "scenario.discount_per_year",
        "scenario.hazard_per_year",
    )
    ledger.derive(
        "value.speed_usd",
        "USD",
        "items_per_year / 1e6 * speed_usd_per_million"
        " * discounted_years(lag_years, life_years, discount_per_year + hazard_per_year)",
        "fleet.items_per_year",
        "scenario.speed_usd_per_million",
        "scenario.lag_years",
        "scenario.life_years",
        "scenario.discount_per_year",
        "scenario.hazard_per_year",
        note="what users pay more for fast answers; nothing unless the scenario says so",
    )
    ledger.derive(
        "value.npv_usd",
        "USD",
        "avoided_usd + speed_usd - running_usd - nre_usd - capex_usd - respins_usd",
        "value.avoided_usd",
        "value.speed_usd",
        "value.running_usd",
        "nre_usd=nre.total_usd",
        "fleet.capex_usd",
        "value.respins_usd",
        note="present value against the alternative; silicon is worth nothing afterwards",
    )


def _record_respins(ledger: Ledger) -> None:
    ledger.derive(
        "value.respins_usd",
        "USD",
        "respins * respin_usd",
        "scenario.respins",
        "nre.respin_usd",
    )


def _record_full_price(ledger: Ledger, facts: DesignFacts) -> None:
    for name, once, note in (
        ("full", "once=nre.total_usd", "first chip: NRE, fleet and running over the items served"),
        ("successor", "once=nre.respin_usd", "re-spun successor: only its re-spin is paid once"),
    ):
        ledger.derive(
            f"price.{name}_usd_per_million",
            f"USD/M{facts.item}",
            "full_usd_per_million(once, capex_usd, upkeep_per_year, expected_years,"
            " items_per_year) + running_usd_per_million",
            once,
            "fleet.capex_usd",
            "datacentre.upkeep_per_year",
            "price.expected_years",
            "fleet.items_per_year",
            "price.running_usd_per_million",
            note=f"basis: aggregate, at the scenario's volume; {note}",
        )


def _record_owning(ledger: Ledger) -> None:
    """The fleet as the owner of a data centre sees it: building, energy, upkeep, carbon."""
    ledger.derive(
        "owning.facility_mw",
        "MW",
        "facility_mw(chips / dies * copy_w / 1e6, pue)",
        "fleet.chips",
        "area.dies",
        "card.copy_w",
        "datacentre.pue",
    )
    ledger.derive(
        "owning.building_usd",
        "USD",
        "infrastructure_usd(facility_mw, infrastructure_usd_per_w * 1e6) * years / building_years",
        "owning.facility_mw",
        "datacentre.infrastructure_usd_per_w",
        "price.years",
        "datacentre.building_years",
        note="share of the building, written off evenly",
    )
    ledger.derive(
        "owning.electricity_usd",
        "USD",
        "electricity_usd(facility_mw, years, usd_per_kwh)",
        "owning.facility_mw",
        "price.years",
        "datacentre.usd_per_kwh",
        note="the fleet at full power over its useful life",
    )
    ledger.derive(
        "owning.upkeep_usd",
        "USD",
        "maintenance_usd(capex_usd, years, upkeep_per_year)",
        "fleet.capex_usd",
        "price.years",
        "datacentre.upkeep_per_year",
    )
    ledger.derive(
        "owning.carbon_t",
        "t",
        "carbon_tonnes(facility_mw, years, carbon_kg_per_kwh, chips, carbon_kg_per_chip)",
        "owning.facility_mw",
        "price.years",
        "datacentre.carbon_kg_per_kwh",
        "fleet.chips",
        "datacentre.carbon_kg_per_chip",
    )


def _record_device_fleet(ledger: Ledger) -> None:
    ledger.derive(
        "fleet.chips",
        "chips",
        "ceil(users * dies)",
        "scenario.users",
        "area.dies",
        note="one copy of the model in each device sold",
    )
    _record_wafers(ledger)
    ledger.derive(
        "fleet.capex_usd",
        "USD",
        "wafers * wafer_usd + chips * (chip_usd - die_cost / package_yield)",
        "fleet.wafers",
        "node.wafer_usd",
        "fleet.chips",
        "cost.chip_usd",
        "die_cost=cost.die_usd",
        "package_yield=package.yield",
        note="the wafers that are bought, packages, test",
    )


def _record_device_value(ledger: Ledger) -> None:
    sold = ("scenario.lag_years", "scenario.life_years")
    rates = ("scenario.discount_per_year", "scenario.hazard_per_year")
    ledger.derive(
        "value.avoided_usd",
        "USD",
        "users * parts_usd * share_sold(lag_years, life_years, discount_per_year"
        " + hazard_per_year + alternative_decline_per_year)",
        "scenario.users",
        "edge.parts_usd",
        *sold,
        *rates,
        "scenario.alternative_decline_per_year",
        note="the part that each device would carry otherwise, devices sold evenly",
    )
    ledger.derive(
        "value.silicon_usd",
        "USD",
        "capex_usd * share_sold(lag_years, life_years, discount_per_year + hazard_per_year)",
        "fleet.capex_usd",
        *sold,
        *rates,
        note="the chips of the devices, paid as they are sold",
    )
    ledger.derive(
        "value.npv_usd",
        "USD",
        "avoided_usd - silicon_usd - nre_usd - respins_usd",
        "value.avoided_usd",
        "value.silicon_usd",
        "nre_usd=nre.total_usd",
        "value.respins_usd",
        note="present value against the part; energy in the device is not counted",
    )


def _record_break_even(ledger: Ledger, facts: DesignFacts) -> None:
    ledger.derive(
        "break_even.revenue_share",
        "share",
        "revenue_share(nre_usd, users, usd_per_user_month, life_years * 12)",
        "nre_usd=nre.total_usd",
        "scenario.users",
        "scenario.usd_per_user_month",
        "scenario.life_years",
        note="necessary, never sufficient",
    )
    ledger.derive(
        "break_even.items",
        facts.item,
        "break_even_items(nre_usd + respins_usd, saving_usd_per_million)",
        "nre_usd=nre.total_usd",
        "value.respins_usd",
        "price.saving_usd_per_million",
        note="items that repay what is paid once, silicon at volume",
    )
    ledger.derive(
        "break_even.users",
        "users",
        "break_even_users(items, items_per_user_day, years)",
        "break_even.items",
        "scenario.items_per_user_day",
        "price.years",
    )


def _record_edge(ledger: Ledger, facts: DesignFacts, scenario: Scenario, tables: Tables) -> None:
    """The part that a device would carry: the scenario's, or the least that holds the model."""
    table = tables["edge"]
    carries = (
        name
        for name in table.sections()
        if facts.weights_total <= table[f"{name}.weights_limit"].value
    )
    part = scenario.alternative if in_device(scenario, tables) else next(carries, None)
    if part is None:
        return
    give_section(ledger, "edge", table, part)
    ledger.derive(
        "edge.parts_usd",
        "USD",
        "usd * max(1, ceil(weights / weights_limit))",
        "edge.usd",
        "design.weights",
        "edge.weights_limit",
        note=f"as many of the {part.upper()} as hold the model",
    )
    ledger.derive(
        "edge.alternative_rate",
        f"{facts.item}/s",
        "macs_per_s / max(1, macs_per_item)",
        "edge.macs_per_s",
        "design.macs_per_item",
        note=f"basis: one user alone, on the {part.upper()}",
    )
    ledger.derive(
        "edge.break_even_units",
        "devices",
        "break_even_units(nre_usd + respins_usd, parts_usd, copy_usd)",
        "nre_usd=nre.total_usd",
        "value.respins_usd",
        "edge.parts_usd",
        "cost.copy_usd",
        note=f"devices sold that repay the NRE when the chip replaces the {part.upper()}",
    )
