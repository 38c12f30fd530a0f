"""How a model file is refused: one error type, names from the file made safe to print."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from hwcompile.compiler.errors import ModelError, Problem

_LISTED = 50
#: Keys under which exporters say which layer a node belongs to.
_SCOPES = ("pkg.torch.onnx.name_scopes", "namespace")


def refuse(message: str, hint: str = "export the model again") -> ModelError:
    """The error to raise."""
    return ModelError(message, hint)


def escape(name: str, limit: int = 60) -> str:
    """A name from the file made safe to print: printable ASCII, cut at ``limit`` characters."""
    text = "".join(c if " " <= c <= "~" and c != "\\" else f"\\u{ord(c):04x}" for c in name)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def refuse_nodes(problems: Sequence[Problem], what: str) -> ModelError:
    """The error that lists every node; ``what`` is true of them ("cannot be compiled")."""
    lines = [f"  {p}" for p in problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f"  ... and {len(problems) - _LISTED} more")
    nodes = "1 node" if len(problems) == 1 else f"{len(problems)} nodes"
    hint = "each line says what to do; `hwcompile ops` lists the operators"
    return ModelError("\n".join([f"{nodes} {what}:", *lines]), hint, tuple(problems))


def problem(node: onnx.NodeProto, why: str, hint: str) -> Problem:
    """A problem with a node, named as the file does."""
    name = node.name or next(iter(node.output), "?")
    return Problem(escape(node.op_type), escape(name), place_of(node), why, hint)


def place_of(node: onnx.NodeProto) -> str:
    """The layer a node belongs to, from what the exporter wrote, or ""."""
    told = {entry.key: entry.value for entry in node.metadata_props}
    for key in _SCOPES:
        scopes = [s.strip(" '\"[]") for s in told.get(key, "").replace("/", ",").split(",")]
        path = [s.partition(":")[0] for s in scopes if s]
        if path:
            return escape(path[-2] if len(path) > 1 and key == _SCOPES[0] else path[-1])
    if "/" in node.name:
        return escape(node.name.strip("/").rpartition("/")[0])
    owners = [n.rpartition(".")[0] for n in node.input if "." in n]
    return escape(owners[0]) if owners else ""
