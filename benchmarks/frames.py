# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of M3ViT-tiny share: models, bundles on a machine that is built once, and frames of the RTL."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from codesign.emit.bundle import BundleSource, write_bundle
from codesign.emit.manifest import ExpertWidth
from codesign.engines import Bundle, Engine, rtlsim
from codesign.engines.build import build
from codesign.engines.compare import first_difference
from codesign.engines.engine import Profile, Request, Run
from codesign.engines.toolchain import Tool
from codesign.reference import run_task
from codesign.schedule import Design, MachineSize, load_board, plan
from codesign.spec.patches import to_patches
from codesign.synthesis import ExpertWeights, Synthesis, read_recipe, synthesise

ROOT = Path(__file__).resolve().parent.parent
BOARD = load_board("zcu104")
ROOMY = BOARD.model_copy(update={"resources": BOARD.resources.model_copy(update={"bram36": 1000})})
"""The board, but for the memory that a long Program takes."""
LONG_PROGRAM = 4096
FOLDER = ROOT / "build" / "benchmarks"
"""Where bundles and built machines stay, so that the next benchmark finds them."""
RECIPE = ROOT / "models" / "m3vit_tiny.toml"
SEED = 0


@cache
def model(experts: ExpertWeights = ExpertWeights.TERNARY, top_k: int = 2, layers: int | None = None) -> Synthesis:
    """M3ViT-tiny with random weights, the same everywhere but for what is asked to change."""
    recipe = read_recipe(RECIPE).changed(layers=layers, top_k=top_k, expert_weights=experts)
    return synthesise(recipe, SEED)


def long_machine() -> MachineSize:
    """The machine of M3ViT-tiny, but for a program store that holds an instruction for each token."""
    return replace(plan(model().graph, BOARD).size, max_instructions=LONG_PROGRAM)


def bundle(name: str, made: Synthesis, design: Design) -> Bundle:
    """Writes the bundle `name`; bundles of one machine share one executable."""
    path = FOLDER / name
    write_bundle(BundleSource(made.graph, design, made.test), path)
    built = FOLDER / "machines" / f"{design.size.hash32():08x}"
    built.mkdir(parents=True, exist_ok=True)
    (path / "build").mkdir()
    (path / "build" / "rtlsim").symlink_to(built, target_is_directory=True)
    return Bundle.load(path)


@dataclass(frozen=True)
class Built:
    """What building the simulation took; nothing where it was built already."""

    seconds: float
    cpu_seconds: float


def built(one: Bundle, again: bool = False) -> Built:
    """Builds the bundle's RTL simulation; `again`: even if it is built already."""
    if again:
        (one.path / "build" / "rtlsim" / "stamp").unlink(missing_ok=True)
    start, cpu = time.monotonic(), _cpu()
    build(one, Engine.RTLSIM, (Tool.MAKE, Tool.GXX, Tool.VERILATOR))
    return Built(round(time.monotonic() - start, 1), round(_cpu() - cpu, 1))


def _cpu() -> float:
    """Processor seconds of this process and the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True)
class Frame:
    """One frame on the RTL, compared with the reference."""

    task: str
    exact: bool
    cycles: int
    profile: Profile
    opcodes: tuple[str, ...]

    def cycles_of(self, opcode: str) -> int:
        """Cycles of all instructions of an opcode, each from the end of the one before to its own."""
        pairs = zip(self.opcodes, self.profile.instruction_cycles, strict=True)
        return sum(cycles for name, cycles in pairs if name == opcode)


def frames(one: Bundle, tasks: Sequence[str], width: ExpertWidth = ExpertWidth.STORED) -> list[Frame]:
    """Frames of the bundle's first image through `tasks`, one after the other on one machine, in one job."""
    built(one)
    pixels = one.images[:1]
    runs = tuple(Run(0, task, width) for task in tasks)
    with tempfile.TemporaryDirectory(dir=one.path / "build") as folder:
        work = Path(folder)
        np.save(work / "images.npy", pixels, allow_pickle=False)
        request = Request(one, pixels, work / "images.npy", runs, False, 1, work, lambda _done, _total: None)
        outputs = rtlsim.run(request)
    x = to_patches(pixels, one.graph.image)[0]
    expected = {task: run_task(one.graph_at(width), task, x) for task in set(tasks)}
    done = []
    for run, output in zip(runs, outputs, strict=True):
        entry = one.task(run.task, width)
        wrong = first_difference(run.task, 0, output.buffer, (entry.result,), expected[run.task])
        assert output.cycles is not None
        assert output.profile is not None
        opcodes = tuple(i.opcode for i in entry.instructions)
        done.append(Frame(run.task, wrong is None, output.cycles, output.profile, opcodes))
    return done


def sources(one: Bundle) -> str:
    """Identifies the hardware's description, of whatever size: 12 digits of SHA-256 over the SystemVerilog and the
    memory's model."""
    kinds = (".sv", ".cpp", ".hpp")
    listed = [
        f"{f.path} {f.sha256}"
        for f in one.manifest.files
        if f.path.startswith(("rtl/", "sim/")) and f.path.endswith(kinds) and f.path != "rtl/codesign_pkg.sv"
    ]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:12]


def described(one: Bundle) -> dict[str, object]:
    """A bundle's machine for a results file."""
    size = {name: getattr(value, "value", value) for name, value in vars(one.size).items()}
    return {**size, "hash": one.size.hash32(), "sources": sources(one)}
