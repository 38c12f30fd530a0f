"""The picture of an exploration: area against rate, a dot a design, the front in full colour."""

from __future__ import annotations

from hwcompile.compiler.emit.charts import GROUP_COLOURS
from hwcompile.compiler.emit.plots import Axis, Point, plot
from hwcompile.compiler.explore import Exploration


def front_chart(found: Exploration) -> str:
    """A standalone SVG document; both axes are logarithmic, the front is drawn on top."""
    front = set(found.front)
    weights = list(dict.fromkeys(p.weights for p in found.points))
    colours = {name: GROUP_COLOURS[n % len(GROUP_COLOURS)] for n, name in enumerate(weights)}
    dots = [
        Point(
            p.style if p in front else "",
            p.area_mm2,
            p.rate,
            colour=colours[p.weights],
            hollow=p not in front,
            hover=f"{p.weights} weights, {p.style}: {p.area_mm2:.4g} mm2, {p.rate:.4g}/s, "
            f"{p.energy_uj:.4g} uJ, accuracy {p.accuracy:.4g}",
        )
        for p in sorted(found.points, key=lambda p: p in front)
    ]
    axes = (
        Axis("core area, mm2", lambda v: f"{v:g}"),
        Axis(f"{found.item}s/s of one chip; hollow: beaten", lambda v: f"{v:g}"),
    )
    keys = [(colour, f"{name} weights") for name, colour in colours.items()]
    picture = plot(f"Designs of one model on {found.target}", axes, points=dots, keys=keys)
    return picture.replace("<svg ", '<svg font-family="sans-serif" ', 1)
