"""Benchmarks: commands that produce the numbers of docs/results. Run them from the root."""
