"""hwcompile: one trained transformer in, one chip out."""

__version__ = "0.1.0"
