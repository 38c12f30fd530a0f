"""The reference: executes a Program exactly, with numpy alone.

A sequence section runs in pieces of any length, from one row (:meth:`Stepper.step`, as the chip
does) to the whole context (:func:`run`), with the same integers. Floats appear only on entry
(:func:`quantise_inputs`, :func:`quantise_caches`) and on exit (:func:`dequantise`).

Example, greedy generation from a decoder::

    stepper = Stepper(program)
    for token in prompt:
        logits = stepper.step(token)
    token = int(logits.argmax())        # ties go to the lowest id
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.ir import operations, order
from hwcompile.compiler.ir import program as ir
from hwcompile.compiler.ir.program import IntArray, Program

Feeds = Mapping[str, NDArray[Any]]
Arrays = dict[str, IntArray]
Observer = Callable[[ir.Operation, IntArray], None]

_CHUNK = 64  # samples executed together: bounds memory


@dataclass(frozen=True, slots=True)
class Caches:
    """Keys and values of earlier tokens: value key -> ``[N, length, cols]``."""

    length: int
    rows: Mapping[str, IntArray]


def context(program: Program) -> int:
    """Rows of the sequence section, or 0 when there is none."""
    sequence = [i.value.rows for i in program.inputs if program.sections[i.section] == "sequence"]
    return max(sequence, default=0)


# --- floats in ----------------------------------------------------------------------------------


def quantise_inputs(program: Program, feeds: Feeds) -> Arrays:
    """Model inputs by name, ``[N, ...]``, as integers by value key, ``[N, rows, cols]``.

    Rows of a sequence may be fewer than the context. Raises UsageError for a missing input, a wrong
    size or an id out of range.
    """
    return {given.value.key: _quantise_input(program, given, feeds) for given in program.inputs}


def _quantise_input(program: Program, given: ir.Input, feeds: Feeds) -> IntArray:
    name, value = given.model_name, given.value
    if name not in feeds:
        raise UsageError(f"input {name!r} is missing", f"inputs: {_names(program)}")
    x = np.asarray(feeds[name])
    sequence = program.sections[given.section] == "sequence"
    rows = x.shape[1] if sequence and x.ndim > 1 else value.rows
    if rows > value.rows or x.size != len(x) * rows * value.cols:
        shape = "x".join(str(size) for size in given.model_shape[1:])
        raise UsageError(
            f"input {name!r} has shape {list(x.shape)}", f"expected N x {shape}, the batch first"
        )
    x = x.reshape(len(x), rows, value.cols)
    if given.kind == "tensor":
        real = np.floor(x.astype(np.float64) / value.scale + 0.5)
        if not np.isfinite(real).all():
            raise UsageError(f"input {name!r} holds values that are not finite")
        return np.asarray(np.clip(real, value.low, value.high), np.int64)
    if x.dtype.kind == "f" and not np.array_equal(x, np.floor(x)):
        raise UsageError(f"input {name!r} must hold integers")
    ids = x.astype(np.int64)
    if given.kind == "flags":
        return np.asarray(ids != 0, np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= given.id_count):
        raise UsageError(f"input {name!r} has ids outside 0..{given.id_count - 1}")
    return ids


def _names(program: Program) -> str:
    return ", ".join(given.model_name for given in program.inputs)


def quantise_caches(program: Program, feeds: Feeds) -> Caches | None:
    """The model's cache inputs ``[N, kv_heads, length, size]`` (all or none given) as integers.

    Caches of a `step` file are as long as the context; ``position`` says how many rows they hold.
    Raises UsageError for caches that are missing, differ in length or do not fit.
    """
    named = [cache for cache in program.caches if cache.input_name in feeds]
    if not named:
        return None
    if len(named) < len(program.caches):
        missing = [c.input_name for c in program.caches if c.input_name not in feeds]
        raise UsageError(f"cache input {missing[0]!r} is missing", "give all caches or none")
    lengths = sorted({int(np.shape(feeds[cache.input_name])[2]) for cache in named})
    if len(lengths) > 1:
        raise UsageError(f"caches hold {lengths} rows", "all caches must be of one length")
    length = lengths[0]
    if program.form == "step":
        length = _position(program, feeds)
    if not 0 <= length <= context(program):
        raise UsageError(f"caches of {length} rows do not fit the context of {context(program)}")
    rows = {cache_key(program, c): _quantise_cache(program, c, feeds)[:, :length] for c in named}
    return Caches(length, rows)


def _position(program: Program, feeds: Feeds) -> int:
    known = {i.model_name for i in program.inputs} | {c.input_name for c in program.caches}
    given = [np.asarray(x) for name, x in feeds.items() if name not in known]
    positions = sorted({int(p) for x in given if x.dtype.kind in "iu" for p in x.ravel()})
    if len(positions) != 1:
        raise UsageError("caches are given without one position", "add the position input")
    return positions[0]


def cache_key(program: Program, cache: ir.CacheTensor) -> str:
    """The key of the value a cache tensor holds: what its Attend reads."""
    attend = next(op for op in program.operations if op.output.key == cache.operation)
    return attend.inputs[1 if cache.role == "key" else 2]


def _quantise_cache(program: Program, cache: ir.CacheTensor, feeds: Feeds) -> IntArray:
    value = program.values[cache_key(program, cache)]
    x = np.moveaxis(np.asarray(feeds[cache.input_name], np.float64), 1, 2)
    real = np.floor(x.reshape(*x.shape[:2], value.cols) / value.scale + 0.5)
    return np.clip(real, value.low, value.high).astype(np.int64)


# --- floats out ---------------------------------------------------------------------------------


def dequantise(program: Program, outputs: Mapping[str, IntArray]) -> dict[str, NDArray[np.float64]]:
    """Integer outputs by model name as floats, each in the model's shape."""
    return {
        name: np.asarray(x * program.values[_output(program, name).value].scale, np.float64)
        for name, x in model_shapes(program, outputs).items()
    }


