"""Liberty files: reading cell facts out of one, writing a small one from a cell table."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.estimate.cells import (
    Cell,
    CellLibrary,
    Output,
    function_pins,
    parse_function,
    truth_table,
)

Floats = npt.NDArray[np.float64]

_MAX_BYTES = 1 << 29
_MAX_DEPTH = 32
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([{}():;,])|([^\s{}():;,"\\]+)|(\\?\s+)', re.DOTALL)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Delay, isolation, level-shift and probe cells: gates by their function, meant for other things.
_UNWANTED = re.compile(r"lpflow|probe|dly|clkinvlp|macro|bufbuf|bufinv|dlclk", re.IGNORECASE)
_SKIPPED = frozenset(
    {"internal_power", "leakage_power", "wire_load", "test_cell", "pg_pin", "operating_conditions"}
)


# --- the syntax --------------------------------------------------------------------------------


@dataclass(slots=True)
class Group:
    """``kind (args) { attributes; complex attributes; groups }``."""

    kind: str
    args: tuple[str, ...]
    attributes: dict[str, str] = field(default_factory=dict)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def of(self, kind: str) -> Iterator[Group]:
        """Direct sub-groups of one kind."""
        return (group for group in self.groups if group.kind == kind)

    def number(self, name: str, default: float = 0.0) -> float:
        text = self.attributes.get(name)
        try:
            return default if text is None else float(text)
        except ValueError:
            raise UsageError(f"liberty: {name} of {self.kind} {self.args} is {text!r}") from None


def parse_liberty(text: str) -> Group:
    """The ``library`` group of a liberty text; groups not needed here are skipped.

    Raises ``UsageError`` with the line number when the text is no liberty.
    """
    return _Reader(text).library()


class _Reader:
    def __init__(self, text: str) -> None:
        # Comments become as many line ends as they had, so that error lines stay right.
        self._text = _COMMENT.sub(lambda match: "\n" * match[0].count("\n") or " ", text)
        self._tokens: list[tuple[str, bool, int]] = []
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None:
                self._fail("unreadable character", position)
            if match[4] is None:
                quoted = match[1] is not None
                word = match[1] if quoted else match[2] or match[3]
                self._tokens.append((word, quoted, position))
            position = match.end()
        self._next = 0

    def _fail(self, what: str, position: int) -> NoReturn:
        line = self._text.count("\n", 0, position) + 1
        raise UsageError(f"liberty, line {line}: {what}", "is this a liberty (.lib) file?")

    def _peek(self) -> str:
        if self._next >= len(self._tokens):
            return ""
        word, quoted, _ = self._tokens[self._next]
        return "" if quoted else word

    def _take(self) -> str:
        if self._next >= len(self._tokens):
            self._fail("file ends within a group", len(self._text))
        word = self._tokens[self._next][0]
        self._next += 1
        return word

    def _expect(self, word: str) -> None:
        if self._peek() != word:
            place = min(self._next, len(self._tokens) - 1)
            position = self._tokens[place][2] if self._tokens else 0
            self._fail(f"expected {word!r}", position)
        self._next += 1

    def library(self) -> Group:
        if self._peek() != "library":
            self._fail("expected 'library'", 0)
        self._take()
        group = Group("library", self._arguments())
        self._body(group, 1)
        return group

    def _arguments(self) -> tuple[str, ...]:
        self._expect("(")
        words: list[str] = []
        while self._peek() != ")":
            word = self._take()
            if word != ",":
                words.append(word)
        self._expect(")")
        return tuple(words)

    def _body(self, group: Group, depth: int) -> None:
        if depth > _MAX_DEPTH:
            self._fail("groups nested too deeply", self._tokens[self._next][2])
        self._expect("{")
        while self._peek() != "}":
            self._statement(group, depth)
        self._expect("}")

    def _statement(self, group: Group, depth: int) -> None:
        name = self._take()
        if name == ";":
            return
        if self._peek() == ":":
            self._next += 1
            words = [self._take()]
            # An expression may have several words; a missing semicolon ends at the next line.
            while self._peek() not in (";", "}") and not self._starts_statement():
                words.append(self._take())
            if self._peek() == ";":
                self._next += 1
            group.attributes[name] = " ".join(words)
            return
        arguments = self._arguments()
        if self._peek() != "{":
            if self._peek() == ";":
                self._next += 1
            group.lists[name] = arguments
        elif name in _SKIPPED:
            self._skip()
        else:
            inner = Group(name, arguments)
            self._body(inner, depth + 1)
            group.groups.append(inner)

    def _starts_statement(self) -> bool:
        ahead = self._tokens[self._next + 1 : self._next + 2]
        return bool(ahead) and not ahead[0][1] and ahead[0][0] in (":", "(")

    def _skip(self) -> None:
        depth = 0
        while True:
            word = self._peek()
            self._take()
            depth += (word == "{") - (word == "}")
            if depth == 0:
                return


# --- from liberty to the cell table -------------------------------------------------------------


def read_liberty_text(path: Path) -> str:
    """Text of a ``.lib`` or ``.lib.gz`` file of at most 512 MB."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise UsageError(f"cannot read the liberty file {path}: {error}") from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"the liberty file {path} is larger than {_MAX_BYTES >> 20} MB")
    return data.decode("utf-8", errors="replace")


