"""Synthesis of our RTL and of da4ml's, by the same script, into the same cells.

    python -m benchmarks.cmvm_synthesis [--kinds g8,t60] [--sizes 8,16] --json OUT [--out PAGE.md]

Area without flip-flops (ours has an output register, the peer none); seconds of synthesis, wall.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.matrices import Matrix, make_matrix
from hwcompile.compiler.estimate.synthesis import synthesise
from hwcompile.compiler.estimate.targets import load_target
from hwcompile.hdl.cells import PRIMITIVES
from hwcompile.hdl.matrix_block import matrix_block_verilog
from hwcompile.passes.cmvm_tile import SolverOptions
from hwcompile.passes.lower_adder_graph import lower_adder_graph
from hwcompile.passes.solve_cmvm import solve_cmvm


def our_files(matrix: Matrix, folder: Path) -> list[Path]:
    """Our block, module ``top``, and the cells it stands on."""
    graph = solve_cmvm(matrix, options=SolverOptions(level=3))
    texts = {"top": matrix_block_verilog(lower_adder_graph(graph, 8), "top"), **PRIMITIVES}
    return _written(texts, folder)


def peer_files(matrix: Matrix, folder: Path) -> list[Path]:
    """The peer's two stages and its adder under a module ``top``."""
    from da4ml.cmvm import solve
    from da4ml.codegen.rtl import verilog

    stages = solve(np.ascontiguousarray(matrix, np.float32)).solutions
    names = ["stage0", "stage1"]
    texts = {name: verilog.comb_logic_gen(s, name) for name, s in zip(names, stages, strict=True)}
    widths = [_port_widths(texts[name]) for name in names]
    (x, middle), (_, y) = widths
    texts["top"] = (
        f"module top(input [{x - 1}:0] x, output [{y - 1}:0] y);\n"
        f"  wire [{middle - 1}:0] middle;\n"
        "  stage0 first(x, middle);\n  stage1 second(middle, y);\nendmodule\n"
    )
    source = Path(verilog.__file__).parent / "source"
    texts |= {p.stem: p.read_text() for p in sorted(source.glob("shift_adder.v"))}
    texts |= {p.stem: p.read_text() for p in sorted(source.glob("negative.v"))}
    files = _written(texts, folder)
    flat = folder / "flat.v"  # without parameters, as our flow wants it; additions stay additions
    script = (
        f"read_verilog {' '.join(map(str, files))}; hierarchy -check -top top; proc; flatten; "
        f"opt_clean; write_verilog -noattr {flat}"
    )
    code = (
        "import sys; from pyosys import libyosys as ys; d = ys.Design(); "
        "[ys.run_pass(p.strip(), d) for p in sys.argv[1].split(';')]"
    )
    subprocess.run([sys.executable, "-c", code, script], check=True, stdout=subprocess.DEVNULL)
    return [flat]


def _port_widths(text: str) -> list[int]:
    """Widths of the input and of the output of a stage."""
    return [int(n) + 1 for n in re.findall(r"(?:input|output) \[(\d+):0\]", text)[:2]]


def _written(texts: dict[str, str], folder: Path) -> list[Path]:
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{name}.v")
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def measure(files: Sequence[Path], cache: Path) -> dict[str, Any]:
    before = time.monotonic()
    result = synthesise(files, "top", load_target("nangate45"), cache=cache, timeout_s=300)
    area = result.area_um2 - result.area_by_kind.get("flip-flops", 0.0)
    return {"area_um2": area, "seconds": time.monotonic() - before}


_WHAT = "Written by `python -m benchmarks.cmvm_synthesis`. One script, Nangate45, no flip-flops."


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = ["# Synthesis of our RTL and of da4ml's", ""]
    lines += [_WHAT, ""]
    lines += ["| matrix | ours um2 | da4ml um2 | ratio | ours s | da4ml s | ratio |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        a, b = row["ours"], row["da4ml"]
        lines.append(
            f"| {row['name']} | {a['area_um2']:.0f} | {b['area_um2']:.0f} | "
            f"{a['area_um2'] / b['area_um2']:.3f} | {a['seconds']:.1f} | {b['seconds']:.1f} | "
            f"{a['seconds'] / b['seconds']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kinds", default="g8,t60")
    parser.add_argument("--sizes", default="8,16")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--out", type=Path, metavar="PAGE.md")
    options = parser.parse_args(arguments)
    rows = []
    for size in options.sizes.split(","):
        for kind in options.kinds.split(","):
            matrix = make_matrix(f"{kind}_{size}x{size}")
            assert matrix is not None
            row: dict[str, Any] = {"name": f"{kind}_{size}x{size}"}
            for who, make in (("ours", our_files), ("da4ml", peer_files)):
                with tempfile.TemporaryDirectory() as folder:
                    row[who] = measure(make(matrix, Path(folder)), Path(folder) / "cache")
            rows.append(row)
            print(row, flush=True)
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
            if options.out is not None:
                options.out.write_text(page(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
