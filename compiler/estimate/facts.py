"""What the estimator must know of a design: plain numbers, from synthesis and the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

AreaBasis = Literal["synthesised", "modelled"]
RespinScope = Literal["all", "metal", "via"]


@dataclass(frozen=True, slots=True)
class GroupArea:
    """Standard cells of one group (``weights``, ``attention``, ``norms``, ``control``, ...)."""

    group: str
    cell_area_um2: float


@dataclass(frozen=True, slots=True)
class Memory:
    """An on-chip memory. ``area_um2`` is None when no macro was sized; ``kind``: ``kv``, ``data``,
    ``table``; ``rom`` for weights in a mask ROM."""

    name: str
    kind: str
    bits: int
    area_um2: float | None = None


@dataclass(frozen=True, slots=True)
class DesignFacts:
    """One design at one process node.

    ``item`` is what a user counts: ``token``, or ``inference`` for a model that makes none.
    ``cycles_per_item`` is the mean latency of one item of one sequence; ``slots`` sequences are in
    flight. ``macs_per_item`` counts multiply-accumulates of the model, zeros included;
    ``memory_bits_per_item`` the bits read and written in memories. ``respin_scope`` says which
    masks a new set of weights changes. ``predictive`` names a cell library that no foundry
    manufactures. ``weights_per_place``: weights that take turns in one place of the weight logic.
    ``cut_bits_per_item`` cross from die to die where a model takes several. ``bearable_defects``:
    wrong weights that the model was measured to bear; None when nobody measured. ``cell_range``:
    low and high of modelled cell areas, as ratios. ``embedding``: how the weights are held; ``rom``
    and ``metal`` are priced by published machines, with ``logic_transistors`` beside the weights.
    ``interface_mm2``: of each die, memory interfaces that the model does not imply.
    """

    name: str
    item: str
    node_nm: float
    library: str
    predictive: bool
    weights_total: int
    weights_nonzero: int
    groups: tuple[GroupArea, ...]
    memories: tuple[Memory, ...]
    area_basis: AreaBasis
    critical_path_ns: float
    clock_period_ns: float
    cycles_per_item: float
    macs_per_item: float
    memory_bits_per_item: float
    io_signals: int
    slots: int = 1
    context: int = 0
    respin_scope: RespinScope = "all"
    weights_per_place: float = 1.0
    cut_bits_per_item: float = 0.0
    bearable_defects: int | None = None
    cell_range: tuple[float, float] | None = None
    embedding: Literal["logic", "rom", "metal"] = "logic"
    logic_transistors: float = 0.0
    interface_mm2: float = 0.0

    @property
    def cell_area_um2(self) -> float:
        """Standard cells of all groups."""
        return sum(g.cell_area_um2 for g in self.groups)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DesignFacts:
        """The inverse of :meth:`to_json`."""
        plain = dict(content)
        plain["groups"] = tuple(GroupArea(**g) for g in plain["groups"])
        plain["memories"] = tuple(Memory(**m) for m in plain["memories"])
        if plain.get("cell_range") is not None:
            plain["cell_range"] = tuple(plain["cell_range"])
        return cls(**plain)
