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
from codesign.errors import InputError
from codesign.passes import verify
from codesign.schedule import MachineSize, unstriped
from codesign.schedule.isa import INSTRUCTION_BITS, Instruction
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
        when manifest and graph disagree.
        """
        manifest = _read_manifest(path)
        for entry in manifest.files:
            _check_file(path, entry.path, entry.sha256)
        names = {entry.path for entry in manifest.files}
        needed = {GRAPH, GRAPH_VALUES, IMAGES, manifest.memory.file} | {
            golden_name(task.name, task.width.value) for task in manifest.tasks
        }
        for name in sorted(needed - names):
            raise InputError(f"bundle {path} must list {name} in its manifest, and it does not; generate it again")
        graph = load_graph(path / GRAPH, path / GRAPH_VALUES)
        verify(graph)
        if graph.tasks != tuple(dict.fromkeys(task.name for task in manifest.tasks)):
            raise InputError(
                f"bundle {path} must have the tasks of its graph, {', '.join(graph.tasks)}; generate it again"
            )
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
            raise InputError(f"width must be one of {widths}, not {width.value!r}; generate with --widths")
        raise InputError(f"task must be one of {known}, not {name!r}; choose one of those")

    @property
    def size(self) -> MachineSize:
        """The machine's parameters."""
        known = {f.name for f in fields(MachineSize)}
        return MachineSize(**{name: value for name, value in self.manifest.machine if name in known})

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
        raise InputError(f"{file} must be readable: {error.strerror}; check its permissions") from None


def _check_file(bundle: Path, name: str, sha256: str) -> None:
    try:
        found = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"bundle {bundle} must hold {name}: {error.strerror}; generate it again") from None
    if found != sha256:
        raise InputError(
            f"{bundle / name} must have the hash in the manifest, {sha256[:12]}, not {found[:12]}; generate it again"
        )
