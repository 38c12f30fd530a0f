"""Whole chips in simulation against the reference, and that a fault turns them red."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwcompile.compiler.errors import MismatchError
from hwcompile.compiler.ir import program as ir
from hwcompile.sim import reference
from hwcompile.sim.runner import (
    ChipSample,
    bundle_files,
    cache_beats,
    chip_samples,
    output_arrays,
    port_records,
    ports_from,
    simulate,
    timeout_cycles,
)
from tests import chips, programs
from tests.paces import pace

icarus = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
QUICK = "icarus" if shutil.which("iverilog") else "verilator"

PROGRAMS: dict[str, Callable[[], ir.Program]] = {
    "llama": lambda: programs.tiny_decoder(context=4),
    "vit": lambda: programs.tiny_encoder(tokens=False, flags=False, rows=4),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> chips.Built:
    return chips.build(programs.tiny_decoder(context=4), tmp_path_factory.mktemp("llama"))


@icarus
@pytest.mark.parametrize(("name", "cuts"), [*((name, 0) for name in PROGRAMS), ("llama", 3)])
def test_from_reset_without_x_and_on_schedule(name: str, cuts: int, tmp_path: Path) -> None:
    """Icarus starts with X everywhere; adders one by one; the second sample finds a full memory.

    With ``cuts``, blocks have rows of registers, some one and some more.
    """
    built = chips.build(PROGRAMS[name](), tmp_path, pace=pace(most_cuts=cuts) if cuts else None)
    texts = [path.read_text() for path in sorted(tmp_path.glob("hw_matrix_*.v"))]
    assert all(("; cuts: " in text) == (cuts > 0) for text in texts)
    samples = chips.random_samples(built, 2)
    results = simulate(tmp_path, built.ports, samples, "icarus", adders="full")
    tokens = len(samples[0].inputs["s_axis"]) if built.chip.cycles_per_token(0) else 0
    ends = [r.cycles["m_axis"][-1] for r in results]
    assert ends[1] - ends[0] == built.chip.cycles_total(tokens)


def test_an_encoder_decoder_with_pauses(tmp_path: Path) -> None:
    built = chips.build(programs.tiny_encoder_decoder(source=3, target=4), tmp_path)
    samples = chips.random_samples(built, 2, tokens=3) + chips.random_samples(built, 1, seed=1)
    timeout = timeout_cycles(built.chip, samples, gaps=True)
    results = simulate(tmp_path, built.ports, samples, "verilator", 5, timeout)
    assert [r.lasts["m_axis"] for r in results] == [[0, 0, 1], [0, 0, 1], [0, 0, 0, 1]]
    arrays = output_arrays(built.ports, results[:2])
    assert arrays[built.program.outputs[0].value].shape == (2, 3, 12)


def test_the_chip_generates_from_its_own_tokens(llama: chips.Built) -> None:
    prompt = [3, 1]
    sample = ChipSample({"s_axis": prompt}, {"m_axis": 4, "m_axis_logits": 48}, generate=2)
    (result,) = simulate(llama.folder, llama.ports, [sample], QUICK)
    assert result.outputs["m_axis"][1:] == reference.generate(llama.program, prompt, 3)


def test_a_short_sequence_starts_the_next_from_an_empty_cache(llama: chips.Built) -> None:
    samples = [
        chips.random_samples(llama, 1, seed, tokens=n)[0] for seed, n in enumerate((1, 3, 2))
    ]
    results = simulate(llama.folder, llama.ports, samples, QUICK, gaps_seed=1)
    assert [len(r.outputs["m_axis"]) for r in results] == [1, 3, 2]


def test_a_wrong_expectation_is_named(llama: chips.Built) -> None:
    (sample,) = chips.random_samples(llama, 1)
    beats = list(sample.expected["m_axis_logits"])
    beats[13] ^= 1
    wrong = ChipSample(sample.inputs, sample.outputs, expected={"m_axis_logits": beats})
    with pytest.raises(MismatchError, match="sample 0, port m_axis_logits, beat 13"):
        simulate(llama.folder, llama.ports, [wrong], QUICK)


@pytest.mark.parametrize("file", ["hw_matrix_6.v", "hw_core_embed.v"])
def test_a_flipped_bit_turns_it_red(file: str, llama: chips.Built, tmp_path: Path) -> None:
    """A bit of a mask or sign of a weight block; the top bit of an entry of the token table."""
    folder = tmp_path / "rtl"
    shutil.copytree(llama.folder, folder)
    text = (folder / file).read_text()
    constants = list(re.finditer(r"(?<= )\d{2,}'h[0-9a-f]+", text.split("`ifdef")[0]))
    constant = constants[len(constants) // 2]
    digits = constant[0].split("h")[1]
    flipped = constant[0].replace("h" + digits, f"h{int(digits[0], 16) ^ 1:x}{digits[1:]}")
    (folder / file).write_text(text[: constant.start()] + flipped + text[constant.end() :])
    given = llama.program.inputs[0].value
    ids = np.arange(12).reshape(3, 4, 1)
    expected = reference.run(llama.program, {given.key: ids})["logits"]
    output = llama.program.outputs[0].value
    samples = chip_samples(llama.ports, {given.key: ids}, {output: expected})
    with pytest.raises(MismatchError):
        simulate(folder, llama.ports, samples, QUICK, adders="full")


@icarus
def test_the_bundle_runs_alone_and_notices_a_flipped_value(
    llama: chips.Built, tmp_path: Path
) -> None:
    shutil.copytree(llama.folder, tmp_path / "rtl")
    sim = tmp_path / "sim"
    sim.mkdir()
    for name, text in bundle_files(llama.ports, chips.random_samples(llama, 1), 10**6).items():
        (sim / name).write_text(text)
        assert "hwcompile" not in text

    def make() -> subprocess.CompletedProcess[str]:
        command = ["make", "SIM=icarus", f"PYTHON={sys.executable}"]
        return subprocess.run(command, cwd=sim, capture_output=True, text=True)

    assert make().returncode == 0
    vectors = json.loads((sim / "vectors.json").read_text())
    vectors["samples"][0]["expected"]["m_axis"][2] ^= 1
    (sim / "vectors.json").write_text(json.dumps(vectors))
    done = make()
    assert done.returncode != 0
    assert "port m_axis, beat 2" in done.stdout


def test_caches_are_loaded_before_the_first_token(tmp_path: Path) -> None:
    program = programs.tiny_decoder(context=4)
    built = chips.build(program, tmp_path, cache_port=True)
    key, output = program.inputs[0].value.key, program.outputs[0].value
    samples = []
    for length, count in ((2, 1), (0, 2), (1, 3), (3, 1)):
        ids = np.arange(7 * length, 7 * length + length + count).reshape(1, -1, 1) % 12
        expected = {output: reference.run(program, {key: ids})["logits"][:, length:]}
        beats: list[list[int]] = []
        if length:
            _, caches = reference.run_with_caches(program, {key: ids[:, :length]})
            beats = cache_beats(built.chip, caches.rows)
        samples += chip_samples(built.ports, {key: ids[:, length:]}, expected, beats)
    simulate(tmp_path, built.ports, samples, QUICK, gaps_seed=3, timeout=50_000)


def test_ports_survive_json(llama: chips.Built) -> None:
    assert ports_from(json.loads(json.dumps(port_records(llama.ports)))) == llama.ports