def read_library(text: str, source: str = "", licence: str = "", version: str = "") -> CellLibrary:
    """The cells of a liberty text that a mapper needs: plain combinational ones of at most six
    inputs, plain rising-edge D flip-flops, tie cells. Of each function the two smallest, of
    inverters and buffers all. Cells marked ``dont_use`` are left out.

    Delay model: delays at the library's typical slew (the output transition of its smallest
    inverter driving four of itself), the worst over conditions; rise and fall count as their mean
    where the gate inverts and as the worse elsewhere. The slew of an output is charged to it at
    the inverter's sensitivity. Slopes and offsets are least-squares fits over loads from 1 to 12
    inverter inputs. Capacitance in fF, time in ns.
    """
    root = parse_liberty(text)
    units = Units.of(root)
    raw = {
        group.args[0]: cell
        for group in root.of("cell")
        if group.args and (cell := _raw_cell(group, units)) is not None
    }
    inverters = [cell for cell in raw.values() if cell.is_inverter]
    if not inverters:
        raise UsageError("the liberty file has no inverter: nothing can be mapped to it")
    reference = min(inverters, key=lambda cell: (cell.area_um2, cell.name))
    conditions = _conditions(reference)
    return CellLibrary(
        name=root.args[0] if root.args else "",
        version=version or root.attributes.get("revision", ""),
        source=source,
        licence=licence,
        corner=root.attributes.get("default_operating_conditions", ""),
        voltage_v=root.number("nom_voltage"),
        typical_slew_ns=round(conditions.slew, 5),
        cells={cell.name: cell.fitted(conditions) for cell in _chosen(raw.values())},
    )


def _chosen(cells: Iterable[_RawCell]) -> list[_RawCell]:
    """Cells worth mapping to, by name."""
    chosen = []
    seen: dict[tuple[object, ...], int] = {}
    wanted = (cell for cell in cells if not _UNWANTED.search(cell.name))
    for cell in sorted(wanted, key=lambda cell: (cell.area_um2, cell.name)):
        pins = tuple(cell.inputs)
        tables = tuple(truth_table(parse_function(text), pins) for _, text, _ in cell.outputs)
        key = (len(pins), bool(cell.clock), tables)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= 2 or len(pins) == 1:
            chosen.append(cell)
    return sorted(chosen, key=lambda cell: cell.name)


