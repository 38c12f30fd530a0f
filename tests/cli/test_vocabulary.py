"""Vocabulary files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwcompile.compiler.errors import UsageError
from hwcompile.compiler.vocabulary import read_vocabulary


def write(folder: Path, content: object) -> Path:
    (folder / "v.json").write_text(json.dumps(content))
    return folder / "v.json"


def test_text_to_tokens_and_back(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(write(tmp_path, ["<pad>", "<end>", "a", "ab", "c"]))
    assert vocabulary.encode("abac") == [3, 2, 4]
    assert vocabulary.decode([3, 2, 4, 1, 0, 99]) == "abac"
    assert vocabulary.special("<end>") == 1 and vocabulary.special("<start>") is None


def test_unknown_text_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'x'"):
        read_vocabulary(write(tmp_path, ["a"])).encode("ax")


@pytest.mark.parametrize("content", [{}, [1], "text"])
def test_other_content_is_a_usage_error(tmp_path: Path, content: object) -> None:
    with pytest.raises(UsageError):
        read_vocabulary(write(tmp_path, content))
