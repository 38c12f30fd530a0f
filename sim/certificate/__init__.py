"""Proof that the Verilog of a weight block on disk is its matrix.

It reads what was emitted and shares no code with what emitted it. See docs/certificate.md.
"""
