# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle: manifest, hashes and graph are checked before any engine starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from codesign.emit.bundle import MANIFEST, Pixels
from codesign.emit.manifest import Manifest, Task
from codesign.errors import InputError
from codesign.passes import verify
from codesign.spec import Graph
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
            golden_path(task.name) for task in manifest.tasks
        }
        for name in sorted(needed - names):
            raise InputError(f"bundle {path} must list {name} in its manifest, and it does not; generate it again")
        graph = load_graph(path / GRAPH, path / GRAPH_VALUES)
        verify(graph)
        if graph.tasks != tuple(task.name for task in manifest.tasks):
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

    def golden(self, task: str) -> Pixels:
        """The expected output buffers of a task on `images`, uint8 [n, bytes]."""
        buffers: Pixels = np.load(self.path / golden_path(task), allow_pickle=False)
        return buffers

    def task(self, name: str) -> Task:
        """The manifest's entry of a task. Raises InputError for an unknown name."""
        for task in self.manifest.tasks:
            if task.name == name:
                return task
        known = ", ".join(task.name for task in self.manifest.tasks)
        raise InputError(f"task must be one of {known}, not {name!r}; choose one of those")


def golden_path(task: str) -> str:
    """Where the bundle keeps the expected outputs of a task."""
    return f"data/golden_{task}.npy"


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    if not file.is_file():
        raise InputError(f"bundle {path} must be a folder with a {MANIFEST}, and there is none; run codesign generate")
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"{file} must be a manifest of format 1: {where}: {first['msg']}; generate it again") from None
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
