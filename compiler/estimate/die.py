"""Dies: how many fit a wafer, how large a die is, and whether a reticle exposes it."""

from __future__ import annotations

import math

RETICLE_MM = (26.0, 33.0)
RETICLE_MM2 = RETICLE_MM[0] * RETICLE_MM[1]


def fits_reticle(width_mm: float, height_mm: float) -> bool:
    """Whether one exposure field holds the die, in either orientation."""
    short, long = sorted((width_mm, height_mm))
    return short <= RETICLE_MM[0] and long <= RETICLE_MM[1]


def dies_needed(core_mm2: float, field_mm2: float, each_mm2: float, link_mm2: float) -> float:
    """Dies of a core when each carries ``each_mm2`` besides, and links once there are several."""
    if core_mm2 + each_mm2 <= field_mm2:
        return 1.0
    room = max(field_mm2 - each_mm2 - link_mm2, 0.1 * field_mm2)
    return float(max(2, math.ceil(core_mm2 / room)))


def stepped_area_mm2(area_mm2: float, scribe_mm: float) -> float:
    """Area of a square die with its share of the scribe lines."""
    return (math.sqrt(area_mm2) + scribe_mm) ** 2


def dies_per_wafer_real(
    area_mm2: float, diameter_mm: float = 300.0, scribe_mm: float = 0.0, edge_mm: float = 0.0
) -> float:
    """``pi d^2 / 4A - pi d / sqrt(2A)`` before rounding, with usable diameter ``d``; at least 0.

    The second term is the loss at the rim (D. K. de Vries, 2005).
    """
    usable = diameter_mm - 2 * edge_mm
    area = stepped_area_mm2(area_mm2, scribe_mm)
    return max(0.0, math.pi * usable**2 / (4 * area) - math.pi * usable / math.sqrt(2 * area))


def dies_per_wafer(
    area_mm2: float, diameter_mm: float = 300.0, scribe_mm: float = 0.0, edge_mm: float = 0.0
) -> int:
    """Gross dies of a wafer by the closed formula, rounded down."""
    return math.floor(dies_per_wafer_real(area_mm2, diameter_mm, scribe_mm, edge_mm))


def grid_dies(
    width_mm: float,
    height_mm: float,
    diameter_mm: float = 300.0,
    scribe_mm: float = 0.1,
    edge_mm: float = 3.0,
    offsets: int = 12,
) -> list[tuple[float, float]]:
    """Best exact placement of whole dies on a regular grid.

    Tries ``offsets x offsets`` shifts of the grid; a die counts when its four corners lie within
    the usable radius. Returns the dies' lower left corners in mm from the wafer's centre.
    """
    step_x, step_y = width_mm + scribe_mm, height_mm + scribe_mm
    radius = diameter_mm / 2 - edge_mm
    best: list[tuple[float, float]] = []
    for i in range(offsets):
        for j in range(offsets):
            dies = _placed(width_mm, height_mm, step_x, step_y, i / offsets, j / offsets, radius)
            if len(dies) > len(best):
                best = dies
    return best


def _placed(
    width: float, height: float, step_x: float, step_y: float, dx: float, dy: float, radius: float
) -> list[tuple[float, float]]:
    dies = []
    for row in range(math.floor(-radius / step_y) - 1, math.ceil(radius / step_y) + 1):
        y = (row + dy) * step_y
        reach = radius**2 - max(abs(y), abs(y + height)) ** 2
        if reach < 0:
            continue
        half = math.sqrt(reach)
        first = math.ceil(-half / step_x - dx)
        last = math.floor((half - width) / step_x - dx)
        dies += [((column + dx) * step_x, y) for column in range(first, last + 1)]
    return dies


def pad_limited_side_mm(pads: float, pitch_um: float, ring_um: float) -> float:
    """Side of a square die whose ``pads`` stand in one row on its four edges."""
    return (math.ceil(pads / 4) * pitch_um + 2 * ring_um) / 1000


def die_area_mm2(core_mm2: float, pads: float, pitch_um: float, ring_um: float) -> float:
    """A square die: the core inside a pad ring, or as large as its pads need."""
    core_side = math.sqrt(core_mm2) + 2 * ring_um / 1000
    return float(max(core_side, pad_limited_side_mm(pads, pitch_um, ring_um)) ** 2)
