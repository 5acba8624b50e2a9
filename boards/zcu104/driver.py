# SPDX-License-Identifier: Apache-2.0
"""Runs a bundle on the accelerator: numpy, pynq and the standard library only, one file, nothing else of the project.

    accelerator = Accelerator("/home/xilinx/bundle")
    classes = accelerator.predict(image, "semseg")      # image: uint8 [height, width, 3]

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

MANIFEST_FORMAT = 1
CTRL, GIER, IER, ISR = 0x00, 0x04, 0x08, 0x0C  # the ap_ctrl_hs block
CTRL_START, CTRL_DONE = 1, 2
STATUS_OK = 0
STATUS_TEXT = {
    1: "met an illegal instruction; regenerate the bundle and reload the bitstream",
    2: "got an error response while reading memory; check the buffers' addresses",
    3: "got an error response while writing memory; check the output buffer's address",
}
REGISTERS = (
    "memory_base", "input_base", "output_base", "program_addr", "num_instructions",
    "magic", "isa_version", "design_hash", "status", "cycles",
)  # fmt: skip
IDENTITY = ("magic", "isa_version", "design_hash")
MEMORY_BEAT_BYTES = 16

Bytes = npt.NDArray[np.uint8]


class DriverError(Exception):
    """One line: what must hold, what was found, what to do. `status` is the machine's, where that was the reason."""

    def __init__(self, message: str, status: int = STATUS_OK) -> None:
        super().__init__(message)
        self.status = status


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
        found = {self.get(r, "name", str): self.get(r, "offset", int) for r in self.get(self.data, "registers", list)}
        missing = [name for name in REGISTERS if name not in found]
        if missing:
            raise DriverError(f"manifest.json registers must include {missing[0]!r}; regenerate the bundle")
        self.offsets = {name: found[name] for name in REGISTERS}
        image = self.get(self.data, "image", dict)
        keys = ("height", "width", "channels", "patch", "pixel_offset", "row_bytes", "bytes")
        self.image = {key: self.get(image, key, int) for key in keys}
        self._check_image()
        self.tasks = {self.get(t, "name", str): t for t in self.get(self.data, "tasks", list)}
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
        if m["row_bytes"] < used or m["bytes"] != patches * m["row_bytes"]:
            raise DriverError(
                f"image bytes must be {patches} rows of at least {used}, not {m['bytes']} with rows of"
                f" {m['row_bytes']}; regenerate the bundle"
            )

    def _load_memory(self) -> Bytes:
        section = self.get(self.data, "memory", dict)
        name, size = self.get(section, "file", str), self.get(section, "bytes", int)
        hashes = {self.get(f, "path", str): self.get(f, "sha256", str) for f in self.get(self.data, "files", list)}
        path = self.path.parent / name
        if not path.is_file():
            raise DriverError(f"a bundle must hold {name}, not found in {path.parent}; copy the whole bundle")
        content = path.read_bytes()
        if len(content) != size or size == 0 or size % MEMORY_BEAT_BYTES:
            raise DriverError(
                f"{name} must have {size} bytes (whole 16-byte beats), not {len(content)}; copy the bundle again"
            )
        if hashlib.sha256(content).hexdigest() != hashes.get(name):
            raise DriverError(f"{name} must have the SHA-256 that manifest.json names; copy the bundle again")
        return np.frombuffer(content, dtype=np.uint8)

    def task(self, name: str) -> dict[str, Any]:
        """The manifest's entry of a task. Raises DriverError for an unknown one."""
        if name not in self.tasks:
            raise DriverError(f"task must be one of {', '.join(sorted(self.tasks))}, not {name!r}; choose one of them")
        task: dict[str, Any] = self.tasks[name]
        return task


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
    high (or the time is over); without it the driver polls. Raises DriverError when the bundle or the machine is not as
    it must be.
    """

    def __init__(
        self,
        bundle_dir: str | Path,
        mmio: Mmio | None = None,
        allocate: Callable[..., Any] | None = None,
        wait: Callable[[float], None] | None = None,
        bitstream: str | Path | None = None,
        timeout: float = 10.0,
    ) -> None:
        self.manifest = Manifest(bundle_dir)
        if (mmio is None) != (allocate is None):
            raise DriverError("mmio and allocate must be given together, not one alone; give both or neither")
        if mmio is None or allocate is None:
            mmio, allocate = _open_board(self.manifest, bitstream)
        self._mmio, self._allocate, self._wait, self._timeout = mmio, allocate, wait, timeout
        self._buffers: list[Any] = []
        self.cycles = 0
        """Clock cycles of the last run."""
        self._memory = self._buffer(len(self.manifest.memory))
        self._memory[:] = self.manifest.memory
        self._memory.flush()
        self._input = self._buffer(self.manifest.image["bytes"])
        self._output = self._buffer(MEMORY_BEAT_BYTES)
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
        self._execute(0, 0)  # the HLS version writes its read-only registers at the end of a run
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

    def _execute(self, program_addr: int, num_instructions: int) -> None:
        """One run of the machine. Raises DriverError on a timeout or a status other than OK."""
        offsets = self.manifest.offsets
        self._write_address("memory_base", self._memory.physical_address)
        self._write_address("input_base", self._input.physical_address)
        self._write_address("output_base", self._output.physical_address)
        self._mmio.write(offsets["program_addr"], program_addr)
        self._mmio.write(offsets["num_instructions"], num_instructions)
        self._mmio.write(CTRL, CTRL_START)
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
            raise DriverError(
                f"the machine {STATUS_TEXT.get(status, f'reports the unknown status {status}; reload the bitstream')}",
                status,
            )

    def patches(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
        """The input buffer [patches, row_bytes] of an image uint8 [height, width, channels]."""
        m = self.manifest.image
        shape = (m["height"], m["width"], m["channels"])
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != shape:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise DriverError(f"image must be uint8 {list(shape)}, not {found}; resize it and convert it to uint8")
        p, rows, columns = m["patch"], m["height"] // m["patch"], m["width"] // m["patch"]
        values = (image.astype(np.int16) - m["pixel_offset"]).astype(np.int8)
        grid = values.reshape(rows, p, columns, p, m["channels"]).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
        return np.pad(grid, ((0, 0), (0, m["row_bytes"] - grid.shape[1])))

    def run_raw(self, image: npt.NDArray[np.uint8], task: str, traced: bool = False) -> Bytes:
        """The output buffer uint8 [output_bytes] after the task's Program, or after its traced one (every tensor)."""
        entry = self.manifest.task(task)
        program = self.manifest.get(entry, "traced", dict) if traced else entry
        size, address, instructions = (
            self.manifest.get(program, key, int) for key in ("output_bytes", "program_addr", "num_instructions")
        )
        self._input[:] = self.patches(image).reshape(-1).view(np.uint8)
        self._input.flush()
        if len(self._output) < size:
            self._buffers = [b for b in self._buffers if b is not self._output]
            self._output.freebuffer()
            self._output = self._buffer(size)
        self._execute(address, instructions)
        self._output.invalidate()
        return np.array(self._output[:size])

    def run(self, image: npt.NDArray[np.uint8], task: str) -> npt.NDArray[np.int16]:
        """The task's result, integers [rows, columns]; times the result's scale they are the head's output."""
        result = self.manifest.get(self.manifest.task(task), "result", dict)
        rows, columns, stride, offset = (
            self.manifest.get(result, k, int) for k in ("rows", "columns", "row_elements", "offset")
        )
        raw = self.run_raw(image, task)
        values = raw[offset:].view(np.dtype(result["dtype"]))[: rows * stride]
        return np.array(values.reshape(rows, stride)[:, :columns])

    def predict(self, image: npt.NDArray[np.uint8], task: str) -> npt.NDArray[Any]:
        """Per cell [rows, columns] the class (uint8) or the value (float32), as the task's `readout` says."""
        entry, m = self.manifest.task(task), self.manifest.image
        classes, cells, first = (self.manifest.get(entry, key, int) for key in ("classes", "cells", "first_row"))
        readout = self.manifest.get(entry, "readout", str)
        rows, columns = m["height"] // m["patch"], m["width"] // m["patch"]
        tokens = self.run(image, task)[first : first + rows * columns]
        grid = tokens.reshape(rows, columns, cells, cells, classes).transpose(0, 2, 1, 3, 4)
        values = grid.reshape(rows * cells, columns * cells, classes)
        if readout == "class":
            labels: npt.NDArray[np.uint8] = values.argmax(axis=-1).astype(np.uint8)
            return labels
        scaled: npt.NDArray[np.float32] = values[:, :, 0].astype(np.float32) * np.float32(entry["result"]["scale"])
        return np.exp(scaled) if readout == "log" else scaled