def model_shapes(program: Program, outputs: Mapping[str, IntArray]) -> Arrays:
    """Outputs ``[N, rows, cols]`` in the shapes of the model; a shorter sequence stays shorter."""
    return {name: _model_shape(_output(program, name), x) for name, x in outputs.items()}


def _model_shape(output: ir.Output, x: IntArray) -> IntArray:
    shape = output.model_shape[1:]
    if int(np.prod(shape)) == x.shape[1] * x.shape[2]:
        return x.reshape(len(x), *shape)
    return x


def _output(program: Program, name: str) -> ir.Output:
    return next(output for output in program.outputs if output.model_name == name)


def dequantise_caches(program: Program, caches: Caches) -> dict[str, NDArray[np.float64]]:
    """Caches as the model's cache outputs by name, ``[N, kv_heads, length, size]``; those of a
    `step` file are as long as the context, zeros after the last row."""
    attends = {op.output.key: op for op in program.operations if isinstance(op, ir.Attend)}
    result = {}
    for cache in program.caches:
        key = cache_key(program, cache)
        x = np.asarray(caches.rows[key] * program.values[key].scale, np.float64)
        heads = attends[cache.operation].kv_heads
        if program.form == "step":
            x = np.pad(x, ((0, 0), (0, context(program) - caches.length), (0, 0)))
        result[cache.output_name] = np.moveaxis(x.reshape(*x.shape[:2], heads, -1), 1, 2)
    return result


# --- execution ----------------------------------------------------------------------------------


