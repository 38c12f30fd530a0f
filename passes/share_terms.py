"""Share full adders between the columns of a bit-plane block (P = 1).

A column is the set of literals (input or its complement) that have weight ``2^k`` in one output. A
full adder of three literals serves every column that holds all three, or all three complemented,
because ``(NOT a) + (NOT b) + (NOT c) = (NOT sum) + 2 (NOT carry)``: the sum replaces the three in its
column and the carry enters the next one. Columns without a common triple do NOT change.

Literals are signed numbers ``v`` or ``-v`` (complement): ``v = i + 1`` for input i, ``N + 1 + 2f``
and ``N + 2 + 2f`` for the sum and carry of adder f.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwcompile.compiler.ir.weight_logic import IntArray, Stage


@dataclass(frozen=True, slots=True)
class SharedTerms:
    """``adders [F, 3]``: literals of each shared full adder. ``columns[o][k]``: literals of a
    column. ``inputs``: N."""

    inputs: int
    adders: IntArray
    columns: list[list[IntArray]]

    def literals(self) -> IntArray:
        """Every input literal and every complemented adder output that is used, sorted."""
        parts = [self.adders.ravel()] + [c for column in self.columns for c in column]
        return np.unique(np.concatenate(parts))

    def stages(self, number: dict[int, int]) -> tuple[Stage, ...]:
        """Stages of the shared adders, by depth; adds the literals they make to ``number``."""
        return ()


def share_terms(digits: IntArray, share: bool) -> SharedTerms:
    """Terms of ``digits [K, N, M]``; shares adders when ``share``."""
    columns = []
    for o in range(digits.shape[2]):
        column = []
        for k in range(len(digits)):
            i = np.flatnonzero(digits[k, :, o])
            column.append((i + 1) * digits[k, i, o])
        columns.append(column)
    return SharedTerms(digits.shape[1], np.zeros((0, 3), np.int64), columns)
