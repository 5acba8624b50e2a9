# SPDX-License-Identifier: Apache-2.0
"""Runs a bundle on the accelerator: numpy, pynq and the standard library only, one file, nothing else of the project.

    accelerator = Accelerator("/home/xilinx/bundle")
    classes = accelerator.predict(image, "semseg")      # image: uint8 [height, width, 3]
    classes = accelerator.predict(image, "semseg", width="slice4")      # experts read at 4 of their 8 bits

The same file drives the HLS and the RTL version, and the simulated machine: hand in objects with the interfaces of
`pynq.MMIO` and `pynq.allocate` instead of a bitstream.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

MANIFEST_FORMAT = 2
CTRL, GIER, IER, ISR = 0x00, 0x04, 0x08, 0x0C  # the ap_ctrl_hs block
CTRL_START, CTRL_DONE = 1, 2
STATUS_OK = 0
STATUS_TEXT = {
    1: ("met an illegal instruction", "regenerate the bundle and reload the bitstream"),
    2: ("got an error response while reading memory", "check the buffers' addresses"),
    3: ("got an error response while writing memory", "check the output buffer's address"),
    4: ("completed no instruction within the watchdog's cycles", "reload the bitstream"),
}
REGISTERS = (
    "memory_base", "input_base", "output_base", "memory_stripe", "input_stripe", "output_stripe",
    "program_addr", "num_instructions", "watchdog",
    "magic", "isa_version", "design_hash", "status", "cycles", "fault", "unit_state",
)  # fmt: skip
IDENTITY = ("magic", "isa_version", "design_hash")
BEAT_BYTES = 16
WATCHDOG_CYCLES = 100_000_000
"""A third of a second at 300 MHz: no instruction of a model that fits the board takes as long."""
STORED = "stored"

Bytes = npt.NDArray[np.uint8]


class DriverError(Exception):
    """One line: what must hold, what was found, what to do.

    Where the machine's status was the reason, `status` is it, `fault` is the index of the oldest incomplete instruction
    and `units` holds the states of the units that were not idle.
    """

    def __init__(
        self, message: str, status: int = STATUS_OK, fault: int = 0, units: dict[str, int] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.fault = fault
        self.units = units or {}


class Mmio(Protocol):
    """What is used of `pynq.MMIO`."""

    def read(self, offset: int = 0) -> int:
        """The 32-bit word at a byte offset."""
        ...

    def write(self, offset: int, data: int) -> None:
        """Writes a 32-bit word."""
        ...


class Manifest:
    """`manifest.json` of a bundle, checked: format, presence and type of what is used, hash of the memory image."""

    def __init__(self, bundle_dir: str | Path) -> None:
        self.path = Path(bundle_dir) / "manifest.json"
        self.data = self._read()
        version = self.get(self.data, "format", int)
        if version != MANIFEST_FORMAT:
            raise DriverError(
                f"manifest.json format must be {MANIFEST_FORMAT}, not {version}; use the driver of the same bundle"
            )
        machine = self.get(self.data, "machine", dict)
        self.identity = {name: self.get(machine, name, int) for name in IDENTITY}
        self.ports: int = self.get(machine, "ports", int)
        self.line_bytes = self.ports * BEAT_BYTES
        found = {self.get(r, "name", str): self.get(r, "offset", int) for r in self.get(self.data, "registers", list)}
        missing = [name for name in REGISTERS if name not in found]
        if missing:
            raise DriverError(f"manifest.json registers must include {missing[0]!r}; regenerate the bundle")
        self.offsets = {name: found[name] for name in REGISTERS}
        states = self.get(self.data, "unit_states", list)
        self.unit_states = [(self.get(u, "name", str), self.get(u, "bits", int)) for u in states]
        image = self.get(self.data, "image", dict)
        keys = ("height", "width", "channels", "patch", "pixel_offset", "row_bytes", "bytes")
        self.image = {key: self.get(image, key, int) for key in keys}
        self._check_image()
        tasks = self.get(self.data, "tasks", list)
        self.tasks = {(self.get(t, "name", str), self.get(t, "width", str)): t for t in tasks}
        self.memory = self._load_memory()

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DriverError(
                f"a bundle must hold manifest.json, not found in {self.path.parent}; run `codesign generate`"
            ) from None
        except ValueError as error:
            raise DriverError(f"manifest.json must be valid JSON: {error}; regenerate the bundle") from None
        if not isinstance(data, dict):
            raise DriverError("manifest.json must hold one object; regenerate the bundle")
        return data

    @staticmethod
    def get(section: Any, key: str, kind: type) -> Any:
        """A value of the manifest. Raises DriverError when it is absent or of another type."""
        if not isinstance(section, dict) or not isinstance(section.get(key), kind):
            found = type(section.get(key)).__name__ if isinstance(section, dict) and key in section else "nothing"
            raise DriverError(
                f"manifest.json {key!r} must be of type {kind.__name__}, not {found}; regenerate the bundle"
            )
        return section[key]

    def _check_image(self) -> None:
        m = self.image
        patches = (m["height"] // max(m["patch"], 1)) * (m["width"] // max(m["patch"], 1))
        used = m["channels"] * m["patch"] * m["patch"]
        if m["patch"] < 1 or m["height"] % m["patch"] or m["width"] % m["patch"]:
            raise DriverError(
                f"image height and width must be multiples of patch, not {m['height']}x{m['width']}/{m['patch']};"
                " regenerate the bundle"
            )
        if m["row_bytes"] < used or m["bytes"] < patches * m["row_bytes"] or m["bytes"] % self.line_bytes:
            raise DriverError(
                f"image bytes must be whole lines of {self.line_bytes} for {patches} rows of at least {used},"
                f" not {m['bytes']} with rows of {m['row_bytes']}; regenerate the bundle"
            )

    def _load_memory(self) -> Bytes:
        section = self.get(self.data, "memory", dict)
        name, size = self.get(section, "file", str), self.get(section, "bytes", int)
        hashes = {self.get(f, "path", str): self.get(f, "sha256", str) for f in self.get(self.data, "files", list)}
        path = self.path.parent / name
        if not path.is_file():
            raise DriverError(f"a bundle must hold {name}, not found in {path.parent}; copy the whole bundle")
        content = path.read_bytes()
        if len(content) != size or size == 0 or size % self.line_bytes:
            raise DriverError(
                f"{name} must have {size} bytes (whole {self.line_bytes}-byte lines), not {len(content)};"
                " copy the bundle again"
            )
        if hashlib.sha256(content).hexdigest() != hashes.get(name):
            raise DriverError(f"{name} must have the SHA-256 that manifest.json names; copy the bundle again")
        return np.frombuffer(content, dtype=np.uint8)

    def task(self, name: str, width: str = STORED) -> dict[str, Any]:
        """The manifest's entry of a task at a width of its experts. Raises DriverError for an unknown one."""
        names = sorted({known for known, _ in self.tasks})
        if name not in names:
            raise DriverError(f"task must be one of {', '.join(names)}, not {name!r}; choose one of them")
        if (name, width) not in self.tasks:
            widths = ", ".join(sorted(known for task, known in self.tasks if task == name))
            raise DriverError(f"width of task {name} must be one of {widths}, not {width!r}; choose one of them")
        task: dict[str, Any] = self.tasks[name, width]
        return task

    def units(self, unit_state: int) -> dict[str, int]:
        """The states of the units that are not idle, from the register `unit_state`."""
        states, lsb = {}, 0
        for name, bits in self.unit_states:
            states[name] = unit_state >> lsb & ((1 << bits) - 1)
            lsb += bits
        return {name: state for name, state in states.items() if state}


