"""Lower a matrix to the weight block that ships: by adder graph or by its digits.

1. One phase, all planes in one cycle (``parallel``): the matrix is solved to an adder graph, whole
   words are shared, and the graph becomes gates.
2. Anything else: :func:`hwcompile.passes.lower_weights.lower_weights`, full adders shared where
   there is one phase.

Level 0 of the search shares nothing in either way: linear time.

What must NOT change: the block computes the matrix; both ways check it.
"""

from __future__ import annotations

from hwcompile.compiler.ir.weight_logic import IntArray, WeightBlock
from hwcompile.passes.cmvm_tile import SolverOptions
from hwcompile.passes.cut_trees import Pace
from hwcompile.passes.lower_adder_graph import lower_adder_graph
from hwcompile.passes.lower_weights import lower_weights
from hwcompile.passes.solve_cmvm import WIDEST_WEIGHT, solve_cmvm

GREEDY = SolverOptions(level=1)


def lower_matrix(
    weight: IntArray,
    x_bits: int,
    phases: int = 1,
    planes: int = 1,
    magnitude_bits: int = 0,
    search: SolverOptions = GREEDY,
    pace: Pace | None = None,
) -> WeightBlock:
    """The block of ``y = W x``, weight ``[N, M]``; arguments and errors as of ``lower_weights``.

    ``search``: how hard to look for what can be shared, and for what. ``pace``: the clock to keep.
    """
    if phases == 1 and planes == x_bits >= 2 and weight.size and abs(weight).max() <= WIDEST_WEIGHT:
        half = 1 << (x_bits - 1)
        graph = solve_cmvm(weight, -half, half - 1, search)
        return lower_adder_graph(graph, x_bits, pace=pace)
    return lower_weights(weight, x_bits, phases, search.level > 0, planes, magnitude_bits, pace)
