"""What weight logic cannot be: smaller than the gates that it must have."""

from __future__ import annotations

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate import nodes
from hwcompile.compiler.estimate.explain import number
from hwcompile.compiler.estimate.facts import DesignFacts
from hwcompile.compiler.estimate.figures import Table


def check_density(facts: DesignFacts, table: Table) -> None:
    """Raise UsageError when modelled weight logic takes less than a NAND2 for each place.

    A place holds one weight that is not zero, or several that take turns in it
    (``weights_per_place``); a weight in a memory needs no gate. The least NAND2 of the node table
    counts, scaled to the node. What synthesis measured is not judged: columns that are alike can
    share all their gates, and then it is true.
    """
    area_um2 = sum(g.cell_area_um2 for g in facts.groups if g.group == "weights")
    if facts.area_basis != "modelled" or not area_um2:
        return
    node = nodes.nearest(table, facts.node_nm)
    shrink = min(1.0, facts.node_nm / float(node)) ** 2
    least_um2 = table[f"{node}.nand2_um2"].low * shrink
    places = facts.weights_nonzero / facts.weights_per_place
    if area_um2 < places * least_um2:
        raise UsageError(
            f"infeasible density: {number(area_um2 / places, 3)} um2 of logic for a weight at "
            f"{facts.node_nm:g} nm, where a NAND2 takes {number(least_um2, 3)} um2 or more",
            "give the area of weights in memories as memory, or fold: several weights in a place",
        )
