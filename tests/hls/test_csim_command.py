# SPDX-License-Identifier: Apache-2.0
"""The command line of the C-simulation (docs/bundle.md): several runs, and one-line errors."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codesign.schedule import striped
from codesign.schedule.design import MachineSize
from codesign.schedule.isa import Instruction, Opcode, Space, Unit
from tests.hls.build import compile_hls
from tests.hls.test_machine_csim import SIZES

SIZE = SIZES[0]
BLOCKS = 3
WORDS = BLOCKS * SIZE.block_act_words
BYTES = BLOCKS * SIZE.block_bytes
LINES = BYTES // SIZE.line_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Program that copies its input to its output, with two inputs."""
    load = Instruction(Opcode.LOAD, space=Space.INPUT, unit=Unit.ACT, dst_base=7, words=WORDS, blocks=BLOCKS)
    store = Instruction(Opcode.STORE, space=Space.OUTPUT, unit=Unit.ACT, src_base=7, words=WORDS)
    memory = bytes(SIZE.line_bytes) + load.encode() + store.encode()
    (tmp_path / "memory.bin").write_bytes(striped(memory, SIZE.ports))
    (tmp_path / "inputs.bin").write_bytes(np.arange(2 * BYTES, dtype=np.uint8).tobytes())
    return tmp_path


def call(csim: Callable[[MachineSize], Path], folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([str(csim(SIZE)), *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.stderr.count("\n") <= 1
    assert done.stdout == ""
    return done.returncode, done.stderr.strip()


GOOD = ("memory.bin", "inputs.bin", "outputs.bin", "1", "2", str(BYTES), str(BYTES), "2")


def changed(index: int, value: str) -> tuple[str, ...]:
    return (*GOOD[:index], value, *GOOD[index + 1 :])


def test_runs_go_back_to_back(csim: Callable[[MachineSize], Path], folder: Path) -> None:
    assert call(csim, folder, *GOOD) == (0, "")
    assert (folder / "outputs.bin").read_bytes() == (folder / "inputs.bin").read_bytes()


def test_cosimulation_keeps_a_memory_for_every_master(tmp_path: Path, folder: Path) -> None:
    """With CODESIGN_DRAM_BEATS, as run_hls.tcl defines it, each master reads and writes a copy of its own."""
    (tmp_path / "build").mkdir()
    sources = ("src/top.cpp", "tb/csim_main.cpp")
    program = compile_hls(tmp_path / "build", SIZE, sources, "c++14", ("-DCODESIGN_DRAM_BEATS=2000",))
    done = subprocess.run([str(program), *GOOD], cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "outputs.bin").read_bytes() == (folder / "inputs.bin").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            GOOD[:5],
            "csim: there must be 8 arguments, not 5; call: csim MEMORY INPUTS OUTPUTS PROGRAM_ADDR NUM_INSTRUCTIONS"
            " INPUT_BYTES OUTPUT_BYTES RUNS",
        ),
        (changed(0, "none.bin"), "csim: none.bin must be a readable file: No such file or directory"),
        (changed(3, "-1"), "csim: PROGRAM_ADDR must be a number below 2^32, not '-1'; see docs/bundle.md"),
        (
            changed(4, "3"),
            "csim: the program must lie within MEMORY's 5 lines, not end at line 7;"
            " take PROGRAM_ADDR and NUM_INSTRUCTIONS from manifest.json",
        ),
        (
            changed(6, str(BYTES + 1)),
            f"csim: INPUT_BYTES and OUTPUT_BYTES must be multiples of 32, not {BYTES} and {BYTES + 1};"
            " take them from manifest.json",
        ),
        (changed(7, "3"), f"csim: inputs.bin must hold RUNS x INPUT_BYTES = {3 * BYTES} bytes, not {2 * BYTES}"),
        (
            changed(6, "32"),
            f"csim: instruction 1 must stay within the output buffer of 1 lines, not reach line {LINES};"
            " use the memory image and sizes of one bundle",
        ),
        (
            (*GOOD[:5], "32", GOOD[6], str(2 * LINES)),
            f"csim: instruction 0 must stay within the input buffer of 1 lines, not reach line {LINES};"
            " use the memory image and sizes of one bundle",
        ),
        (changed(2, "no/such/folder.bin"), "csim: no/such/folder.bin must be writable: No such file or directory"),
    ],
)
def test_wrong_arguments(
    csim: Callable[[MachineSize], Path], folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert call(csim, folder, *arguments) == (2, message)
    assert not (folder / "outputs.bin").exists()


def test_memory_must_be_whole_lines(csim: Callable[[MachineSize], Path], folder: Path) -> None:
    (folder / "memory.bin").write_bytes(bytes(20))
    status, message = call(csim, folder, *GOOD)
    problem = "memory.bin must be a memory image of whole 32-byte lines, not 20 bytes"
    assert (status, message) == (2, f"csim: {problem}; generate the bundle again")
