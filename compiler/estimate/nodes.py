"""Process nodes: which column of the node table stands for a design's technology."""

from __future__ import annotations

import math

from hwcompile.compiler.estimate.figures import Table


def nearest(table: Table, node_nm: float) -> str:
    """Key of the tabulated node nearest on a log scale: 40 nm is priced as 45, 6 nm as 7."""
    return min(table.sections(), key=lambda key: abs(math.log(float(key) / node_nm)))