@dataclass(frozen=True, slots=True)
class Units:
    """Scales of the file and the axes of its tables."""

    time_ns: float
    load_ff: float
    leakage_nw: float
    templates: Mapping[str, Group]

    @classmethod
    def of(cls, root: Group) -> Units:
        """Units of a ``library`` group."""
        templates = {group.args[0]: group for group in root.of("lu_table_template") if group.args}
        return cls(_time_ns(root), _load_ff(root), _leakage_nw(root), templates)


def _time_ns(root: Group) -> float:
    return _unit(root, "time_unit", "1ns", {"ms": 1e6, "us": 1e3, "ns": 1.0, "ps": 1e-3})


def _leakage_nw(root: Group) -> float:
    scale = {"mW": 1e6, "uW": 1e3, "nW": 1.0, "pW": 1e-3}
    return _unit(root, "leakage_power_unit", "1nW", scale)


def _unit(root: Group, name: str, default: str, scale: dict[str, float]) -> float:
    text = root.attributes.get(name, default)
    match = re.fullmatch(r"\s*([\d.]+)\s*(\w+)\s*", text)
    if match is None or match[2] not in scale:
        raise UsageError(f"liberty: unknown {name} {text!r}")
    return float(match[1]) * scale[match[2]]


def _load_ff(root: Group) -> float:
    scale = {"ff": 1.0, "pf": 1e3, "nf": 1e6}
    amount, unit = (*root.lists.get("capacitive_load_unit", ("1", "pf")), "")[:2]
    if unit.lower() not in scale:
        raise UsageError(f"liberty: unknown capacitive_load_unit {unit!r}")
    return float(amount) * scale[unit.lower()]


@dataclass(frozen=True, slots=True)
class DelayTable:
    """A look-up table over (input slew, load); either axis may have one point."""

    slews: Floats
    loads: Floats
    values: Floats

    def at(self, slew: float, loads: Floats) -> Floats:
        """Bilinear, held at the borders of the slew axis, extended along the load axis."""
        column = np.array([np.interp(slew, self.slews, line) for line in self.values.T])
        if len(self.loads) == 1:
            return np.full(len(loads), column[0])
        last = (column[-1] - column[-2]) / (self.loads[-1] - self.loads[-2])
        over = np.maximum(loads - self.loads[-1], 0.0)
        return np.asarray(np.interp(loads, self.loads, column) + last * over, np.float64)


@dataclass(frozen=True, slots=True)
class _Arc:
    """Delay and transition tables from one pin, of all conditions."""

    source: str
    senses: set[str]
    delays: tuple[list[DelayTable], list[DelayTable]]
    transitions: tuple[list[DelayTable], list[DelayTable]]

    def delay(self, slew: float, loads: Floats) -> Floats:
        return self._both_edges(self.delays, slew, loads)

    def transition(self, slew: float, loads: Floats) -> Floats:
        return self._both_edges(self.transitions, slew, loads)

    def _both_edges(
        self, tables: tuple[list[DelayTable], list[DelayTable]], slew: float, loads: Floats
    ) -> Floats:
        """Rise and fall as one: along inverting gates the edges alternate, so that their mean is
        right over a path; other gates may meet their worse edge time and again."""
        edges = [
            np.max([table.at(slew, loads) for table in group], axis=0) for group in tables if group
        ]
        inverting = self.senses == {"negative_unate"}
        return np.asarray((np.mean if inverting else np.max)(edges, axis=0), np.float64)


@dataclass(frozen=True, slots=True)
class _Conditions:
    """What delays are fitted for: input slew (ns), loads (fF), and what a slower output costs the
    next gate (ns of its delay for each ns of slew)."""

    slew: float
    loads: Floats
    sensitivity: float


