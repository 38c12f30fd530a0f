"""Area of a mapped chip: per module, per layer, memories apart, up to the core of the die."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hwcompile.compiler.estimate.memory_macro import macro_area_um2, memory_macro
from hwcompile.compiler.estimate.netlist_statistics import NetlistStatistics
from hwcompile.compiler.estimate.synthesis import SynthesisResult
from hwcompile.compiler.estimate.targets import Target
from hwcompile.compiler.estimate.timing import TimingReport

OTHER = "other"
"""Layer of modules that belong to none."""


@dataclass(frozen=True, slots=True)
class ModuleArea:
    """One module, without its children, one instance: ``area_um2`` of its cells;
    ``tree_area_um2``: the part of it that bounds the fan-out; ``clock_tree_um2``: buffers that the
    clock will need, estimated and not in the netlist."""

    name: str
    layer: str
    instances: int
    area_um2: float
    tree_area_um2: float
    clock_tree_um2: float
    by_kind: Mapping[str, float]
    statistics: NetlistStatistics
    weights: int

    @property
    def total_um2(self) -> float:
        """Cells of all instances, those of the clock tree too."""
        return self.instances * (self.area_um2 + self.clock_tree_um2)


@dataclass(frozen=True, slots=True)
class LayerArea:
    """All modules of one layer. ``um2_per_weight`` is None for a layer without weights."""

    name: str
    area_um2: float
    weights: int

    @property
    def um2_per_weight(self) -> float | None:
        return self.area_um2 / self.weights if self.weights else None


@dataclass(frozen=True, slots=True)
class MemoryArea:
    """All instances of one memory macro; ``low_um2`` .. ``high_um2`` is the range of the model."""

    name: str
    kind: str
    instances: int
    words: int
    bits: int
    area_um2: float
    low_um2: float
    high_um2: float


@dataclass(frozen=True, slots=True)
class AreaReport:
    """Areas in um2. ``cell_area_um2`` holds all cells: ``tree_area_um2`` is the part of them that
    bounds the fan-out, ``clock_tree_um2`` the estimated part that is not in the netlist.
    ``core_area_um2`` adds the memories and the room that routing needs (cells divided by
    ``utilisation``)."""

    target: str
    library: str
    gate_um2: float
    utilisation: float
    modules: tuple[ModuleArea, ...]
    layers: tuple[LayerArea, ...]
    memories: tuple[MemoryArea, ...]
    cell_area_um2: float
    tree_area_um2: float
    clock_tree_um2: float
    memory_area_um2: float
    core_area_um2: float
    core_low_um2: float
    core_high_um2: float
    by_kind: Mapping[str, float]
    weights: int

    @property
    def gate_equivalents(self) -> float:
        """Cell area in two-input NAND gates."""
        return self.cell_area_um2 / self.gate_um2

    @property
    def um2_per_weight(self) -> float | None:
        """Cells of the modules that hold weights, a weight (zeros included)."""
        held = sum(module.total_um2 for module in self.modules if module.weights)
        return held / self.weights if self.weights else None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file, derived figures included."""
        content = asdict(self)
        content["gate_equivalents"] = self.gate_equivalents
        content["um2_per_weight"] = self.um2_per_weight
        for entry, layer in zip(content["layers"], self.layers, strict=True):
            entry["um2_per_weight"] = layer.um2_per_weight
        return content


def area_report(
    synthesis: SynthesisResult,
    timing: TimingReport,
    target: Target,
    *,
    layers: Mapping[str, str] | None = None,
    weights: Mapping[str, int] | None = None,
    memories: Mapping[str, str] | None = None,
) -> AreaReport:
    """Add up a synthesis.

    ``layers``: module to layer name (default ``other``). ``weights``: module to the number of
    weights it holds, zeros included. ``memories``: macro to its kind (``kv``, ``data``, ...;
    default ``data``). Black boxes that are no memory have no area.
    """
    layer_of, weight_of = layers or {}, weights or {}
    modules = tuple(
        ModuleArea(
            name,
            layer_of.get(name, OTHER),
            synthesis.instances[name],
            module.area_um2,
            module.tree_area_um2,
            timing.modules[name].clock_buffer_area_um2,
            dict(module.area_by_kind),
            timing.modules[name].statistics,
            weight_of.get(name, 0),
        )
        for name, module in synthesis.modules.items()
    )
    macros = _memories(synthesis, target, memories or {})
    cells = sum(module.total_um2 for module in modules)
    room = target.figures["utilisation"]
    return AreaReport(
        target=target.name,
        library=target.library.name,
        gate_um2=target.library.nand2.area_um2,
        utilisation=room.value,
        modules=modules,
        layers=_layers(modules),
        memories=macros,
        cell_area_um2=cells,
        tree_area_um2=synthesis.tree_area_um2,
        clock_tree_um2=sum(module.instances * module.clock_tree_um2 for module in modules),
        memory_area_um2=sum(macro.area_um2 for macro in macros),
        core_area_um2=cells / room.value + sum(macro.area_um2 for macro in macros),
        core_low_um2=cells / room.high + sum(macro.low_um2 for macro in macros),
        core_high_um2=cells / room.low + sum(macro.high_um2 for macro in macros),
        by_kind=dict(synthesis.area_by_kind),
        weights=sum(module.instances * module.weights for module in modules),
    )


def _layers(modules: tuple[ModuleArea, ...]) -> tuple[LayerArea, ...]:
    names = dict.fromkeys(module.layer for module in modules)
    return tuple(
        LayerArea(
            name,
            sum(module.total_um2 for module in modules if module.layer == name),
            sum(module.instances * module.weights for module in modules if module.layer == name),
        )
        for name in names
    )


def _memories(
    synthesis: SynthesisResult, target: Target, kinds: Mapping[str, str]
) -> tuple[MemoryArea, ...]:
    found = []
    for name, count in sorted(synthesis.black_boxes.items()):
        macro = memory_macro(name)
        if macro is None:
            continue
        area = macro_area_um2(macro, target)
        found.append(
            MemoryArea(
                name,
                kinds.get(name, "data"),
                count,
                macro.words,
                macro.bits,
                count * area.value,
                count * area.low,
                count * area.high,
            )
        )
    return tuple(found)
