"""Timing closure: modules slower than the goal are mapped again with faster adders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hwcompile.compiler.estimate.synthesis import ModuleSynthesis, SynthesisResult, synthesise
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.estimate.timing import TimingReport, analyse_timing


def synthesise_to_period(
    verilog_files: Sequence[Path],
    top: str,
    target: Target,
    *,
    goal_ns: float | None = None,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Callable[[ModuleSynthesis], None] = lambda module: None,
) -> tuple[SynthesisResult, TimingReport]:
    """Map the smallest design, then give fast adders to the modules that miss ``goal_ns``.

    ``goal_ns`` defaults to the target's ``clock_goal_ns``. A module keeps its fast adders only
    where they make it faster. The goal may be missed: the report says by how much.
    """
    goal = target.value("clock_goal_ns") if goal_ns is None else goal_ns

    def mapped(
        fast: Sequence[str], earlier: tuple[SynthesisResult, TimingReport] | None = None
    ) -> tuple[SynthesisResult, TimingReport]:
        result = synthesise(
            verilog_files, top, target, fast=fast, jobs=jobs, cache=cache, progress=progress
        )
        return result, analyse_timing(result, target, earlier)

    small, timing = mapped(())
    late = [
        name
        for name, module in timing.modules.items()
        if module.critical_ns > goal and not _is_compressor_tree(small.modules[name])
    ]
    if not late:
        return small, timing
    quick, quick_timing = mapped(late, (small, timing))
    better = [
        name
        for name in late
        if quick_timing.modules[name].critical_ns < timing.modules[name].critical_ns
    ]
    if not better:
        return small, timing
    return (quick, quick_timing) if better == late else mapped(better, (small, timing))


def _is_compressor_tree(module: ModuleSynthesis) -> bool:
    """Much of it is full-adder cells placed on purpose: word adders never make up so much."""
    adders = module.area_by_kind.get("full adders", 0.0)
    return adders > 0.3 * module.area_um2
