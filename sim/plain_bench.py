"""A chip in Icarus behind a bench of plain Verilog: the fast way for small chips, and strict.

Beside the beats it checks what a bench in software cannot well: every handshake and every beat is
free of X from reset on, TLAST is where ``docs/hardware.md`` puts it, handshakes are low in reset,
and a beat that is offered stays as it is until it is taken::

    cycles = run(rtl, ports, samples, work)
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from hwcompile.compiler.errors import MismatchError, ToolError
from hwcompile.compiler.ir.chip import Port
from hwcompile.sim.chip_run import adder_flags, sources
from hwcompile.sim.runner import Adders, ChipSample

BENCH = "plain_bench"
_MOST_FAULTS = 10
_RESET_CYCLES = 4

_PORT_IN = """
  reg [{top}:0] {name}_tdata;
  reg {name}_tvalid = 0, {name}_tlast;
  wire {name}_tready;
  reg [{lanes}:0] {name}_beats [0:{beats}];
  integer {name}_end [0:{samples}];
  integer {name}_at = 0;
  initial $readmemh("{name}.hex", {name}_beats);
  initial $readmemh("{name}.end", {name}_end);
  wire {name}_done = {name}_at >= {name}_end[sample];
  always @(posedge aclk) begin
    if ({name}_tready === 1'bx) fault("{name}_tready is X");
    if (!aresetn & {name}_tready) fault("{name}_tready in reset");
    if (aresetn) begin
      if ({name}_tvalid & {name}_tready) {name}_tvalid <= 0;
      if (({name}_tvalid & {name}_tready) | !{name}_tvalid) begin : {name}_offer
        integer next;
        next = {name}_at + ({name}_tvalid & {name}_tready);
        {name}_at <= next;
        if (next < {name}_end[sample] & !pause(0)) begin
          {name}_tvalid <= 1;
          {{{name}_tlast, {name}_tdata}} <= {name}_beats[next];
        end
      end
    end
  end"""
_PORT_OUT = """
  wire [{top}:0] {name}_tdata;
  wire {name}_tvalid, {name}_tlast;
  reg {name}_tready = 0, {name}_held = 0;
  reg [{lanes}:0] {name}_beats [0:{beats}];
  reg [{lanes}:0] {name}_before;
  integer {name}_end [0:{samples}];
  integer {name}_at = 0;
  initial $readmemh("{name}.hex", {name}_beats);
  initial $readmemh("{name}.end", {name}_end);
  wire {name}_done = {name}_at >= {name}_end[sample];
  always @(posedge aclk) begin
    if ({name}_tvalid === 1'bx) fault("{name}_tvalid is X");
    if (!aresetn & {name}_tvalid) fault("{name}_tvalid in reset");
    if (aresetn) begin
      if ({name}_held & ({name}_tvalid !== 1 | {{{name}_tlast, {name}_tdata}} !== {name}_before))
        fault("{name} changed before it was taken");
      {name}_held <= {name}_tvalid & !{name}_tready;
      {name}_before <= {{{name}_tlast, {name}_tdata}};
      if ({name}_tvalid & {name}_tready) begin
        if ({name}_at >= {name}_end[sample]) fault("{name}: a beat too many");
        else if ({{{name}_tlast, {name}_tdata}} !== {name}_beats[{name}_at]) begin
          fault("{name}: another beat");
          $display("  sample %0d, port {name}, beat %0d: %h instead of %h (TLAST above the data)",
            sample, {name}_at, {{{name}_tlast, {name}_tdata}}, {name}_beats[{name}_at]);
        end
        {name}_at <= {name}_at + 1;
      end
      {name}_tready <= {name}_at + ({name}_tvalid & {name}_tready) < {name}_end[sample] & !pause(0);
    end
  end"""
_BENCH = """`timescale 1ns/1ps
module {bench};
  reg aclk = 0, aresetn = 0;
  integer cycle = 0, sample = 0, faults = 0, seed = {seed};
  always #5 aclk = ~aclk;
  task fault(input [8*80-1:0] what);
    begin
      $display("FAULT at cycle %0d: %0s", cycle, what);
      faults = faults + 1;
      if (faults >= {most_faults}) $finish;
    end
  endtask
  function pause(input unused);
    pause = {gaps} && ($random(seed) & 7) < 3;
  endfunction
{ports}

  hw_top dut (.aclk(aclk), .aresetn(aresetn){connections});

  always @(posedge aclk) begin
    cycle <= cycle + 1;
    aresetn <= cycle >= {reset};
    if ({done}) begin
      if (sample == {samples}) begin
        $display("%0s %0d", faults ? "FAIL" : "PASS", cycle);
        $finish;
      end
      sample <= sample + 1;
    end
    if (cycle > {timeout}) begin
      $display("FAULT: stuck in sample %0d", sample);
      $finish;
    end
  end
endmodule
"""


def run(
    rtl: Path,
    ports: Sequence[Port],
    samples: Sequence[ChipSample],
    work: Path,
    gaps_seed: int | None = None,
    timeout: int = 10_000_000,
    adders: Adders = "full",
    wall_clock_s: float = 900,
) -> int:
    """Run all samples one after the other from one reset; cycles until the last beat.

    ``rtl``: folder with ``filelist.f``. ``work``: an empty folder for files. ``gaps_seed``: pauses
    on all streams. Samples must have ``expected`` beats for every output and no ``generate``.

    Raises:
        MismatchError: a beat or handshake is wrong or X, or the chip is stuck.
        ToolError: Icarus is missing or fails.
    """
    for port in ports:
        _write_beats(work, port, samples)
    (work / "bench.v").write_text(bench_verilog(ports, samples, gaps_seed, timeout))
    files = sources(rtl.resolve())
    flags = ["-g2012", *adder_flags(files, adders), "-s", BENCH, "-o", "bench.vvp"]
    _tool(["iverilog", *flags, *map(str, files), "bench.v"], work, wall_clock_s)
    said = _tool(["vvp", "-n", "bench.vvp"], work, wall_clock_s).strip().splitlines()
    if not said or not said[-1].startswith("PASS") or len(said) > 1:
        lines = "\n".join(said[: 2 * _MOST_FAULTS])
        raise MismatchError(f"the RTL differs from the reference\n{lines}")
    return int(said[-1].split()[1])


def bench_verilog(
    ports: Sequence[Port], samples: Sequence[ChipSample], gaps_seed: int | None, timeout: int
) -> str:
    """The bench's text; beats come from ``<port>.hex``, their number from ``<port>.end``."""
    parts, connections = [], []
    for port in ports:
        beats = sum(len(_beats(port, s)) for s in samples)
        text = _PORT_IN if port.direction == "in" else _PORT_OUT
        parts.append(
            text.format(
                name=port.name,
                top=port.lane_bits - 1,
                lanes=port.lane_bits,
                beats=max(beats - 1, 0),
                samples=len(samples) - 1,
            )
        )
        connections += [
            f", .{port.name}_{end}({port.name}_{end})"
            for end in ("tdata", "tvalid", "tready", "tlast")
        ]
    return _BENCH.format(
        bench=BENCH,
        seed=gaps_seed or 0,
        gaps=int(gaps_seed is not None),
        most_faults=_MOST_FAULTS,
        ports="\n".join(parts),
        connections="".join(connections),
        reset=_RESET_CYCLES,
        done=" & ".join(f"{port.name}_done" for port in ports),
        samples=len(samples) - 1,
        timeout=timeout,
    )


def _beats(port: Port, sample: ChipSample) -> Sequence[int]:
    given = sample.inputs if port.direction == "in" else sample.expected
    return given.get(port.name, ())


def _last(port: Port, index: int, count: int) -> bool:
    """Whether TLAST belongs to a beat: the last of a row, or of all."""
    each_row = port.direction == "out" and port.tlast == "row"
    return (index + 1) % port.cols == 0 if each_row else index == count - 1


def _write_beats(work: Path, port: Port, samples: Sequence[ChipSample]) -> None:
    lines, ends = [], []
    mask = (1 << port.lane_bits) - 1
    for sample in samples:
        beats = _beats(port, sample)
        for index, beat in enumerate(beats):
            last = int(_last(port, index, len(beats))) << port.lane_bits
            lines.append(f"{last | beat & mask:x}\n")
        ends.append(f"{len(lines):x}\n")
    (work / f"{port.name}.hex").write_text("".join(lines) or "0\n")
    (work / f"{port.name}.end").write_text("".join(ends))


def _tool(command: Sequence[str], work: Path, timeout_s: float) -> str:
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=timeout_s)
    except FileNotFoundError as error:
        raise ToolError("there is no Icarus Verilog", "apt install iverilog") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{command[0]} took more than {timeout_s:.0f} s") from error
    if done.returncode:
        raise ToolError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
