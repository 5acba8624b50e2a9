# SPDX-License-Identifier: Apache-2.0
"""The board's driver against a register file that behaves like `ap_ctrl_hs`; rtl_tests drive the real machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codesign.assets import asset
from codesign.schedule import isa

PATH = asset("boards") / "zcu104" / "driver.py"
BASE = 0x9_0000_0000
OFFSET = {r.name: r.offset for r in isa.REGISTERS}
HEIGHT, WIDTH, PATCH, CELLS, CLASSES = 4, 6, 2, 2, 3
PORTS = 2
RELOAD = "regenerate the bundle and reload the bitstream"
UNITS = [{"name": "dispatcher", "bits": 4}, {"name": "array", "bits": 4}, {"name": "fetch", "bits": 8}]


def load_driver() -> Any:
    spec = importlib.util.spec_from_file_location("board_driver", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


driver = load_driver()


class Memory:
    """DRAM and an allocator with pynq's interface; `freed` counts what came back."""

    class Buffer(np.ndarray):
        physical_address: int
        owner: Any

        def flush(self) -> None:
            self.owner.flushed += 1

        def invalidate(self) -> None:
            self.owner.invalidated += 1

        def freebuffer(self) -> None:
            self.owner.freed += 1

    def __init__(self) -> None:
        self.bytes = np.full(1 << 16, 0xEE, dtype=np.uint8)
        self.next = self.flushed = self.invalidated = self.freed = self.allocated = 0

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer = self.bytes[self.next : self.next + size].view(dtype).reshape(shape).view(Memory.Buffer)
        buffer.physical_address, buffer.owner = BASE + self.next, self
        self.next += -(-size // 4096) * 4096
        self.allocated += 1
        return buffer

    def at(self, address: int, size: int) -> Any:
        return self.bytes[address - BASE : address - BASE + size]


class Registers:
    """`ap_ctrl_hs` and the arguments: a start runs `work`, and done stays until it is read."""

    def __init__(self, work: Callable[[Registers], int]) -> None:
        self.words = {
            OFFSET["magic"]: isa.MAGIC,
            OFFSET["isa_version"]: isa.ISA_VERSION,
            OFFSET["design_hash"]: 0xABCD0123,
        }
        self.work, self.busy_reads, self.done, self.isr = work, 0, False, 0

    def read(self, offset: int = 0) -> int:
        if offset == isa.CTRL_OFFSET:
            if self.busy_reads:
                self.busy_reads -= 1
                return isa.CTRL_START
            value = (isa.CTRL_DONE if self.done else 0) | isa.CTRL_IDLE
            self.done = False
            return value
        if offset == isa.ISR_OFFSET:
            return self.isr
        return self.words.get(offset, 0)

    def write(self, offset: int, data: int) -> None:
        assert 0 <= data < 1 << 32
        if offset == isa.ISR_OFFSET:
            self.isr ^= data
        elif offset == isa.CTRL_OFFSET and data & isa.CTRL_START:
            self.words[OFFSET["status"]] = self.work(self)
            self.words[OFFSET["cycles"]] = 1234
            self.done, self.busy_reads = True, 3
            self.isr = self.words.get(isa.IER_OFFSET, 0)
        else:
            self.words[offset] = data

    def address(self, name: str) -> int:
        return self.words[OFFSET[name]] | self.words[OFFSET[name] + 4] << 32

    def stripes(self, space: str) -> list[int]:
        """The addresses of a space's stripes."""
        base, stripe = self.address(f"{space}_base"), self.words[OFFSET[f"{space}_stripe"]]
        return [base + m * stripe for m in range(PORTS)]


def manifest(memory: bytes) -> dict[str, Any]:
    patches, columns = (HEIGHT // PATCH) * (WIDTH // PATCH), CLASSES * CELLS**2
    result = {
        "tensor": "t",
        "offset": 16,
        "rows": patches + 1,
        "columns": columns,
        "row_elements": 16,
        "dtype": "int16",
        "scale": 0.5,
    }
    depth = {**result, "columns": CELLS**2}
    traced = {"program_addr": 9, "num_instructions": 7, "output_bytes": 1024}
    size = 256  # whole lines of 16 + (patches + 1) * 32
    common = {"num_instructions": 5, "output_bytes": size, "cells": CELLS, "first_row": 1, "traced": traced}
    semseg = {"name": "semseg", "classes": CLASSES, "readout": "class", "result": result, **common}
    depth_task = {"name": "depth", "classes": 1, "readout": "value", "result": depth, **common}
    return {
        "format": 2,
        "machine": {
            "magic": isa.MAGIC, "isa_version": isa.ISA_VERSION, "design_hash": 0xABCD0123, "ports": PORTS,
        },
        "registers": [{"name": n, "offset": o} for n, o in OFFSET.items()],
        "unit_states": UNITS,
        "image": {
            "height": HEIGHT, "width": WIDTH, "channels": 3, "patch": PATCH, "pixel_offset": 128,
            "row_bytes": 16, "bytes": 16 * patches,
        },
        "memory": {"file": "data/memory.bin", "bytes": len(memory)},
        "tasks": [
            {**semseg, "width": "stored", "program_addr": 3},
            {**semseg, "width": "slice4", "program_addr": 6},
            {**depth_task, "width": "stored", "program_addr": 4},
        ],
        "files": [{"path": "data/memory.bin", "sha256": hashlib.sha256(memory).hexdigest()}],
    }  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    memory = bytes(range(64))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "memory.bin").write_bytes(memory)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest(memory)))
    return tmp_path


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((bundle / "manifest.json").read_text())
    change(data)
    (bundle / "manifest.json").write_text(json.dumps(data))