class Stepper:
    """A program in execution on N samples: its once sections done, its sequence at ``position``.

    ``inputs``: integers by value key for the once sections (others are ignored). ``caches``: the
    keys and values of earlier tokens. ``observe(operation, output)`` sees every result.
    """

    def __init__(
        self,
        program: Program,
        inputs: Mapping[str, IntArray] | None = None,
        caches: Caches | None = None,
        observe: Observer | None = None,
    ) -> None:
        self.program = program
        self.position = 0 if caches is None else caches.length
        self._observe = observe
        self._context = context(program)
        self._remembered = _remembered(program)
        self._past: Arrays = {} if caches is None else dict(caches.rows)
        self._values: Arrays = dict(inputs or {})
        self._values.update(self._execute("once", 0, 0))

    def advance(self, inputs: Mapping[str, IntArray]) -> Arrays:
        """Executes the next rows of the sequence: integers by key ``[N, rows, 1]`` -> outputs of
        the sequence section by model name ``[N, rows, cols]``. Raises UsageError past the context.
        """
        keys = [i.value.key for i in self.program.inputs if i.value.key in inputs]
        rows = inputs[keys[0]].shape[-2] if keys else 0
        if self.position + rows > self._context:
            raise UsageError(
                f"{self.position + rows} tokens do not fit the context of {self._context}"
            )
        self._values.update(inputs)
        new = self._execute("sequence", self.position, rows)
        self.position += rows
        samples = inputs[keys[0]].shape[0]
        return {
            output.model_name: np.broadcast_to(
                new[output.value], (samples, *new[output.value].shape[-2:])
            )
            for output in self.program.outputs
            if output.value in new
        }

    def step(self, token: int) -> IntArray:
        """One token of one sample -> the integer logits of its row, ``[vocabulary]``."""
        given = self.sequence_input()
        outputs = self.advance({given.value.key: np.array([[[token]]], np.int64)})
        name = next(o.model_name for o in self.program.outputs if o.model_name in outputs)
        return np.asarray(outputs[name][0, 0], np.int64)

    def sequence_input(self) -> ir.Input:
        """The token input of the sequence section."""
        sections = self.program.sections
        return next(i for i in self.program.inputs if sections[i.section] == "sequence")

    def once_outputs(self) -> Arrays:
        """Outputs of the once sections by model name, ``[N, rows, cols]``."""
        return {
            output.model_name: self._values[output.value]
            for output in self.program.outputs
            if output.value in self._values
        }

    def caches(self) -> Caches:
        """Keys and values of all tokens so far."""
        return Caches(self.position, dict(self._past))

    def _execute(self, kind: ir.SectionKind, first: int, rows: int) -> Arrays:
        new: Arrays = {}
        own = [op for op in self.program.operations if self.program.sections[op.section] == kind]
        for run in order.runs(own):
            if run.recurrent:
                self._recur(run.operations, new, first, rows)
            for op in run.operations:
                if not run.recurrent:
                    new[op.output.key] = self._operation(op, new, first, rows)
                if self._observe is not None:
                    self._observe(op, new[op.output.key])
        if kind == "sequence":
            self._past.update({key: self._whole(key, new) for key in self._remembered})
        return new

    def _operation(self, op: ir.Operation, new: Arrays, first: int, rows: int) -> IntArray:
        sequence = self.program.sections[op.section] == "sequence"
        if not sequence or op.output.rows == 1 < self._context:
            # A once section, or a constant row of a sequence, is computed whole.
            first, rows = 0, op.output.rows
        xs = tuple(self._input(op, key, new) for key in op.inputs)
        if sequence and isinstance(op, ir.Gather):
            xs = tuple(
                _place(x, first, self.program.values[k]) for k, x in zip(op.inputs, xs, strict=True)
            )
        return operations.spec(op).meaning(op, xs, first, rows)

    def _recur(self, run: tuple[ir.Operation, ...], new: Arrays, first: int, rows: int) -> None:
        """A recurrence, row by row; a state begins with the row before ``first``."""
        if self.program.sections[run[0].section] != "sequence":
            first, rows = 0, run[0].output.rows
        made = {op.output.key for op in run}
        now = {key: x[..., -1:, :] for key, x in self._past.items() if key in made}
        pieces: dict[str, list[IntArray]] = {key: [] for key in made}
        for row in range(rows):
            for op in run:
                xs = tuple(
                    now.get(key, op.initial[None])
                    if isinstance(op, ir.Delay)
                    else now[key]
                    if key in made
                    else _row(self._input(op, key, new), row)
                    for key in op.inputs
                )
                now[op.output.key] = operations.spec(op).meaning(op, xs, first + row, 1)
                pieces[op.output.key].append(now[op.output.key])
        for key, parts in pieces.items():
            new[key] = np.concatenate(np.broadcast_arrays(*parts), axis=-2)

    def _input(self, op: ir.Operation, key: str, new: Arrays) -> IntArray:
        if isinstance(op, ir.Attend) and key in self._remembered and key in op.inputs[1:]:
            return self._whole(key, new)
        return new[key] if key in new else self._values[key]

    def _whole(self, key: str, new: Arrays) -> IntArray:
        piece = new[key] if key in new else self._values[key]
        if key not in self._past:
            return piece
        return np.concatenate([self._past[key], piece], axis=-2)


