"""Shipped cell tables against real liberty files, cell by cell.

    python -m benchmarks.cells --extract LIB --out TABLE.yaml [--source ...] [--licence ...]
    python -m benchmarks.cells --compare LIB --table nangate45

``--extract`` writes the table of a liberty file, with the cells that ``read_library`` chooses.
``--compare`` ends in 1 when a cell differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from hwcompile.compiler.estimate.cells import CellLibrary, library_to_text, load_library
from hwcompile.compiler.estimate.liberty import read_liberty_text, read_library


def differences(table: CellLibrary, real: CellLibrary) -> list[str]:
    """One line for each cell whose area, pins or function differ."""
    lines = []
    for cell in table.cells.values():
        other = real.cells.get(cell.name)
        if other is None:
            lines.append(f"{cell.name}: not in the liberty file")
        elif cell.area_um2 != other.area_um2:
            lines.append(f"{cell.name}: {cell.area_um2} um2, liberty says {other.area_um2} um2")
        elif dict(cell.inputs).keys() != dict(other.inputs).keys():
            lines.append(f"{cell.name}: other pins in the liberty file")
        elif [out.function for out in cell.outputs] != [out.function for out in other.outputs]:
            lines.append(f"{cell.name}: other function in the liberty file")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--extract", type=Path, metavar="LIB")
    action.add_argument("--compare", type=Path, metavar="LIB")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", default="nangate45")
    for name in ("name", "source", "licence", "version"):
        parser.add_argument(f"--{name}", default="")
    options = parser.parse_args(arguments)
    if options.extract is not None:
        text = read_liberty_text(options.extract)
        library = read_library(text, options.source, options.licence, options.version)
        table = dataclasses.replace(library, name=options.name or library.name)
        comment = "Written by benchmarks/cells.py --extract; not to be edited."
        out = library_to_text(table, comment)
        if options.out is None:
            sys.stdout.write(out)
        else:
            options.out.write_text(out, encoding="utf-8")
        return 0
    table = load_library(options.table)
    lines = differences(table, read_library(read_liberty_text(options.compare)))
    same = len(table.cells) - len(lines)
    print(f"{options.table}: {same} of {len(table.cells)} cells agree in area, pins and function")
    print("\n".join(lines))
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
