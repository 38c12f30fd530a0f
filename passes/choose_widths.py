"""Choose widths: the fewest activation bits that keep the float model's answers.

1. Quantise at 8 bits and run the integer program on the calibration inputs.
2. Agreement (share of equal arg-max) and divergence (mean Kullback-Leibler divergence of the
   softmax, about the loss of log-perplexity) or, for tensors, relative squared error decide.
3. While they miss their targets, one step wider: 9, 10, 12, 16 bits, as long as that helps. Bits
   cost cycles, not area of the matrices. A width the user names is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import BudgetError
from hwcompile.compiler.ir import graph
from hwcompile.compiler.ir.program import IntArray, Program
from hwcompile.passes import grids, quantise
from hwcompile.passes.calibrate import Calibration, Feeds
from hwcompile.passes.grids import FloatArray
from hwcompile.passes.needs import Widths
from hwcompile.passes.quantise import QuantiseOptions

Execute = Callable[[Program, Feeds], Mapping[str, IntArray]]
"""Integer outputs by model name ``[N, rows, cols]`` of a program, from inputs by model name."""

STEPS = (8, 9, 10, 12, 16)
SEQUENCE_AGREEMENT = 0.96
CLASS_AGREEMENT = 0.985
DIVERGENCE = 0.004
RELATIVE_ERROR = 0.0005
_TABLE_BITS = 10  # a table doubles with every bit
_WORTH = 0.75  # a step must bring the error below this part of it
_JUDGED = 32  # samples

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near integers come to floats; what does not apply is None."""

    agreement: float | None
    divergence: float | None
    relative_error: float

    @property
    def error(self) -> float:
        """The measure that is to fall."""
        return self.relative_error if self.divergence is None else self.divergence

    def __str__(self) -> str:
        if self.agreement is None or self.divergence is None:
            return f"relative squared error {self.relative_error:.2e}"
        return f"agreement {self.agreement:.2%}, divergence {self.divergence:.2e}"


@dataclass(frozen=True, slots=True)
class Quantised:
    """The program, its activation bits, fidelity on calibration inputs, lines for the report."""

    program: Program
    activation_bits: int
    fidelity: Fidelity
    lines: tuple[str, ...]


def run(
    net: graph.Graph,
    calibration: Calibration,
    execute: Execute,
    options: QuantiseOptions | None = None,
    activation_bits: int | None = None,
    min_agreement: float | None = None,
) -> Quantised:
    """Quantise at the least sufficient width, or at ``activation_bits``.

    Raises BudgetError when ``min_agreement`` is out of reach.
    """
    options = options or QuantiseOptions()
    lines = [f"calibration: {calibration.source}", *_weight_lines(net, options)]
    best: Quantised | None = None
    for bits in STEPS if activation_bits is None else (activation_bits,):
        program = quantise.run(
            net, calibration.samples, replace(options, widths=_widths(options.widths, bits))
        )
        fidelity = judge(net, calibration, program, execute)
        lines.append(f"{bits}-bit activations: {fidelity}")
        if best is not None and fidelity.error > _WORTH * best.fidelity.error:
            lines.append(f"wider activations do not help: {best.activation_bits} bits kept")
            break
        best = Quantised(program, bits, fidelity, ())
        if _enough(net, fidelity, min_agreement):
            break
    assert best is not None  # at least one width was tried
    reached = best.fidelity.agreement
    if min_agreement is not None and (reached is None or reached < min_agreement):
        raise BudgetError(
            f"agreement {min_agreement:.2%} asked, {reached or 0.0:.2%} reached",
            "allow wider activations or weights",
        )
    return replace(best, lines=tuple(lines))


def _weight_lines(net: graph.Graph, options: QuantiseOptions) -> list[str]:
    """How many matrices keep integers of the file, and what rounding costs the others."""
    matrices = [op for op in net.operations if isinstance(op, graph.Linear)]
    kept = [op for op in matrices if op.grid_values is not None and options.weights == "auto"]
    lines = [f"{len(kept)} matrices keep the integers of the file"] if kept else []
    rounded = [op.weight for op in matrices if not any(op is k for k in kept) and op.weight.any()]
    if rounded:
        bits = quantise.WEIGHT_BITS[options.weights]
        errors = [grids.relative_error(weight, bits) for weight in rounded]
        lines.append(
            f"{len(rounded)} matrices are rounded to {bits} bits: "
            f"relative error of a weight {np.median(errors):.2%} in the middle, "
            f"{max(errors):.2%} at most"
        )
    return lines


def _widths(base: Widths, bits: int) -> Widths:
    return replace(base, narrow=bits, table=min(bits, _TABLE_BITS), score=bits, rotary=bits + 3)


def _enough(net: graph.Graph, fidelity: Fidelity, min_agreement: float | None) -> bool:
    # A quantised file has rounding of its own, which adds to ours: ours must be small beside it.
    part = 0.5 if any(output.grid_scale for output in net.outputs) else 1.0
    if fidelity.agreement is None or fidelity.divergence is None:
        return fidelity.relative_error <= part * RELATIVE_ERROR
    least = SEQUENCE_AGREEMENT if "sequence" in net.sections else CLASS_AGREEMENT
    least = max(1 - part * (1 - least), min_agreement or 0.0)
    return fidelity.agreement >= least and fidelity.divergence <= part * DIVERGENCE


def judge(
    net: graph.Graph, calibration: Calibration, program: Program, execute: Execute
) -> Fidelity:
    """Fidelity of the first output on the first calibration inputs."""
    feeds = {name: x[:_JUDGED] for name, x in calibration.feeds.items()}
    output = program.outputs[0]
    real = np.asarray(calibration.outputs[output.model_name][:_JUDGED], np.float64)
    grid = net.outputs[0].grid_scale
    if grid:
        real = np.floor(real / grid + 0.5) * grid
    got = execute(program, feeds)[output.model_name] * program.values[output.value].scale
    got = np.asarray(got, np.float64).reshape(real.shape)
    error = float(((got - real) ** 2).mean() / max(float(real.var()), 1e-30))
    if output.kind != "logits":
        return Fidelity(None, None, error)
    agreement = float((got.argmax(-1) == real.argmax(-1)).mean())
    return Fidelity(agreement, divergence(real, got), error)


def divergence(real: FloatArray, got: FloatArray) -> float:
    """Mean Kullback-Leibler divergence, in nats, of the softmax over the last axis."""
    p, q = _log_softmax(real), _log_softmax(got)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def _log_softmax(z: FloatArray) -> FloatArray:
    z = z - z.max(-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(-1, keepdims=True)), np.float64)