def striped(data: Bytes, ports: int) -> Bytes:
    """Line-ordered bytes (whole lines) as they lie in a buffer: stripe after stripe, one for each port."""
    return data.reshape(-1, ports, BEAT_BYTES).transpose(1, 0, 2).reshape(-1)


def unstriped(data: Bytes, ports: int) -> Bytes:
    """The inverse of `striped`."""
    return data.reshape(ports, -1, BEAT_BYTES).transpose(1, 0, 2).reshape(-1)


def _open_board(manifest: Manifest, bitstream: str | Path | None) -> tuple[Mmio, Callable[..., Any]]:
    """Loads the bitstream (default: the only .bit file of the bundle) and finds the accelerator in it."""
    import pynq  # type: ignore[import-not-found, unused-ignore]

    root = manifest.path.parent
    found = [Path(bitstream)] if bitstream is not None else sorted(root.rglob("*.bit"))
    if len(found) != 1 or not found[0].is_file():
        raise DriverError(
            f"a bitstream must be given or lie alone in the bundle, not {len(found)} in {root}; pass bitstream=..."
        )
    overlay = pynq.Overlay(str(found[0]))
    names = [name for name in overlay.ip_dict if "codesign" in name]
    if len(names) != 1:
        raise DriverError(
            f"the bitstream must hold one IP named codesign..., not {len(names)}; build it with this bundle's script"
        )
    ip = overlay.ip_dict[names[0]]
    return pynq.MMIO(ip["phys_addr"], ip["addr_range"]), pynq.allocate


