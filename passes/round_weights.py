"""Rounding the weights of a matrix so that its outputs, not its weights, stay close.

Each row of weights is rounded in turn, and what rounding changes in the outputs is made up for by
the rows not yet rounded, as far as inputs of the calibration are correlated (Frantar et al.,
"GPTQ", arXiv 2210.17323). A weight that is zero stays zero.
"""

from __future__ import annotations

import numpy as np

from hwcompile.compiler.ir.operations import limit
from hwcompile.passes.grids import FloatArray, IntArray

_DAMPING = 0.01  # of the mean input power: keeps directions never seen from moving weights


def round_weights(weight: FloatArray, step: FloatArray, bits: int, inputs: FloatArray) -> IntArray:
    """Integers of ``weight`` ``[n, m]`` on the column steps ``[m]``.

    ``inputs``: what the matrix reads in calibration, ``[samples, n]``.
    """
    power = inputs.T @ inputs / max(len(inputs), 1)
    mean = float(np.trace(power)) / len(power) or 1.0
    power[np.diag_indices_from(power)] += _DAMPING * mean
    order = np.argsort(-np.diag(power), kind="stable")
    inverse = np.linalg.inv(power[np.ix_(order, order)])
    carry = np.linalg.cholesky(inverse).T  # upper; inverse = carry.T @ carry
    left = weight[order] / step
    kept = left != 0
    integers = np.zeros(left.shape, np.int64)
    for i in range(len(left)):
        q = np.clip(np.rint(left[i]), -limit(bits), limit(bits)) * kept[i]
        integers[i] = q.astype(np.int64)
        left[i + 1 :] -= np.outer(carry[i, i + 1 :], (left[i] - q) / carry[i, i])
    result = np.empty_like(integers)
    result[order] = integers
    return result
