"""The styles of weight logic side by side: area, cycles, delay, energy, each netlist simulated.

    python -m benchmarks.styles [--rows NAME,...] [--small] [--out docs/results/styles.md]

Random matrices: int8 and int4 gaussian, ternary with 60 % zeros. ``core`` is the block as it is
mapped (trees, decoders, constants, accumulators), ``with unit`` adds the linear unit around it
(input bank, plane and control registers, capture, constants of each column, requantiser), which a
chip has once for all its matrices. Areas in um2 a weight, buffers apart: the trees in the netlist
and the estimated one of the clock. Delay is our own timing with the trees in; a block that would
miss 2.5 ns has rows of registers (cuts). Energy: toggles without glitches times capacitance, a
proxy.

``--rows``: names of the table's rows. Results are written after each row, so that a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.blocks import KIND_NAMES, measure_block, random_matrix, unit_area
from benchmarks.rom_baseline import measure_rom, rom_cycles
from hwcompile.compiler.estimate.block_timing import pace_of
from hwcompile.compiler.estimate.cost_model import block_area
from hwcompile.compiler.estimate.targets import Target, load_target
from hwcompile.hdl.matrix_block import PhaseDecode
from hwcompile.passes.lower_matrix import lower_matrix

ROOT = Path(__file__).parent.parent
MAGNITUDE_BITS = {"g8": 7, "g4": 3, "t60": 1}
GOAL_NS = 2.5


@dataclass(frozen=True, slots=True)
class Row:
    """One way to build one shape. ``goal``: um2 a weight of core wanted, by kind. ``lanes``: of the
    baseline with multipliers and a table of weights.
    """

    name: str
    style: str
    shape: tuple[int, int]
    phases: int
    planes: int = 1
    decode: PhaseDecode = "local"
    respin: bool = False
    lanes: int = 0
    goal: tuple[float, float, float] | None = None


FOLDED = {8: (1.05, 2.4, 5.0), 16: (0.67, 1.45, 2.9), 64: (0.40, 0.78, 1.45)}
SHARED = {8: (0.95, 2.2, 4.5), 16: (0.60, 1.3, 2.6), 64: (0.35, 0.70, 1.3)}
ROWS = (
    *(Row(f"W7-{8 * p}", "folded", (256, 64), p, 1, "shared", goal=SHARED[p]) for p in SHARED),
    *(Row(f"W7b-{8 * p}", "folded", (256, 64), p, 1, "local", goal=FOLDED[p]) for p in FOLDED),
    Row("W7c-4", "re-spin", (256, 64), 4, 1, "local", True),
    Row("W7c-8", "re-spin", (256, 64), 8, 1, "shared", True),
    Row("W7c-8-local", "re-spin", (256, 64), 8, 1, "local", True),
    Row("planes-1", "bitplane", (64, 64), 1, 1),
    Row("planes-2", "bitplane", (64, 64), 1, 2),
    Row("planes-4", "bitplane", (64, 64), 1, 4),
    Row("planes-8", "parallel", (64, 64), 1, 8),
    Row("folded-planes-2", "folded", (256, 64), 16, 2),
    Row("rom-8", "rom", (64, 64), 8, lanes=8),
    Row("rom-1", "rom", (64, 64), 64, lanes=1),
    Row("W6", "bitplane", (256, 256), 1, 1, goal=(1.7, 4.0, 8.5)),
)
SMALL = ("planes-1", "planes-2", "planes-4", "planes-8", "rom-8", "rom-1")
KINDS = ("t60", "g4", "g8")


def measure(row: Row, kind: str, target: Target, cache: Path | None) -> dict[str, Any]:
    """Everything the table says of one row and one kind of weights."""
    weight = random_matrix(kind, row.shape)
    if row.lanes:
        return {
            "row": row.name,
            "kind": kind,
            **asdict(measure_rom(weight, row.lanes, target, cache=cache)),
            "weights": weight.size,
            "cycles": rom_cycles(row.shape, row.lanes),
            "cuts": 0,
            "unit_um2": None,
            "row_cycles": None,
            "model_um2": None,
        }
    places = MAGNITUDE_BITS[kind] if row.respin else 0
    pace = pace_of(target, GOAL_NS, row.decode, row.respin)
    block = lower_matrix(weight, 8, row.phases, row.planes, places, pace=pace)
    found = measure_block(block, weight, target, row.decode, row.respin, cache=cache)
    unit_um2, row_cycles = unit_area(block, weight, target, cache)
    model = block_area(block, target.library, row.decode).mid
    return {
        "row": row.name,
        "kind": kind,
        **asdict(found),
        "weights": weight.size,
        "cycles": block.phases * block.cycles,
        "cuts": block.cuts,
        "unit_um2": unit_um2,
        "row_cycles": row_cycles,
        "model_um2": None if row.respin else model,
    }


def table(results: Sequence[dict[str, Any]], target: Target) -> str:
    """The page."""
    lines = [
        "# Styles of weight logic",
        "",
        f"Written by `python -m benchmarks.styles`, cells of {target.name}. `core`: the mapped "
        "block; `with unit`: and the linear unit around it (input bank, plane and control "
        "registers, capture, constants, requantiser), which a chip has once; um2 a weight. "
        "`buffers`: trees of wide nets in the netlist, and the clock's estimated; not in the core. "
        "Delay: own timing, trees in. "
        "Energy of one product: toggles without glitches. `exact`: the mapped netlist, simulated "
        "on 64 rows, corners among them, gave W x on each.",
        "",
        "| row | style | shape | phases | planes | decode | weights | core | wanted | with unit | "
        "buffers | cycles | cuts | delay ns | pJ | fan-out | pins a cell | nets | model | exact |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_name = {row.name: row for row in ROWS}
    for r in results:
        row = by_name[r["row"]]
        size = r["weights"]
        wanted = "" if row.goal is None else f"{row.goal[KINDS.index(r['kind'])]:.2f}"
        core = r["area_um2"] / size
        model = "" if r["model_um2"] is None else f"{r['model_um2'] / r['area_um2'] - 1:+.1%}"
        decode = row.decode if row.phases > 1 and not row.lanes else ""
        lines.append(
            f"| {row.name} | {row.style} | {row.shape[0]}x{row.shape[1]} | {row.phases} | "
            f"{row.planes} | {decode} | {KIND_NAMES[r['kind']]} | {core:.3f} | {wanted} | "
            f"{_with_unit(r)} | {r['buffer_area_um2'] / size:.3f} | "
            f"{r['cycles']} | {r.get('cuts', 0)} | {r['critical_ns']:.2f} | {r['energy_pj']:.0f} | "
            f"{r['fan_out']} | {r['pins'] / r['cells']:.2f} | {r['nets']} | {model} | "
            f"{'yes' if r['exact'] else 'NO'} |"
        )
    return "\n".join([*lines, "", *summary(results), "", "![area and cycles](styles.svg)", ""])


def _with_unit(result: dict[str, Any]) -> str:
    """um2 a weight of a block and its linear unit; the baseline has no such unit."""
    if result["unit_um2"] is None:
        return ""
    return f"{(result['area_um2'] + result['unit_um2']) / result['weights']:.3f}"


def summary(results: Sequence[dict[str, Any]]) -> list[str]:
    """What was wanted and what was reached."""
    goals = {row.name: row.goal for row in ROWS}
    met, missed, late = 0, [], []
    for r in results:
        goal = goals[r["row"]]
        name = f"{r['row']} {KIND_NAMES[r['kind']]}"
        if goal is not None:
            core, wanted = r["area_um2"] / r["weights"], goal[KINDS.index(r["kind"])]
            if core <= wanted:
                met += 1
            else:
                missed.append(f"{name} ({core:.3f}, wanted {wanted:.2f})")
        if r["critical_ns"] > GOAL_NS:
            late.append(f"{name} ({r['critical_ns']:.2f} ns)")
    return [
        f"Areas wanted and reached: {met} of {met + len(missed)}."
        + (f" Missed: {', '.join(missed)}." if missed else ""),
        "",
        f"Slower than {GOAL_NS} ns: {', '.join(late) if late else 'none'}.",
    ]


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """um2 a weight over cycles, both logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "hwcompile"
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    styles = {row.name: (row.style, row.decode) for row in ROWS}
    marks = {"bitplane": "o", "parallel": "s", "re-spin": "x", "folded": "^", "rom": "*"}
    colours = dict(zip(KINDS, ("tab:green", "tab:blue", "tab:red"), strict=True))
    for r in results:
        style, decode = styles[r["row"]]
        filled = style != "folded" or decode == "local"
        axes.plot(
            r["cycles"],
            r["area_um2"] / r["weights"],
            marks[style],
            color=colours[r["kind"]],
            fillstyle="full" if filled else "none",
        )
    for kind, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=KIND_NAMES[kind])
    for style, mark in marks.items():
        axes.plot([], [], mark, color="grey", label=style)
    axes.plot([], [], "^", color="grey", fillstyle="none", label="folded, shared decoder")
    axes.set(xscale="log", yscale="log", xlabel="cycles of a product", ylabel="um2 a weight")
    axes.grid(which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", help="names, by comma (default: all)")
    parser.add_argument("--small", action="store_true", help="the 64 x 64 matrices alone")
    parser.add_argument("--anew", action="store_true", help="measure rows again that are there")
    parser.add_argument("--target", default="nangate45")
    parser.add_argument("--cache", type=Path, help="folder of synthesis results")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/styles.md")
    options = parser.parse_args(arguments)
    target = load_target(options.target)
    names = options.rows.split(",") if options.rows else [row.name for row in ROWS]
    names = [n for n in names if n in SMALL] if options.small else names
    store = options.out.with_suffix(".json")
    found = json.loads(store.read_text()) if store.exists() else []
    order = {(row.name, kind): n for n, row in enumerate(ROWS) for kind in KINDS}
    for row in ROWS:
        for kind in KINDS if row.name in names else ():
            known = any(r["row"] == row.name and r["kind"] == kind for r in found)
            if known and not options.anew:
                continue
            found = [r for r in found if (r["row"], r["kind"]) != (row.name, kind)]
            found.append(measure(row, kind, target, options.cache))
            found.sort(key=lambda r: order[r["row"], r["kind"]])
            print(row.name, KIND_NAMES[kind], f"{found and found[-1]['seconds']:.0f} s", flush=True)
            store.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            options.out.write_text(table(found, target), encoding="utf-8")
    plot(found, options.out.with_suffix(".svg"))
    return 0 if all(r["exact"] for r in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
