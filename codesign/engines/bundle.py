# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle: manifest, hashes and graph are checked before any engine starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from codesign.emit.bundle import MANIFEST, golden_name, graph_of
from codesign.emit.manifest import ExpertWidth, Manifest, Task, TracedProgram
from codesign.errors import InputError, reason
from codesign.passes import verify
from codesign.schedule import MachineSize, unstriped
from codesign.schedule.isa import INSTRUCTION_BITS, ISA_VERSION, MAGIC, REGISTERS, Instruction
from codesign.spec import Graph
from codesign.spec.patches import Pixels
from codesign.spec.serialize import load_graph

GRAPH, GRAPH_VALUES, IMAGES = "data/graph.json", "data/graph.safetensors", "data/images.npy"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files are those that its manifest names."""

    path: Path
    manifest: Manifest
    graph: Graph

    @staticmethod
    def load(path: Path) -> Bundle:
        """Check and open the bundle in folder `path`.

        Raises InputError when the folder is no bundle, when a file is missing or not the one that was generated, or
        when the manifest disagrees with itself, with the machine or with the graph.
        """
        manifest = _read_manifest(path)
        _check_machine(path, manifest)
        for entry in manifest.files:
            _check_file(path, entry.path, entry.sha256)
        names = {entry.path for entry in manifest.files}
        needed = {GRAPH, GRAPH_VALUES, IMAGES, manifest.memory.file} | {
            golden_name(task.name, task.width.value) for task in manifest.tasks
        }
        for name in sorted(needed - names):
            raise InputError(f"bundle {path} must list {name} in its manifest, and it does not; generate it again")
        for task in manifest.tasks:
            _check_programs(path, manifest, task)
        graph = load_graph(path / GRAPH, path / GRAPH_VALUES)
        verify(graph)
        if graph.tasks != tuple(dict.fromkeys(task.name for task in manifest.tasks)):
            raise InputError(
                f"bundle {path} must have the tasks of its graph, {', '.join(graph.tasks)}; generate it again"
            )
        _check_graph(path, manifest, graph)
        return Bundle(path.resolve(), manifest, graph)

    @property
    def images(self) -> Pixels:
        """The bundle's own test images, uint8 [n, height, width, channels]."""
        images: Pixels = np.load(self.path / IMAGES, allow_pickle=False)
        return images

    @property
    def peak_macs_per_cycle(self) -> int:
        """Multiply-accumulates that the array can do in a clock cycle."""
        return self.manifest.machine.simd * self.manifest.machine.pe

    def golden(self, task: str, width: ExpertWidth = ExpertWidth.STORED) -> Pixels:
        """The expected output buffers, in line order, of a task on `images`, uint8 [n, bytes]."""
        buffers: Pixels = np.load(self.path / golden_name(task, width.value), allow_pickle=False)
        return buffers

    def task(self, name: str, width: ExpertWidth = ExpertWidth.STORED) -> Task:
        """The manifest's entry of a task at a width of its experts. Raises InputError when there is none."""
        for task in self.manifest.tasks:
            if task.name == name and task.width is width:
                return task
        known = ", ".join(dict.fromkeys(task.name for task in self.manifest.tasks))
        if name in known.split(", "):
            widths = ", ".join(dict.fromkeys(task.width.value for task in self.manifest.tasks))
            raise InputError(f"width must be one of {widths}, not {width.value!r}; generate with --width {width.value}")
        raise InputError(f"task must be one of {known}, not {name!r}; choose one of those")

    @property
    def size(self) -> MachineSize:
        """The machine's parameters."""
        return _size(self.manifest)

    def memory(self) -> bytes:
        """The memory image in line order."""
        return unstriped((self.path / self.manifest.memory.file).read_bytes(), self.manifest.machine.ports)

    def instructions(self, program: Task | TracedProgram) -> tuple[Instruction, ...]:
        """The macro-instructions of a Program, out of the memory image."""
        size = INSTRUCTION_BITS // 8
        start = program.program_addr * self.size.line_bytes
        code = self.memory()[start : start + program.num_instructions * size]
        return tuple(Instruction.decode(code[i : i + size]) for i in range(0, len(code), size))

    def graph_at(self, width: ExpertWidth) -> Graph:
        """The integer graph that Programs of that width compute."""
        return graph_of(self.graph, width.code)


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not file.is_file():
        raise InputError(f"bundle {path} must be a folder with a {MANIFEST}, and there is none; run codesign generate")
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{file} must be a manifest of format 2: {where}: {first['msg']}; generate it again") from None
    except OSError as error:
        raise InputError(f"{file} must be readable: {reason(error)}; check its permissions") from None


