"""What must be paid once: masks, and the work until the first good chip."""

from __future__ import annotations


def mask_units(duv: float, euv: float, euv_weight: float) -> float:
    """Masks of a set, weighted by cost: a DUV mask counts 1."""
    return duv + euv_weight * euv


def mask_share_usd(set_usd: float, units: float, all_units: float) -> float:
    """Price of a part of a mask set."""
    return set_usd * units / all_units


def multi_chip_masks_usd(set_usd: float, changed: float, all_units: float, chips: float) -> float:
    """Masks of ``chips`` designs that differ in ``changed`` units and share the others."""
    shared = mask_share_usd(set_usd, all_units - changed, all_units)
    return shared + chips * mask_share_usd(set_usd, changed, all_units)


def size_share(area_mm2: float, reticle_mm2: float, floor: float) -> float:
    """How much of a full-reticle chip's effort a smaller one takes; no less than ``floor``."""
    return max(floor, min(1.0, area_mm2 / reticle_mm2))


def actuary_nre_usd(
    area_mm2: float,
    design_usd: float,
    reference_mm2: float = 300.0,
    variable: float = 0.3,
    fixed: float = 0.2,
) -> float:
    """NRE of a chip in the Chiplet Actuary model (DAC'22): a part by area, a part fixed."""
    return variable * design_usd / reference_mm2 * area_mm2 + fixed * design_usd