def image() -> Any:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


class Board:
    """A machine whose Programs write `answer` into the output buffer."""

    def __init__(self, bundle: Path, status: int = 0, **options: Any) -> None:
        self.memory, self.runs, self.status = Memory(), [], status
        self.answer = np.zeros(0, dtype=np.uint8)
        self.registers = Registers(self.work)
        self.accelerator = driver.Accelerator(bundle, self.registers, self.memory.allocate, **options)

    def work(self, registers: Registers) -> int:
        """Line i of a space is beat i of each of its stripes."""
        count = registers.words[OFFSET["num_instructions"]]
        self.runs.append((registers.words[OFFSET["program_addr"]], count))
        if count == 0:
            return 0
        registers.words[OFFSET["fault"]], registers.words[OFFSET["unit_state"]] = 17, 0x2A03
        for i, beat in enumerate(np.pad(self.answer, (0, -self.answer.size % (16 * PORTS))).reshape(-1, 16)):
            self.memory.at(registers.stripes("output")[i % PORTS] + 16 * (i // PORTS), 16)[:] = beat
        self.input = self.lines("input", 96)
        self.image = self.lines("memory", 64)
        return self.status

    def lines(self, space: str, size: int) -> Any:
        addresses = [self.registers.stripes(space)[i % PORTS] + 16 * (i // PORTS) for i in range(size // 16)]
        return np.concatenate([self.memory.at(address, 16) for address in addresses])


def test_run_starts_the_program_with_every_buffer(bundle: Path) -> None:
    board = Board(bundle)
    rows = np.arange(7 * 16, dtype=np.int16).reshape(7, 16) - 50
    board.answer = np.concatenate([np.zeros(16, np.uint8), rows.view(np.uint8).reshape(-1)])
    result = board.accelerator.run(image(), "semseg")
    assert board.runs == [(0, 0), (3, 5)]  # the first run only refreshes the read-only registers
    stripes = np.arange(64, dtype=np.uint8).reshape(PORTS, -1, 16)
    assert bytes(board.image) == stripes.transpose(1, 0, 2).tobytes()  # the file is in DRAM form
    assert board.registers.words[OFFSET["watchdog"]] == driver.WATCHDOG_CYCLES
    np.testing.assert_array_equal(result, rows[:, :12])
    assert result.dtype == np.int16
    assert board.accelerator.cycles == 1234
    assert (board.memory.flushed, board.memory.invalidated) == (2, 1)


def test_patches_are_channel_row_column_minus_the_offset(bundle: Path) -> None:
    board, pixels = Board(bundle), image()
    patches = board.accelerator.patches(pixels)
    assert patches.shape == (6, 16)
    for n, (row, column) in enumerate((r, c) for r in (0, 2) for c in (0, 2, 4)):
        expected = [int(pixels[row + y, column + x, c]) - 128 for c in range(3) for y in range(2) for x in range(2)]
        assert patches[n].tolist() == expected + [0] * 4
    board.accelerator.run_raw(pixels, "depth")
    assert bytes(board.input) == patches.tobytes()


def test_traced_program_gets_a_larger_output_buffer(bundle: Path) -> None:
    board = Board(bundle)
    board.answer = np.arange(1024).astype(np.uint8)
    raw = board.accelerator.run_raw(image(), "depth", traced=True)
    assert board.runs[-1] == (9, 7)
    np.testing.assert_array_equal(raw, board.answer)


def test_predict_picks_the_class_of_each_cell(bundle: Path) -> None:
    board = Board(bundle)
    classes = np.random.default_rng(2).integers(0, CLASSES, (HEIGHT, WIDTH))
    rows = np.zeros((7, 16), dtype=np.int16)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            cell = (y % 2) * 2 + x % 2
            rows[1 + (y // 2) * 3 + x // 2, cell * CLASSES + classes[y, x]] = 7
    board.answer = np.concatenate([np.zeros(16, np.uint8), rows.view(np.uint8).reshape(-1)])
    np.testing.assert_array_equal(board.accelerator.predict(image(), "semseg"), classes)


def test_predict_scales_a_task_with_one_channel(bundle: Path) -> None:
    board = Board(bundle)
    rows = np.zeros((7, 16), dtype=np.int16)
    rows[1 + 5, :4] = [10, 11, 12, -13]  # the last patch: rows 2..3, columns 4..5
    board.answer = np.concatenate([np.zeros(16, np.uint8), rows.view(np.uint8).reshape(-1)])
    depth = board.accelerator.predict(image(), "depth")
    assert depth.dtype == np.float32
    assert depth[2:, 4:].tolist() == [[5.0, 5.5], [6.0, -6.5]]
    assert not depth[:2].any()


def test_predict_takes_the_exponential_of_a_logarithm(bundle: Path) -> None:
    edit(bundle, lambda data: data["tasks"][2].update(readout="log"))
    board = Board(bundle)
    rows = np.zeros((7, 16), dtype=np.int16)
    rows[1 + 5, :4] = [-1, 0, 1, 2]
    board.answer = np.concatenate([np.zeros(16, np.uint8), rows.view(np.uint8).reshape(-1)])
    depth = board.accelerator.predict(image(), "depth")
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth[2:, 4:], np.exp(np.array([[-0.5, 0.0], [0.5, 1.0]], dtype=np.float32)))


def test_wait_is_used_and_the_interrupt_taken_back(bundle: Path) -> None:
    waits: list[float] = []
    board = Board(bundle, wait=waits.append)
    assert waits == [10.0]
    assert (board.registers.words[isa.GIER_OFFSET], board.registers.words[isa.IER_OFFSET]) == (1, 1)
    assert board.registers.isr == 0


def test_close_gives_every_buffer_back(bundle: Path) -> None:
    board = Board(bundle)
    with board.accelerator:
        board.answer = np.zeros(1024, np.uint8)
        board.accelerator.run_raw(image(), "depth", traced=True)
    assert board.memory.freed == board.memory.allocated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=1), "manifest.json format must be 2, not 1; use the driver of the same bundle"),
        (lambda d: d.pop("image"), "manifest.json 'image' must be of type dict, not nothing; regenerate the bundle"),
        (
            lambda d: d["image"].update(patch="8"),
            "manifest.json 'patch' must be of type int, not str; regenerate the bundle",
        ),
        (lambda d: d["registers"].pop(), "manifest.json registers must include 'unit_state'; regenerate the bundle"),
        (
            lambda d: d["image"].update(patch=5),
            "image height and width must be multiples of patch, not 4x6/5; regenerate the bundle",
        ),
        (
            lambda d: d["image"].update(row_bytes=8),
            "image bytes must be whole lines of 32 for 6 rows of at least 12, not 96 with rows of 8;"
            " regenerate the bundle",
        ),
        (
            lambda d: d["image"].update(bytes=112),
            "image bytes must be whole lines of 32 for 6 rows of at least 12, not 112 with rows of 16;"
            " regenerate the bundle",
        ),
        (
            lambda d: d["memory"].update(bytes=80),
            "data/memory.bin must have 80 bytes (whole 32-byte lines), not 64; copy the bundle again",
        ),
        (
            lambda d: d["files"][0].update(sha256="0" * 64),
            "data/memory.bin must have the SHA-256 that manifest.json names; copy the bundle again",
        ),
        (
            lambda d: d["machine"].update(design_hash=7),
            "the machine's design_hash must be 0x00000007, not 0xabcd0123; load the bitstream built from this bundle",
        ),
    ],
)
def test_wrong_bundle(bundle: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit(bundle, change)
    with pytest.raises(driver.DriverError) as error:
        Board(bundle)
    assert str(error.value) == message


def test_missing_files(bundle: Path) -> None:
    (bundle / "data" / "memory.bin").unlink()
    with pytest.raises(
        driver.DriverError, match=r"^a bundle must hold data/memory.bin, not found in .*; copy the whole bundle$"
    ):
        Board(bundle)
    (bundle / "manifest.json").write_text("{")
    with pytest.raises(driver.DriverError, match=r"^manifest.json must be valid JSON: .*; regenerate the bundle$"):
        Board(bundle)
    (bundle / "manifest.json").unlink()
    with pytest.raises(
        driver.DriverError, match=r"^a bundle must hold manifest.json, not found in .*; run `codesign generate`$"
    ):
        Board(bundle)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (np.zeros((4, 6, 3), np.float32), r"float32 \[4, 6, 3\]"),
        (np.zeros((6, 4, 3), np.uint8), r"uint8 \[6, 4, 3\]"),
        ([1, 2], "list"),
    ],
)
def test_wrong_image(bundle: Path, wrong: Any, found: str) -> None:
    pattern = rf"^image must be uint8 \[4, 6, 3\], not {found}; resize it and convert it to uint8$"
    with pytest.raises(driver.DriverError, match=pattern):
        Board(bundle).accelerator.run(wrong, "semseg")


