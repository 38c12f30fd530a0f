"""The report: one JSON document with everything, and one HTML page made from it alone.

What was not measured is null in the document and is said on the page; nothing is filled in. The
schema is described in docs/report.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hwcompile.compiler.emit.report_page import page
from hwcompile.compiler.errors import OutputError
from hwcompile.compiler.estimate.estimate import Estimate
from hwcompile.compiler.estimate.ledger import Quantity

SCHEMA = "hwcompile-report"
SCHEMA_VERSION = 3

Status = Literal["proven", "bounded", "simulated", "rebuilt", "failed", "not verified"]


@dataclass(frozen=True, slots=True)
class LayerZeros:
    """Weights of one layer; ``saved_um2``: the area of full adders that its zeros spare.

    A place of the weight logic without a weight is taken to spare what a place with one needs on
    average in the same matrix. None when the library has no full adder to measure by.
    """

    layer: str
    weights: int
    zeros: int
    saved_um2: float | None = None


@dataclass(frozen=True, slots=True)
class PassNote:
    """What one pass did, in words."""

    name: str
    changed: bool
    summary: str


@dataclass(frozen=True, slots=True)
class QualityLine:
    """One measure of the float model and of the compiled design, on ``samples`` of ``data``."""

    metric: str
    model: float | None
    design: float
    samples: int
    data: str


@dataclass(frozen=True, slots=True)
class ModuleCheck:
    """Verification of one module: how far, by what, on how much."""

    module: str
    status: Status
    method: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ModuleArea:
    """Synthesis of one module, all its instances together.

    ``tree_area_um2``, ``clock_tree_um2``: parts of ``cell_area_um2``, the buffers that bound the
    fan-out and those that the clock will need (estimated, not in ``cells``). The rest is of its
    nets without clock and constants.
    """

    module: str
    group: str
    cells: int
    cell_area_um2: float
    tree_area_um2: float
    clock_tree_um2: float
    nets: int
    fan_out_max: int
    fan_out_mean: float
    pins_per_cell: float


@dataclass(frozen=True, slots=True)
class BlockArea:
    """One weight block: what it is, and what its modules add up to (see :class:`ModuleArea`).

    ``decode``: where its phases are decoded; ``none`` where there is one phase.
    """

    module: str
    layer: str
    inputs: int
    outputs: int
    style: str
    phases: int
    planes: int
    decode: Literal["none", "local", "shared"]
    cells: int
    cell_area_um2: float
    tree_area_um2: float
    um2_per_weight: float
    nets: int
    fan_out_max: int
    fan_out_mean: float
    pins_per_cell: float


@dataclass(frozen=True, slots=True)
class Port:
    """One port of the chip and the layout of its data."""

    name: str
    direction: Literal["in", "out"]
    width: int
    layout: str


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """All that a report can say. Optional parts are None where they were not measured.

    ``title`` and every other text may come from the model file: it is escaped on the page.
    """

    title: str
    kind: str
    estimate: Estimate | None = None
    zeros: tuple[LayerZeros, ...] | None = None
    passes: tuple[PassNote, ...] | None = None
    quality: tuple[QualityLine, ...] | None = None
    verification: tuple[ModuleCheck, ...] | None = None
    modules: tuple[ModuleArea, ...] | None = None
    blocks: tuple[BlockArea, ...] | None = None
    ports: tuple[Port, ...] | None = None
    assumptions: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)


def build_report(inputs: ReportInputs) -> dict[str, Any]:
    """The document of ``report.json``: plain values, finite numbers or null, six digits."""
    document = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "title": inputs.title,
        "kind": inputs.kind,
        "estimate": None if inputs.estimate is None else _estimate(inputs.estimate),
        "zeros": _rows(inputs.zeros),
        "passes": _rows(inputs.passes),
        "quality": _rows(inputs.quality),
        "verification": _rows(inputs.verification),
        "modules": _rows(inputs.modules),
        "blocks": _rows(inputs.blocks),
        "ports": _rows(inputs.ports),
        "assumptions": list(inputs.assumptions),
        "limits": list(inputs.limits),
        "options": dict(inputs.options),
        "tools": dict(inputs.tools),
    }
    plain: dict[str, Any] = _plain(document)
    return plain


def report_json(report: Mapping[str, Any]) -> str:
    """The text of ``report.json``: sorted keys, the same bytes for the same report."""
    return json.dumps(report, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def parse_report(text: str) -> dict[str, Any]:
    """Read ``report.json`` back. Raises :class:`OutputError` for another schema or version."""
    try:
        report = json.loads(text)
    except ValueError as error:
        raise OutputError(f"report.json is no JSON: {error}") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise OutputError("report.json is not a report of hwcompile")
    if report.get("schema_version") != SCHEMA_VERSION:
        raise OutputError(
            f"report.json has schema version {report.get('schema_version')}, not {SCHEMA_VERSION}",
            "compile the model again",
        )
    return report


def quantities(report: Mapping[str, Any]) -> dict[str, Quantity]:
    """The numbers of a report by name, for ``--explain``; null is read back as infinite."""
    estimate = report["estimate"] or {"quantities": {}}
    return {name: _quantity(name, entry) for name, entry in estimate["quantities"].items()}


def render_html(report: Mapping[str, Any]) -> str:
    """The page of ``report.html``: self-contained, no script, no network, light, printable."""
    return page(report)


def _estimate(estimate: Estimate) -> dict[str, Any]:
    content = asdict(estimate)
    content["quantities"] = {
        entry.pop("name"): {**entry, "order": order}
        for order, entry in enumerate(content["quantities"])
    }
    content["scenario"] = {
        key: content["scenario"][key] for key in ("name", "title", "description", "alternative")
    }
    return content


def _rows(rows: tuple[Any, ...] | None) -> list[dict[str, Any]] | None:
    return None if rows is None else [asdict(row) for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _quantity(name: str, entry: Mapping[str, Any]) -> Quantity:
    return Quantity(
        name,
        entry["unit"],
        low=_number(entry["low"]),
        mid=_number(entry["mid"]),
        high=_number(entry["high"]),
        formula=entry["formula"],
        inputs=tuple((symbol, key) for symbol, key in entry["inputs"]),
        source=entry["source"],
        date=entry["date"],
        grade=entry["grade"],
        note=entry["note"],
    )


def _number(value: float | None) -> float:
    return math.inf if value is None else value