@dataclass(frozen=True, slots=True)
class _RawCell:
    name: str
    area_um2: float
    leakage_nw: float
    inputs: dict[str, float]
    outputs: list[tuple[str, str, list[_Arc]]]
    clock: str
    setup_ns: float

    @property
    def is_inverter(self) -> bool:
        if len(self.inputs) != 1 or len(self.outputs) != 1 or self.clock:
            return False
        return truth_table(parse_function(self.outputs[0][1]), tuple(self.inputs)) == 0b01

    def fitted(self, conditions: _Conditions) -> Cell:
        return Cell(
            self.name,
            self.area_um2,
            round(self.leakage_nw, 4),
            {pin: round(value, 5) for pin, value in self.inputs.items()},
            tuple(_fit(*output, conditions) for output in self.outputs),
            self.clock,
            round(self.setup_ns, 5),
        )


def _fit(name: str, function: str, arcs: list[_Arc], conditions: _Conditions) -> Output:
    if not arcs:
        return Output(name, function, 0.0, {})
    loads = conditions.loads
    delays = [_stage_delay(arc, conditions) for arc in arcs]
    centred = loads - loads.mean()
    slopes = [float(centred @ delay / (centred @ centred)) for delay in delays]
    resistance = max(0.0, float(np.mean(slopes)))
    intrinsic = {
        arc.source: round(max(0.0, float(np.mean(delay - resistance * loads))), 5)
        for arc, delay in zip(arcs, delays, strict=True)
    }
    return Output(name, function, round(resistance, 7), intrinsic)


def _stage_delay(arc: _Arc, conditions: _Conditions) -> Floats:
    """Delay at each load, with what its slew adds to the next stage (less where it is sharp)."""
    delay = arc.delay(conditions.slew, conditions.loads)
    if not any(arc.transitions):
        return delay
    slew = arc.transition(conditions.slew, conditions.loads)
    return delay + conditions.sensitivity * (slew - conditions.slew)


def _conditions(inverter: _RawCell) -> _Conditions:
    """From the smallest inverter: the slew it gives when it drives four of itself, by iteration,
    and how much longer it takes at twice that slew."""
    capacitance = next(iter(inverter.inputs.values()))
    load = np.array([4 * capacitance])
    slew, sensitivity = 0.01, 0.0
    arcs = [arc for arc in inverter.outputs[0][2] if any(arc.transitions)]
    if arcs:
        for _ in range(50):
            slew = float(arcs[0].transition(slew, load)[0])
        longer = arcs[0].delay(2 * slew, load) - arcs[0].delay(slew, load)
        sensitivity = max(0.0, float(longer[0]) / slew)
    return _Conditions(slew, np.linspace(1, 12, 12) * capacitance, sensitivity)


def _raw_cell(group: Group, units: Units) -> _RawCell | None:
    """The cell, or nothing when the table has no use for it."""
    name = group.args[0]
    if any(True for kind in ("latch", "statetable") for _ in group.of(kind)):
        return None
    flops = list(group.of("ff"))
    pins = [pin for pin in group.of("pin") if pin.args]
    outputs = [pin for pin in pins if pin.attributes.get("direction") == "output"]
    inputs = {
        pin.args[0]: pin.number("capacitance") * units.load_ff
        for pin in pins
        if pin.attributes.get("direction") == "input"
    }
    if not outputs or len(inputs) > 6 or len(outputs) + len(inputs) != len(pins):
        return None
    # Names go into scripts and netlists: identifiers only.
    if not all(map(_IDENTIFIER.fullmatch, (name, *(pin.args[0] for pin in pins)))):
        return None
    # Libraries mark tie cells dont_use to keep mappers from choosing them as gates.
    if inputs and group.attributes.get("dont_use", "false").lower() == "true":
        return None
    if any("three_state" in pin.attributes or "function" not in pin.attributes for pin in outputs):
        return None
    area = group.number("area")
    leakage = group.number("cell_leakage_power") * units.leakage_nw
    if flops:
        return _raw_flop(name, area, leakage, inputs, flops, outputs, pins, units)
    if any("clock_gating_integrated_cell" in item.attributes for item in (group, *pins)):
        return None
    entries = []
    for pin in outputs:
        function = pin.attributes["function"]
        if set(function_pins(parse_function(function))) - set(inputs):
            return None
        entries.append((pin.args[0], function, _arcs(pin, set(inputs), units)))
    return _RawCell(name, area, leakage, inputs, entries, "", 0.0)


