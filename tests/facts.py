"""Facts of a toy chip, for tests of the estimate and of the report."""

from hwcompile.compiler.estimate.facts import DesignFacts, GroupArea, Memory

TOY = DesignFacts(
    name="toy",
    item="token",
    node_nm=45,
    library="nangate45",
    predictive=True,
    weights_total=28_000,
    weights_nonzero=26_000,
    groups=(GroupArea("weights", 120_000.0), GroupArea("control", 8_000.0)),
    memories=(Memory("key", "kv", 49_152), Memory("data", "data", 20_000, 9_000.0)),
    area_basis="synthesised",
    critical_path_ns=2.1,
    clock_period_ns=2.5,
    cycles_per_item=6000,
    macs_per_item=30_000,
    memory_bits_per_item=2e6,
    io_signals=60,
)
