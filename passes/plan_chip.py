"""Plan the chip: place a Program on the machine.

1. Operations become tasks of units; inputs are received just before their first use, outputs
   emitted just after they are made.
2. A ``sequence`` section is one loop over the position. In a ``once`` section consecutive tasks
   with the same number of rows share a row loop, until one needs all rows of a value made in that
   loop (keys, values and flags of attention, gather, sums of rows): there a new loop starts.
3. Keys and values of attention go straight to their memories when nothing else reads them;
   otherwise a copy does.
4. A value that lives in one loop keeps one row in memory, any other all of its rows; places are
   shared by values that do not live at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.chip import Chip, Loop, MatrixPlan, Section
from hwcompile.passes.chip_places import Placement
from hwcompile.passes.chip_ports import cache_port_of, input_ports, output_ports
from hwcompile.passes.chip_tasks import loops_of, tasks_of, units_of


def plan_chip(
    program: ir.Program,
    matrices: Iterable[MatrixPlan] = (),
    logits_port: bool = True,
    cache_port: bool = False,
) -> Chip:
    """The Chip of a Program; ``matrices`` gives every Linear its plan (default: 1 phase).

    Raises ModelError for a program whose sequence section needs all rows of a value at once, and
    UsageError for a ``cache_port`` on anything but a decoder.
    """
    if cache_port and program.sections != ("sequence",):
        raise UsageError("only a decoder has a cache port", "compile without --cache-port")
    tasks = tasks_of(program)
    loops = loops_of(program, tasks)
    placement = Placement(program, loops)
    plans = {m.operation: m for m in matrices}
    units = units_of(tasks)
    return Chip(
        program=program,
        sections=tuple(
            Section(
                kind,
                ((placement.load_loop(loops[0].rows),) if cache_port else ())
                + tuple(
                    Loop(loop.rows, placement.body(loop)) for loop in loops if loop.section == index
                ),
            )
            for index, kind in enumerate(program.sections)
        ),
        units=units,
        matrices=tuple(
            plans.get(op.output.key, MatrixPlan(op.output.key, "bitplane", 1))
            for unit in units
            if unit.kind == "linear"
            for op in unit.operations
        ),
        gathers=tuple(
            placement.gather_addresses(op)
            for unit in units
            for op in unit.operations
            if isinstance(op, ir.Gather)
        ),
        ports=input_ports(program)
        + ((cache_port_of(placement.keys_and_values()),) if cache_port else ())
        + output_ports(program, logits_port),
        memories=placement.memories(),
        regions=tuple(placement.regions.values()),
        key_value_regions=tuple(placement.key_value_regions.values()),
    )