class Accelerator:
    """One machine with one bundle's memory image in DRAM.

    `mmio` and `allocate` default to those of the bitstream. `wait(seconds)`, if given, blocks until the interrupt is
    high (or the time is over); without it the driver polls. A run in which no instruction completes for `watchdog`
    clock cycles ends with an error (0: never). Raises DriverError when the bundle or the machine is not as it must be.
    """

    def __init__(
        self,
        bundle_dir: str | Path,
        mmio: Mmio | None = None,
        allocate: Callable[..., Any] | None = None,
        wait: Callable[[float], None] | None = None,
        bitstream: str | Path | None = None,
        timeout: float = 10.0,
        watchdog: int = WATCHDOG_CYCLES,
    ) -> None:
        self.manifest = Manifest(bundle_dir)
        if (mmio is None) != (allocate is None):
            raise DriverError("mmio and allocate must be given together, not one alone; give both or neither")
        if mmio is None or allocate is None:
            mmio, allocate = _open_board(self.manifest, bitstream)
        self._mmio, self._allocate, self._wait, self._timeout = mmio, allocate, wait, timeout
        self._watchdog = watchdog
        self._buffers: list[Any] = []
        self.cycles = 0
        """Clock cycles of the last run."""
        self._memory = self._buffer(len(self.manifest.memory))
        self._memory[:] = self.manifest.memory
        self._memory.flush()
        self._input = self._buffer(self.manifest.image["bytes"])
        self._output = self._buffer(self.manifest.line_bytes)
        self._mmio.write(GIER, int(wait is not None))
        self._mmio.write(IER, int(wait is not None))
        self._check_identity()

    def _buffer(self, size: int) -> Any:
        buffer = self._allocate(shape=(size,), dtype=np.uint8)
        self._buffers.append(buffer)
        return buffer

    def close(self) -> None:
        """Gives the buffers back."""
        for buffer in self._buffers:
            buffer.freebuffer()
        self._buffers.clear()

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_identity(self) -> None:
        # The HLS version writes its read-only registers at the end of a run.
        self._execute(0, 0, self.manifest.line_bytes)
        for name, expected in self.manifest.identity.items():
            found = self._mmio.read(self.manifest.offsets[name])
            if found != expected:
                raise DriverError(
                    f"the machine's {name} must be 0x{expected:08x}, not 0x{found:08x};"
                    " load the bitstream built from this bundle"
                )

    def _write_address(self, name: str, value: int) -> None:
        offset = self.manifest.offsets[name]
        self._mmio.write(offset, value & 0xFFFFFFFF)
        self._mmio.write(offset + 4, value >> 32)

    def _execute(self, program_addr: int, num_instructions: int, output_bytes: int) -> None:
        """One run of the machine. Raises DriverError on a timeout or a status other than OK."""
        offsets, ports = self.manifest.offsets, self.manifest.ports
        sizes = (len(self._memory), self.manifest.image["bytes"], output_bytes)
        for name, buffer, size in zip(
            ("memory", "input", "output"), (self._memory, self._input, self._output), sizes, strict=True
        ):
            self._write_address(f"{name}_base", buffer.physical_address)
            self._mmio.write(offsets[f"{name}_stripe"], size // ports)
        self._mmio.write(offsets["program_addr"], program_addr)
        self._mmio.write(offsets["num_instructions"], num_instructions)
        self._mmio.write(offsets["watchdog"], self._watchdog)
        self._mmio.write(CTRL, CTRL_START)
        self._finish()

    def _finish(self) -> None:
        """Waits until the machine is done and reads how it went."""
        offsets = self.manifest.offsets
        deadline = time.monotonic() + self._timeout
        if self._wait is not None:
            self._wait(self._timeout)
            self._mmio.write(ISR, self._mmio.read(ISR))  # its bits toggle
        while not self._mmio.read(CTRL) & CTRL_DONE:
            if time.monotonic() > deadline:
                raise DriverError(
                    f"the machine must be done within {self._timeout:g} s, but is not; reload the bitstream"
                )
        self.cycles = self._mmio.read(offsets["cycles"])
        status = self._mmio.read(offsets["status"])
        if status != STATUS_OK:
            fault = self._mmio.read(offsets["fault"])
            units = self.manifest.units(self._mmio.read(offsets["unit_state"]))
            what, remedy = STATUS_TEXT.get(status, (f"reports the unknown status {status}", "reload the bitstream"))
            busy = ", ".join(f"{name} {state}" for name, state in units.items()) or "none"
            raise DriverError(
                f"the machine {what}, at instruction {fault}, units not idle: {busy}; {remedy}", status, fault, units
            )

    def patches(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
        """The rows [patches, row_bytes] of the input buffer for an image uint8 [height, width, channels]."""
        m = self.manifest.image
        shape = (m["height"], m["width"], m["channels"])
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != shape:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise DriverError(f"image must be uint8 {list(shape)}, not {found}; resize it and convert it to uint8")
        p, rows, columns = m["patch"], m["height"] // m["patch"], m["width"] // m["patch"]
        values = (image.astype(np.int16) - m["pixel_offset"]).astype(np.int8)
        grid = values.reshape(rows, p, columns, p, m["channels"]).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
        return np.pad(grid, ((0, 0), (0, m["row_bytes"] - grid.shape[1])))

    def run_raw(self, image: npt.NDArray[np.uint8], task: str, traced: bool = False, width: str = STORED) -> Bytes:
        """The output buffer uint8 [output_bytes], in line order, that the task's Program leaves.

        With `traced`, what the Program that stores every tensor leaves. `width`: how many bit planes of its experts the
        Program reads, "stored" (all), or where the manifest has them "slice4" or "slice2".
        """
        entry, ports = self.manifest.task(task, width), self.manifest.ports
        program = self.manifest.get(entry, "traced", dict) if traced else entry
        size, address, instructions = (
            self.manifest.get(program, key, int) for key in ("output_bytes", "program_addr", "num_instructions")
        )
        rows = self.patches(image).reshape(-1).view(np.uint8)
        self._input[:] = striped(np.pad(rows, (0, self.manifest.image["bytes"] - len(rows))), ports)
        self._input.flush()
        if len(self._output) < size:
            self._buffers = [b for b in self._buffers if b is not self._output]
            self._output.freebuffer()
            self._output = self._buffer(size)
        self._execute(address, instructions, size)
        self._output.invalidate()
        return unstriped(np.array(self._output[:size]), ports)

    def run(self, image: npt.NDArray[np.uint8], task: str, width: str = STORED) -> npt.NDArray[np.int16]:
        """The task's result, integers [rows, columns]; times the result's scale they are the head's output."""
        result = self.manifest.get(self.manifest.task(task, width), "result", dict)
        rows, columns, stride, offset = (
            self.manifest.get(result, k, int) for k in ("rows", "columns", "row_elements", "offset")
        )
        raw = self.run_raw(image, task, width=width)
        values = raw[offset:].view(np.dtype(result["dtype"]))[: rows * stride]
        return np.array(values.reshape(rows, stride)[:, :columns])

    def predict(self, image: npt.NDArray[np.uint8], task: str, width: str = STORED) -> npt.NDArray[Any]:
        """Per cell [rows, columns] the class (uint8) or the value (float32), as the task's `readout` says."""
        entry, m = self.manifest.task(task, width), self.manifest.image
        classes, cells, first = (self.manifest.get(entry, key, int) for key in ("classes", "cells", "first_row"))
        readout = self.manifest.get(entry, "readout", str)
        rows, columns = m["height"] // m["patch"], m["width"] // m["patch"]
        tokens = self.run(image, task, width)[first : first + rows * columns]
        grid = tokens.reshape(rows, columns, cells, cells, classes).transpose(0, 2, 1, 3, 4)
        values = grid.reshape(rows * cells, columns * cells, classes)
        if readout == "class":
            labels: npt.NDArray[np.uint8] = values.argmax(axis=-1).astype(np.uint8)
            return labels
        scaled: npt.NDArray[np.float32] = values[:, :, 0].astype(np.float32) * np.float32(entry["result"]["scale"])
        return np.exp(scaled) if readout == "log" else scaled