def _raw_flop(
    name: str,
    area: float,
    leakage: float,
    inputs: dict[str, float],
    flops: list[Group],
    outputs: list[Group],
    pins: list[Group],
    units: Units,
) -> _RawCell | None:
    """A rising-edge flip-flop with nothing but clock and data, or nothing."""
    flop = flops[0]
    clock = flop.attributes.get("clocked_on", "").strip("() ")
    data = flop.attributes.get("next_state", "").strip("() ")
    if len(flops) != 1 or set(inputs) != {clock, data} or len(flop.args) != 2:
        return None
    if "clear" in flop.attributes or "preset" in flop.attributes:
        return None
    states = {flop.args[0]: data, flop.args[1]: f"!{data}"}
    entries = []
    for pin in outputs:
        function = states.get(pin.attributes["function"].strip("() "))
        if function is None:
            return None
        entries.append((pin.args[0], function, _arcs(pin, {clock}, units)))
    setup = max((_setup(pin, units) for pin in pins if pin.args[0] == data), default=0.0)
    return _RawCell(name, area, leakage, inputs, entries, clock, setup)


def _setup(pin: Group, units: Units) -> float:
    """Setup time at the middle of the constraint tables."""
    tables = [
        table
        for timing in pin.of("timing")
        if timing.attributes.get("timing_type") == "setup_rising"
        for kind in ("rise_constraint", "fall_constraint")
        for table in delay_tables(timing, kind, units)
    ]
    middles = [table.values[len(table.slews) // 2, len(table.loads) // 2] for table in tables]
    return max(0.0, float(max(middles, default=0.0)) * units.time_ns)


def _arcs(pin: Group, sources: set[str], units: Units) -> list[_Arc]:
    arcs: dict[str, _Arc] = {}
    for timing in pin.of("timing"):
        source = timing.attributes.get("related_pin", "").strip()
        kind = timing.attributes.get("timing_type", "combinational")
        if source not in sources or kind not in ("combinational", "rising_edge"):
            continue
        arc = arcs.setdefault(source, _Arc(source, set(), ([], []), ([], [])))
        arc.senses.add(timing.attributes.get("timing_sense", "non_unate"))
        for index, edge in enumerate(("rise", "fall")):
            arc.delays[index].extend(delay_tables(timing, f"cell_{edge}", units))
            arc.transitions[index].extend(delay_tables(timing, f"{edge}_transition", units))
    return [arc for arc in arcs.values() if any(arc.delays)]


def delay_tables(timing: Group, kind: str, units: Units) -> Iterator[DelayTable]:
    """Tables ``kind`` (``cell_rise``, ``fall_transition``, ...) of a ``timing`` group."""
    for group in timing.of(kind):
        template = units.templates.get("".join(group.args[:1]), _NO_TEMPLATE)
        axes = [
            _numbers(group.lists.get(axis, template.lists.get(axis, ())))
            for axis in ("index_1", "index_2")
        ]
        sizes = [max(1, len(axis)) for axis in axes]
        values = _numbers(group.lists.get("values", ()))
        if len(values) != sizes[0] * sizes[1]:
            continue
        grid = values.reshape(sizes) * units.time_ns
        # The first axis is the slew unless the template says otherwise.
        if template.attributes.get("variable_1") == "total_output_net_capacitance":
            axes, grid = axes[::-1], grid.T
        slews, loads = (axis if len(axis) else np.zeros(1) for axis in axes)
        yield DelayTable(slews * units.time_ns, loads * units.load_ff, grid)


_NO_TEMPLATE = Group("lu_table_template", ())


def _numbers(words: tuple[str, ...]) -> Floats:
    try:
        return np.array(
            [float(part) for word in words for part in re.split(r"[,\s\\]+", word) if part]
        )
    except ValueError as error:
        raise UsageError(f"liberty: a table holds something else than numbers: {error}") from None


# --- from the cell table to liberty -------------------------------------------------------------


def write_liberty(library: CellLibrary) -> str:
    """A small liberty text for Yosys and ABC; areas are those of the table, figure for figure.

    The delay tables have two points an axis: the linear model, no dependence on slew.
    """
    loads = (0.0, 100.0)
    lines = [
        f"library ({library.name}) {{",
        "  delay_model : table_lookup;",
        '  time_unit : "1ns";',
        '  voltage_unit : "1V";',
        '  current_unit : "1mA";',
        '  leakage_power_unit : "1nW";',
        '  pulling_resistance_unit : "1kohm";',
        "  capacitive_load_unit (1, ff);",
        f"  nom_voltage : {library.voltage_v!r};",
        "  nom_temperature : 25.0;",
        "  nom_process : 1.0;",
        "  input_threshold_pct_rise : 50.0;",
        "  input_threshold_pct_fall : 50.0;",
        "  output_threshold_pct_rise : 50.0;",
        "  output_threshold_pct_fall : 50.0;",
        "  slew_lower_threshold_pct_rise : 20.0;",
        "  slew_lower_threshold_pct_fall : 20.0;",
        "  slew_upper_threshold_pct_rise : 80.0;",
        "  slew_upper_threshold_pct_fall : 80.0;",
        "  default_max_transition : 10.0;",
        "  lu_table_template (delay_2x2) {",
        "    variable_1 : input_net_transition;",
        "    variable_2 : total_output_net_capacitance;",
        '    index_1 ("0.0, 1.0");',
        f'    index_2 ("{loads[0]!r}, {loads[1]!r}");',
        "  }",
    ]
    for cell in library.cells.values():
        lines += _cell_lines(cell, library.typical_slew_ns, loads)
    return "\n".join([*lines, "}", ""])


def _cell_lines(cell: Cell, slew_ns: float, loads: tuple[float, float]) -> Iterator[str]:
    yield f"  cell ({cell.name}) {{"
    yield f"    area : {cell.area_um2!r};"
    yield f"    cell_leakage_power : {cell.leakage_nw!r};"
    if cell.is_flip_flop:
        data = next(pin for pin in cell.inputs if pin != cell.clock)
        yield "    ff (IQ, IQN) {"
        yield f'      clocked_on : "{cell.clock}";'
        yield f'      next_state : "{data}";'
        yield "    }"
    for pin, capacitance in cell.inputs.items():
        clock = " clock : true;" if pin == cell.clock else ""
        yield f"    pin ({pin}) {{ direction : input;{clock} capacitance : {capacitance!r}; }}"
    for output in cell.outputs:
        function = output.function
        if cell.is_flip_flop:
            function = "IQN" if function.startswith("!") else "IQ"
        yield f"    pin ({output.name}) {{"
        yield "      direction : output;"
        yield f'      function : "{function}";'
        for source, intrinsic in output.intrinsic_ns.items():
            kind = "rising_edge" if source == cell.clock else "combinational"
            delays = [intrinsic + output.resistance_ns_per_ff * load for load in loads]
            yield "      timing () {"
            yield f'        related_pin : "{source}";'
            yield f"        timing_type : {kind};"
            for table, row in (("cell", delays), ("transition", [slew_ns, slew_ns])):
                text = ", ".join(f"{value:.6f}" for value in row)
                for edge in ("rise", "fall"):
                    name = f"cell_{edge}" if table == "cell" else f"{edge}_transition"
                    yield f'        {name} (delay_2x2) {{ values ("{text}", "{text}"); }}'
            yield "      }"
        yield "    }"
    yield "  }"
