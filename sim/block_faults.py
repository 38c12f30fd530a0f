"""Single faults in the Verilog of one weight block, as a careless hand would leave them.

Each is one bit of one expression: which input a leaf reads, its sign, an operand of an adder, an
entry of a decoder, the top bit of a sum, a bit of what the accumulator feeds back.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from hwcompile.sim.faults import NoSite

_PIECE = re.compile(r"(\d+)'h([0-9a-f]+)|1'b([01])|(\w+)(?:\[(\d+)(?::(\d+))?\])?$")
_WIDTH = re.compile(r"^ *(?:wire|reg|input +wire) (?:\[(\d+):0\] )?(\w+(?:, \w+)*)", re.MULTILINE)
_HIDDEN = re.compile(r"`ifdef.*?`else", re.DOTALL)

# Places: the one group is an expression over bits.
_OPERAND = re.compile(r"\.[abc]\(((?:\{[^()]*\}|[^(){}]+))\),\n")
_INPUTS = re.compile(r"wire (?:\[\d+:0\] )?(?:leaf|tap)\d+ = (x|x\[[\d:]+\]|\{x[^{}^]*\})\n *\^")
_SIGNS = re.compile(r"\^ (\d+'h[0-9a-f]+);")
_ENTRY = re.compile(r"^ +(?:default|\d+'d\d+): \w+ = (\d+'h[0-9a-f]+);", re.MULTILINE)
_BACK = re.compile(r"wire (?:\[\d+:0\] )?back\d+ = (upper\d+(?:\[[\d:]+\])?) &")
_GATE = re.compile(r"(~first)")
_SHIFT = re.compile(r"lower\d+ <= (\{[^{};]*\}|upper\d+\[[\d:]+\]);")
_SUM = re.compile(r"wire (?:\[\d+:0\] )?sum\d+ = (\{[^{};]*\}|\w+(?:\[[\d:]+\])?);")
_ACC = re.compile(r"assign acc = (\{[^{};]*\}|\w+);")

Change = Callable[[list[str], Mapping[str, int], random.Random], str]


def block_fault(text: str, kind: str, seed: int) -> tuple[str, str]:
    """The text of a block with a fault of a kind at a random place, and the fault in words.

    Raises:
        NoSite: there is no such place.
        KeyError: no such kind (see :data:`BLOCK_KINDS`).
    """
    chance = random.Random(f"{kind} {seed}")
    pattern, change = chance.choice(_KINDS[kind])
    hidden = [found.span() for found in _HIDDEN.finditer(text)]
    places = [
        found
        for found in pattern.finditer(text)
        if not any(a <= found.start() < b for a, b in hidden)
    ]
    if not places:
        raise NoSite(kind)
    place = chance.choice(places)
    widths = _widths(text)
    bits = [place[1]] if pattern is _GATE else _bits(place[1], widths)
    what = change(bits, widths, chance)
    line = text.count("\n", 0, place.start(1)) + 1
    new = bits[0] if len(bits) == 1 else "{" + ", ".join(reversed(bits)) + "}"
    return text[: place.start(1)] + new + text[place.end(1) :], f"line {line}: {what}"


def _widths(text: str) -> dict[str, int]:
    found = {}
    for top, names in _WIDTH.findall(text):
        for name in names.split(", "):
            found[name] = int(top or 0) + 1
    return found


def _bits(expression: str, widths: Mapping[str, int]) -> list[str]:
    """The single bits of an expression, lowest first."""
    bits: list[str] = []
    for piece in reversed(expression.strip("{}").split(",")):
        found = _PIECE.match(piece.strip())
        if found is None:
            raise NoSite(piece)
        width, digits, constant, name, high, low = found.groups()
        if width:
            bits += [f"1'b{int(digits, 16) >> n & 1}" for n in range(int(width))]
        elif constant:
            bits.append(f"1'b{constant}")
        elif high is None:
            count = widths[name]
            bits += [f"{name}[{n}]" for n in range(count)] if count > 1 else [name]
        else:
            bits += [f"{name}[{n}]" for n in range(int(low or high), int(high) + 1)]
    return bits


def _another(old: str, names: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    """A bit of one of these vectors that is not ``old``."""
    choices = [b for name in names for b in _bits(name, widths) if b != old]
    if not choices:
        raise NoSite(old)
    return chance.choice(choices)


def _other_input(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    at = chance.randrange(len(bits))
    old, bits[at] = bits[at], _another(bits[at], ["x"], widths, chance)
    return f"{bits[at]} instead of {old}"


def _flipped(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    at = chance.randrange(len(bits))
    bits[at] = "1'b0" if bits[at] == "1'b1" else "1'b1"
    return f"bit {at} of a constant inverted"


def _inverted(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    at = chance.randrange(len(bits))
    bits[at] = f"~{bits[at]}"
    return f"{bits[at]} in an adder"


def _dropped(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    at = chance.randrange(len(bits))
    old, bits[at] = bits[at], "1'b0"
    return f"0 instead of {old}"


def _misplaced(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    """Two operands of different adders exchanged, or a carry taken for a sum."""
    vectors = {bit: re.sub(r"\[\d+\]$", "", bit) for bit in bits}
    carries = [n for n, bit in enumerate(bits) if re.match(r"[ks]\d", bit)]
    if len(bits) > 1 and (not carries or chance.random() < 0.5):
        a, b = chance.sample(range(len(bits)), 2)
        bits[a], bits[b] = bits[b], bits[a]
        return f"{bits[a]} and {bits[b]} exchanged"
    if not carries:
        raise NoSite("shift")
    at = chance.choice(carries)
    old = bits[at]
    other = ("s" if old[0] == "k" else "k") + vectors[old][1:]
    bits[at] = old.replace(vectors[old], other, 1)
    return f"{bits[at]} instead of {old}"


def _top_lost(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    old, bits[-1] = bits[-1], "1'b0"
    return f"the top bit {old} is lost"


def _upper_lost(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    """The highest bit of one accumulator is not read."""
    tops = [
        n
        for n, bit in enumerate(bits)
        if bit.startswith("upper") and not (n + 1 < len(bits) and bits[n + 1].startswith("upper"))
    ]
    if not tops:
        raise NoSite("width")
    at = chance.choice(tops)
    old, bits[at] = bits[at], "1'b0"
    return f"{old} is not read"


def _other_state(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    at = chance.randrange(len(bits))
    names = [n for n in widths if re.fullmatch(r"(?:upper|lower)\d+", n)]
    old, bits[at] = bits[at], _another(bits[at], names, widths, chance)
    return f"{bits[at]} instead of {old}"


def _ungated(bits: list[str], widths: Mapping[str, int], chance: random.Random) -> str:
    bits[0] = chance.choice(["1'b1", "first", "1'b0"])
    return f"{bits[0]} instead of ~first"


_KINDS: Mapping[str, tuple[tuple[re.Pattern[str], Change], ...]] = {
    "weight": ((_INPUTS, _other_input),),
    "sign": ((_SIGNS, _flipped), (_OPERAND, _inverted)),
    "dropped term": ((_OPERAND, _dropped),),
    "shift": ((_OPERAND, _misplaced),),
    "width": ((_SUM, _top_lost), (_ACC, _upper_lost)),
    "decoder entry": ((_ENTRY, _flipped),),
    "feedback": ((_BACK, _other_state), (_GATE, _ungated), (_SHIFT, _other_state)),
}
BLOCK_KINDS = tuple(_KINDS)
"""Kinds of faults in a block."""
