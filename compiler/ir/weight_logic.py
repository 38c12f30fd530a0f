"""Weight logic: a constant matrix block as arrays of adders over bits.

The block computes ``y = W x`` one bit-plane of every input a cycle. With ``x' = x + 2^(x_bits-1)``
(offset binary, unsigned) and planes ``x'[j]``, least significant first, each of the G output trees
sums weighted *leaves* of the current plane; the sum enters a shift accumulator::

    leaf   = inverted XOR ((x'_i[j] XOR sign(phase)) AND mask(phase))
    plane  = sum of leaf * 2^column                             (one number per tree)
    upper  = plane + (0 if first else upper >> 1);  the bit shifted out enters the lower part
    acc    = upper * 2^(x_bits-1) + lower = sum over planes of plane_j * 2^j

Phase k of tree g makes output column ``k * G + g``. Every constant (offset binary, signs, inverted
leaves) is left out of the logic: ``W x = acc + correction[column]``.

Bits are numbered: first the leaves, then the feedback bits ``upper >> 1`` of each tree, then the
outputs of the stages in order. A stage is a vector of equal gates that read only lower numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

GateKind = Literal["full_adder", "half_adder", "xor"]