def test_unknown_task(bundle: Path) -> None:
    with pytest.raises(
        driver.DriverError, match=r"^task must be one of depth, semseg, not 'pose'; choose one of them$"
    ):
        Board(bundle).accelerator.run(image(), "pose")


def test_half_of_the_objects(bundle: Path) -> None:
    with pytest.raises(driver.DriverError, match=r"^mmio and allocate must be given together, not one alone"):
        driver.Accelerator(bundle, mmio=Registers(lambda _: 0))


@pytest.mark.parametrize(
    ("status", "what", "remedy"),
    [
        (
            isa.Status.ILLEGAL_INSTRUCTION,
            "met an illegal instruction",
            "regenerate the bundle and reload the bitstream",
        ),
        (isa.Status.READ_ERROR, "got an error response while reading memory", "check the buffers' addresses"),
        (isa.Status.WRITE_ERROR, "got an error response while writing memory", "check the output buffer's address"),
        (isa.Status.HANG, "completed no instruction within the watchdog's cycles", "reload the bitstream"),
        (9, "reports the unknown status 9", "reload the bitstream"),
    ],
)
def test_status(bundle: Path, status: int, what: str, remedy: str) -> None:
    board = Board(bundle, status=status)
    with pytest.raises(driver.DriverError) as error:
        board.accelerator.run(image(), "semseg")
    units = "units not idle: dispatcher 3, fetch 42"
    assert str(error.value) == f"the machine {what}, at instruction 17, {units}; {remedy}"
    assert (error.value.status, error.value.fault) == (status, 17)
    assert error.value.units == {"dispatcher": 3, "fetch": 42}


def test_width_chooses_the_program(bundle: Path) -> None:
    board = Board(bundle, watchdog=5)
    board.accelerator.run(image(), "semseg", width="slice4")
    assert board.runs[-1] == (6, 5)
    assert board.registers.words[OFFSET["watchdog"]] == 5
    text = r"^width of task depth must be one of stored, not 'slice4'; choose one of them$"
    with pytest.raises(driver.DriverError, match=text):
        board.accelerator.predict(image(), "depth", width="slice4")


def test_timeout(bundle: Path) -> None:
    board = Board(bundle, timeout=0.01)
    board.registers.work = lambda registers: setattr(registers, "stuck", True) or 0
    read = board.registers.read
    board.registers.read = lambda offset=0: isa.CTRL_START if offset == isa.CTRL_OFFSET else read(offset)  # type: ignore[method-assign]
    with pytest.raises(
        driver.DriverError, match=r"^the machine must be done within 0.01 s, but is not; reload the bitstream$"
    ):
        board.accelerator.run(image(), "semseg")