def _row(x: IntArray, row: int) -> IntArray:
    """One row, or the only one."""
    return x[..., row : row + 1, :] if x.shape[-2] > 1 else x


def _remembered(program: Program) -> tuple[str, ...]:
    """Values of a sequence section that attention or a state reads at earlier rows."""
    section = {i.value.key: i.section for i in program.inputs}
    section.update({op.output.key: op.section for op in program.operations})
    keys = [
        key
        for op in program.operations
        if program.sections[op.section] == "sequence"
        for key in _earlier(op)
        if program.sections[section[key]] == "sequence"
    ]
    return tuple(dict.fromkeys(keys))


def _earlier(op: ir.Operation) -> tuple[str, ...]:
    """The inputs an operation reads at earlier rows."""
    if isinstance(op, ir.Attend):
        return op.inputs[1:]
    return op.inputs if isinstance(op, ir.Delay) else ()


def _place(x: IntArray, first: int, value: ir.Value) -> IntArray:
    """A piece of rows at its place in the whole value, other rows 0."""
    if x.shape[-2] == value.rows:
        return x
    whole = np.zeros((*x.shape[:-2], value.rows, value.cols), np.int64)
    whole[..., first : first + x.shape[-2], :] = x
    return whole


def run(
    program: Program,
    inputs: Mapping[str, IntArray],
    caches: Caches | None = None,
    observe: Observer | None = None,
) -> Arrays:
    """Executes the program on N samples: integers by value key ``[N, rows, cols]`` -> outputs by
    model name ``[N, rows, cols]``, for all rows given. ``observe`` sees results of up to 64 samples
    at a time.
    """
    return run_with_caches(program, inputs, caches, observe)[0]


def run_with_caches(
    program: Program,
    inputs: Mapping[str, IntArray],
    caches: Caches | None = None,
    observe: Observer | None = None,
) -> tuple[Arrays, Caches]:
    """:func:`run`, and the keys and values after the last token."""
    samples = len(next(iter(inputs.values())))
    pieces = []
    for start in range(0, samples, _CHUNK):
        part = slice(start, start + _CHUNK)
        past = None
        if caches is not None:
            past = Caches(caches.length, {key: x[part] for key, x in caches.rows.items()})
        pieces.append(_run_chunk(program, {k: x[part] for k, x in inputs.items()}, past, observe))
    outputs = {name: np.concatenate([o[name] for o, _ in pieces]) for name in pieces[0][0]}
    rows = {k: np.concatenate([c.rows[k] for _, c in pieces]) for k in pieces[0][1].rows}
    return outputs, Caches(pieces[0][1].length, rows)


def _run_chunk(
    program: Program, inputs: Arrays, caches: Caches | None, observe: Observer | None
) -> tuple[Arrays, Caches]:
    once = {i.value.key for i in program.inputs if program.sections[i.section] == "once"}
    stepper = Stepper(program, {k: x for k, x in inputs.items() if k in once}, caches, observe)
    outputs = stepper.once_outputs()
    if "sequence" in program.sections:
        outputs.update(stepper.advance({k: x for k, x in inputs.items() if k not in once}))
    return {o.model_name: outputs[o.model_name] for o in program.outputs}, stepper.caches()


def execute(program: Program, feeds: Feeds) -> dict[str, NDArray[np.float64]]:
    """Float inputs by model name -> float outputs by model name, as the model file has them."""
    caches = quantise_caches(program, feeds)
    return dequantise(program, run(program, quantise_inputs(program, feeds), caches))


def generate(
    program: Program, prompt: list[int], tokens: int, inputs: Mapping[str, IntArray] | None = None
) -> list[int]:
    """Greedy tokens after ``prompt`` (at least one), up to ``tokens`` or the end of the context.

    ``inputs``: integers of the once sections (the source of an encoder-decoder).
    """
    stepper = Stepper(program, inputs)
    logits = np.zeros(0, np.int64)
    for token in prompt:
        logits = stepper.step(token)
    made = [int(logits.argmax())]
    while len(made) < tokens and stepper.position < context(program):
        made.append(int(stepper.step(made[-1]).argmax()))
    return made