def _size(manifest: Manifest) -> MachineSize:
    known = {f.name for f in fields(MachineSize)}
    return MachineSize(**{name: value for name, value in manifest.machine if name in known})


def _check_machine(path: Path, manifest: Manifest) -> None:
    """The identity is that of the sizes, so a manifest whose sizes are not the RTL's is found before anything runs."""
    machine = manifest.machine
    identity = (
        ("magic", machine.magic, MAGIC),
        ("isa_version", machine.isa_version, ISA_VERSION),
        ("design_hash", machine.design_hash, _size(manifest).hash32()),
    )
    for name, found, expected in identity:
        if found != expected:
            raise InputError(
                f"{path / MANIFEST} must name the machine that was generated: {name} of its sizes is {expected},"
                f" not {found}; generate it again"
            )
    offsets = {register.name: register.offset for register in manifest.registers}
    for known in REGISTERS:
        if offsets.get(known.name) != known.offset:
            raise InputError(
                f"{path / MANIFEST} must have register {known.name} at {known.offset}, not"
                f" {offsets.get(known.name, 'nowhere')}; generate it again"
            )


def _check_programs(path: Path, manifest: Manifest, task: Task) -> None:
    size = (path / manifest.memory.file).stat().st_size
    if size != manifest.memory.bytes:
        raise InputError(
            f"{path / MANIFEST} must give memory the {size} bytes of its file, not {manifest.memory.bytes};"
            " generate it again"
        )
    if len(task.instructions) != task.num_instructions:
        raise InputError(
            f"{path / MANIFEST} must describe the {task.num_instructions} instructions of task {task.name}, not"
            f" {len(task.instructions)}; generate it again"
        )
    line = _size(manifest).line_bytes
    for program in (task, task.traced):
        end = program.program_addr * line + program.num_instructions * INSTRUCTION_BITS // 8
        if end > size:
            raise InputError(
                f"{path / MANIFEST} must have the Program of task {task.name} end within memory's {size} bytes, not"
                f" at {end}; generate it again"
            )


def _check_graph(path: Path, manifest: Manifest, graph: Graph) -> None:
    """Images and tensors lie in the buffers as the graph has them."""
    image, of_graph, line = manifest.image, graph.image, _size(manifest).line_bytes
    shape = (image.height, image.width, image.channels, image.patch)
    wanted = (of_graph.height, of_graph.width, of_graph.channels, of_graph.patch)
    row, rows = graph.input.shape[1], graph.input.shape[0]
    if shape != wanted or image.row_bytes < row or image.bytes < rows * image.row_bytes or image.bytes % line:
        raise InputError(
            f"{path / MANIFEST} must describe the graph's image, {wanted}, in whole lines of {line} bytes, not {shape}"
            f" in {image.bytes}; generate it again"
        )
    shapes = {t.name: t.shape for t in (graph.input, *(n.output for n in graph.nodes))}
    for task in manifest.tasks:
        for at in (task.result, *task.traced.tensors):
            whole = shapes.get(at.tensor)
            if whole is None or at.first_row + at.rows > whole[0] or at.columns != whole[1]:
                raise InputError(
                    f"{path / MANIFEST} must describe tensors of the graph, not rows {at.first_row} to"
                    f" {at.first_row + at.rows} of {at.tensor} with {at.columns} columns; generate it again"
                )


def _check_file(bundle: Path, name: str, sha256: str) -> None:
    try:
        found = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"bundle {bundle} must hold {name}: {reason(error)}; generate it again") from None
    if found != sha256:
        raise InputError(
            f"{bundle / name} must have the hash in the manifest, {sha256[:12]}, not {found[:12]}; generate it again"
        )
