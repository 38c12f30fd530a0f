"""Our solver beside its peers on the same matrices, every solution in a fresh process.

    python -m benchmarks.cmvm --peers da4ml,alkaid [--suite small|w2|all] [--matrices FILE.npz]
        [--held-out] [--timeout 600] --json OUT [--out PAGE.md] [--keep FOLDER]

Each peer runs with its defaults, without its search over decompositions, and with ``hard_dc=2``;
of these runs the best is taken for each figure by itself. A graph that is not its matrix is "wrong"
and has no figures. One evaluator counts adders, full-adder bits and depth of all graphs. Areas are
those of netlists of full adders, half adders, XORs and inverters (Nangate45), simulated on random
vectors: a peer's graph as plain ripple adders (``ripple``), as ripple adders with our words (``our
words``), and through our whole lowering (``our lowering``). CPU seconds count the solution alone,
after import and compilation. A peer that is not installed is n/a. ``--keep`` keeps the peers'
solutions, and a later run takes them from there; ``--resume`` goes on where a run was stopped. The
page gets a plot beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.matrices import SUITES, Matrix, make_matrix
from benchmarks.measure import run
from benchmarks.ripple import ripple_cells
from hwcompile.compiler.ir import adder_graph, weight_logic
from hwcompile.compiler.ir.adder_graph import AdderGraph
from hwcompile.passes.lower_adder_graph import lower_adder_graph

AREA_UM2 = {"full_adder": 4.256, "half_adder": 2.66, "xor": 1.596, "inverter": 0.532}
"""Nangate45: FA_X1, HA_X1, XOR2_X1, INV_X1."""

PEER_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "no decomposition search": {"search_all_decompose_dc": False, "decompose_dc": -1},
    "hard_dc=2": {"hard_dc": 2},
}
OUR_OPTIONS: dict[str, dict[str, Any]] = {
    "O1": {"level": 1},
    "O2": {"level": 2},
    "O3": {"level": 3},
    "O3 adders": {"level": 3, "objective": "adders"},
}
FIGURES = ("adders", "fa_bits", "depth", "ripple", "our_words", "our_lowering", "seconds")


def block_area_um2(graph: AdderGraph, collapse: bool, x: Matrix, y: Matrix) -> float:
    """Area of our lowering of a graph; the gates are run on ``x`` and must give ``y``."""
    block = lower_adder_graph(graph, 8, collapse)
    if not np.array_equal(weight_logic.evaluate(block, x) + block.correction, y):
        raise ValueError("a lowered graph is wrong")
    area = AREA_UM2["inverter"] * int(block.tap_sign.sum())
    return area + sum(AREA_UM2[stage.kind] * stage.size for stage in block.stages)


def figures(graph: AdderGraph, matrix: Matrix, peer: bool) -> dict[str, Any]:
    """What the neutral evaluator says of a graph."""
    if not np.array_equal(adder_graph.expand(graph), matrix):
        return {"wrong": True}
    x = np.random.default_rng(0).integers(-128, 128, (64, len(matrix)))
    y = x @ matrix
    found = adder_graph.metrics(graph)
    made: dict[str, Any] = {
        "adders": found.adders,
        "fa_bits": found.full_adder_bits,
        "depth": found.depth,
        "our_lowering": block_area_um2(graph, True, x, y),
    }
    if peer:
        cells = ripple_cells(graph)
        made["ripple"] = sum(area * getattr(cells, kind) for kind, area in AREA_UM2.items())
        made["our_words"] = block_area_um2(graph, False, x, y)
    return made


def solve(
    solver: str, options: dict[str, Any], matrix: Matrix, timeout_s: float, keep: Path | None
) -> dict[str, Any]:
    """One solution in a process of its own; ``failed`` says why there is none."""
    text = json.dumps(options, sort_keys=True)
    key = hashlib.sha256(f"{solver} {text} {matrix.shape}".encode() + matrix.tobytes())
    kept = None if keep is None or solver == "ours" else keep / key.hexdigest()[:24]
    if kept is not None and (kept / "result.json").exists():
        result: dict[str, Any] = json.loads((kept / "result.json").read_text())
        return result
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        np.save(path / "matrix.npy", matrix)
        worker = [sys.executable, "-m", "benchmarks.cmvm_worker", solver, text]
        done = run([*worker, str(path / "matrix.npy"), folder], _environment(), timeout_s)
        if done.code:
            result = {"failed": "timeout" if done.code == 124 else done.complaint}
        else:
            result = json.loads(done.stdout.splitlines()[-1])
            result |= figures(adder_graph.load(path), matrix, solver != "ours")
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        (kept / "result.json").write_text(json.dumps(result))
    return result


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def measure(
    name: str,
    matrix: Matrix,
    peers: Sequence[str],
    ours: Sequence[str],
    timeout_s: float,
    keep: Path | None,
) -> dict[str, Any]:
    """All runs on one matrix."""
    row: dict[str, Any] = {"name": name, "shape": list(matrix.shape), "ours": {}, "peers": {}}
    for label in ours:
        row["ours"][label] = solve("ours", OUR_OPTIONS[label], matrix, timeout_s, keep)
    for peer in peers:
        for label, options in PEER_OPTIONS.items():
            if importlib.util.find_spec(peer) is None:
                result: dict[str, Any] = {"failed": "n/a"}
            else:
                result = solve(peer, options, matrix, timeout_s, keep)
            row["peers"][f"{peer} {label}"] = result
    return row


def best_of_peers(row: dict[str, Any]) -> dict[str, Any]:
    """The least of each figure over all peers and options; and the seconds of two of them:
    ``fewest_seconds`` of the run with the fewest adders."""
    good = [r for r in row["peers"].values() if "adders" in r]
    if not good:
        return {}
    best = {name: min(r[name] for r in good) for name in FIGURES}
    best["fewest_seconds"] = min(good, key=lambda r: (r["adders"], r["seconds"]))["seconds"]
    return best


def ratios(row: dict[str, Any], label: str, objective_label: str) -> dict[str, float]:
    """Ours over the best of the peers."""
    peer = best_of_peers(row)
    ours, adders = (row["ours"].get(key, {}) for key in (label, objective_label))
    if not peer or "adders" not in ours or "adders" not in adders:
        return {}
    return {
        "area": ours["our_lowering"] / peer["ripple"],
        "area_words": ours["our_lowering"] / peer["our_words"],
        "area_solver": ours["our_lowering"] / peer["our_lowering"],
        "fa_bits": ours["fa_bits"] / peer["fa_bits"],
        "adders": min(ours["adders"], adders["adders"]) / peer["adders"],
    }


def geomean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(v) for v in values) / len(values)) if values else math.nan


# --- the page -------------------------------------------------------------------------------------

_HEADS = {
    "area": "area, peer as ripple",
    "area_words": "area, peer with our words",
    "area_solver": "area, peer through our lowering",
    "fa_bits": "full-adder bits",
    "adders": "adders",
}


def page(rows: Sequence[dict[str, Any]], command: str, versions: str) -> str:
    """The results as Markdown."""
    lines = ["# Constant matrices: our solver and its peers", ""]
    lines += [f"Written by `{command}`. {versions}", "", *_WHAT, ""]
    for held_out in (False, True):
        part = [r for r in rows if r["held_out"] == held_out]
        if part:
            lines += [f"## {'Held-out seeds' if held_out else 'Suite'}", "", *_tables(part)]
    return "\n".join(lines) + "\n"


_WHAT = [
    "Each figure of the peers is the best of all their runs, by itself; a run that was stopped by",
    "the time limit has none. Areas: um2 per weight of mapped full adders, half adders, XORs and",
    "inverters (Nangate45). Seconds: CPU, one core, the solution alone. O1 is one greedy run, O2 a",
    "portfolio, O3 ruin and recreate; adders: the better of O3 and O3 for adders.",
]


def _tables(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["### Ours (O3) over the best of the peers", ""]
    lines += ["| matrix | " + " | ".join(_HEADS.values()) + " |", "|---|" + "---|" * len(_HEADS)]
    label, fewest = "O3", "O3 adders"
    found = [(r["name"], ratios(r, label, fewest)) for r in rows]
    for name, ratio in found:
        cells = [f"{ratio[h]:.3f}" if ratio else "n/a" for h in _HEADS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    means = [geomean([r[h] for _, r in found if r]) for h in _HEADS]
    lines.append("| **geometric mean** | " + " | ".join(f"**{m:.3f}**" for m in means) + " |")
    lines += ["", "### Figures", ""]
    lines += ["| matrix | solver | adders | FA bits | depth | um2/weight | CPU s | MB |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in rows:
        weights = row["shape"][0] * row["shape"][1]
        for solver, r in [*row["ours"].items(), *row["peers"].items()]:
            start = f"| {row['name']} | {solver} |"
            if "adders" not in r:
                lines.append(f"{start} {'wrong' if r.get('wrong') else r['failed']} | | | | | |")
                continue
            areas = [r[k] / weights for k in ("ripple", "our_words", "our_lowering") if k in r]
            lines.append(
                f"{start} {r['adders']} | {r['fa_bits']} | {r['depth']} | "
                f"{' / '.join(f'{a:.2f}' for a in areas)} | {r['seconds']:.3f} | "
                f"{r['peak_bytes'] / 1e6:.0f} |"
            )
    lines += ["", "Areas of peers: ripple / our words / our lowering.", ""]
    lines += ["### CPU time: the peer over ours", ""]
    lines += ["| matrix | O1 s | peer's fewest adders s | ratio | peer's fastest s | ratio |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        ours, peer = row["ours"].get("O1", {}), best_of_peers(row)
        if peer and "adders" in ours:
            s, slow, fast = ours["seconds"], peer["fewest_seconds"], peer["seconds"]
            lines.append(
                f"| {row['name']} | {s:.3f} | {slow:.2f} | {slow / s:.0f} | {fast:.2f} | "
                f"{fast / s:.0f} |"
            )
    return [*lines, ""]


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Area ratios as bars."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cmvm"
    from matplotlib import pyplot

    found = [(r["name"], ratios(r, "O3", "O3 adders")) for r in rows]
    found = [(name, ratio) for name, ratio in found if ratio]
    figure, axes = pyplot.subplots(figsize=(max(6, len(found) * 0.7), 4))
    place = np.arange(len(found))
    for k, (key, label) in enumerate(list(_HEADS.items())[:4]):
        axes.bar(place + 0.2 * (k - 1.5), [r[key] for _, r in found], 0.2, label=label)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(place, [name for name, _ in found], rotation=60, ha="right")
    axes.set_ylim(0.6, 1.1)
    axes.set_ylabel("ours / best of peers")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _versions(peers: Sequence[str]) -> str:
    from importlib import metadata

    found = []
    for peer in peers:
        try:
            found.append(f"{peer} {metadata.version(peer)}")
        except metadata.PackageNotFoundError:
            found.append(f"{peer} n/a")
    return "Peers: " + ", ".join(found) + "." if found else "No peers."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peers", default="da4ml,alkaid")
    parser.add_argument("--suite", choices=list(SUITES), default="small")
    parser.add_argument("--matrices", type=Path, metavar="FILE.npz")
    parser.add_argument(
        "--held-out", choices=list(SUITES), help="a suite of held-out seeds as well"
    )
    parser.add_argument("--ours", default=",".join(OUR_OPTIONS), metavar="LABELS")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT")
    parser.add_argument("--out", type=Path, metavar="PAGE.md")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--resume", action="store_true", help="go on with the matrices not in OUT")
    options = parser.parse_args(arguments)
    peers = [p for p in options.peers.split(",") if p]
    matrices: list[tuple[str, bool, Matrix | None]] = []
    if options.matrices is not None:
        with np.load(options.matrices, allow_pickle=False) as archive:
            matrices = [(n, False, np.array(archive[n], np.int64, order="C")) for n in archive]
    else:
        matrices += [(n, False, make_matrix(n)) for n in SUITES[options.suite]]
        matrices += [(n, True, make_matrix(n, True)) for n in SUITES.get(options.held_out, [])]
        matrices.sort(key=lambda item: 0 if item[2] is None else item[2].size)
    rows = json.loads(options.json.read_text()) if options.resume else []
    done = [(row["name"], row["held_out"]) for row in rows]
    for name, held_out, matrix in matrices:
        if (name, held_out) in done:
            continue
        if matrix is None:
            print(f"{name}: n/a, its package is not installed", file=sys.stderr)
            continue
        matrix = np.ascontiguousarray(matrix, np.int64)
        row = measure(name, matrix, peers, options.ours.split(","), options.timeout, options.keep)
        row["held_out"] = held_out
        rows.append(row)
        found = ratios(row, "O3", "O3 adders")
        print(name, {k: round(v, 3) for k, v in found.items()}, flush=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
        if options.out is not None:
            shown = sys.argv[1:] if arguments is None else arguments
            command = " ".join(["python -m benchmarks.cmvm", *_without_places(shown)])
            options.out.write_text(page(rows, command, _versions(peers)))
            plot(rows, options.out.with_suffix(".svg"))
    return 0


def _without_places(arguments: Sequence[str]) -> list[str]:
    """The arguments, folders left out of file names."""
    return [Path(a).name if "/" in a else a for a in arguments]


if __name__ == "__main__":
    raise SystemExit(main())
