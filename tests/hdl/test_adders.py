from collections.abc import Callable

import numpy as np
import pytest
from amaranth import Module, Signal, signed
from amaranth.sim import Simulator

from hwcompile.hdl.adders import multiple, wide_sum


def simulate(m: Module, bench: Callable[..., object]) -> None:
    simulator = Simulator(m)
    simulator.add_testbench(bench)  # type: ignore[arg-type]
    simulator.run()


@pytest.mark.parametrize("width", [1, 19, 20, 21, 47])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_sum_modulo_its_width(width: int, count: int) -> None:
    m = Module()
    terms = [Signal(signed(width), name=f"term_{i}") for i in range(count)]
    total = wide_sum(m, terms, width, "total")
    rng = np.random.default_rng(width * count)
    ends = (-(1 << width - 1), -1, 0, (1 << width - 1) - 1)
    rows = [[end] * count for end in ends]
    rows += [[int(x) for x in rng.integers(ends[0], ends[-1] + 1, count)] for _ in range(30)]

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        for row in rows:
            for term, value in zip(terms, row, strict=True):
                ctx.set(term, value)
            await ctx.delay(1e-9)
            assert ctx.get(total) == sum(row) % (1 << width)

    simulate(m, bench)


@pytest.mark.parametrize("factor", [0, 1, 2, 48, 101])
def test_multiple_is_a_sum_of_shifts(factor: int) -> None:
    m = Module()
    x = Signal(8)
    total = wide_sum(m, [*multiple(x, factor), x, x], 20, "total")

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        for value in (0, 1, 77, 255):
            ctx.set(x, value)
            await ctx.delay(1e-9)
            assert ctx.get(total) == value * (factor + 2)

    simulate(m, bench)
