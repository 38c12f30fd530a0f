"""What the report says of a weight block."""

from __future__ import annotations

import numpy as np

from hwcompile.compiler.checks import proven
from hwcompile.sim.certificate.proof import BlockProof


def test_a_weight_block_is_proven_and_says_how_its_adders_were_simulated() -> None:
    proof = BlockProof("hw_matrix_3", 7, np.zeros(5, np.int64), np.ones(5, np.int64), 90, 0.1)
    counted, full = proven(proof, True), proven(proof, False)
    assert counted.status == full.status == "proven"
    assert "7 x 5 weights" in full.detail and "90 adders" in full.detail
    assert "counts of ones" in counted.detail and "counts of ones" not in full.detail
