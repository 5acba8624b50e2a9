# SPDX-License-Identifier: Apache-2.0
"""What every engine takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from codesign.emit.manifest import ExpertWidth, Task
from codesign.engines.bundle import Bundle
from codesign.errors import CheckError
from codesign.spec.patches import Pixels

Progress = Callable[[int, int], None]
"""Called with (runs done, runs in all), again and again."""


class Engine(StrEnum):
    """A way to execute a bundle."""

    REFERENCE = "reference"
    CSIM = "csim"
    RTLSIM = "rtlsim"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Run:
    """One image through one task."""

    image: int
    task: str
    width: ExpertWidth = ExpertWidth.STORED


@dataclass(frozen=True)
class Request:
    """What an engine is asked to do: `runs` on `images`, using the empty folder `work` and at most `jobs` processes."""

    bundle: Bundle
    images: Pixels
    images_path: Path
    """`images` as a .npy file."""
    runs: tuple[Run, ...]
    traced: bool
    """Store every tensor, not only the result."""
    jobs: int
    work: Path
    progress: Progress
    perfetto: Path | None = None
    """Where the first run's timeline goes (RTL only),"""
    waves: Path | None = None
    """and the waves of the whole simulation."""
    threads: int = 1
    """Of one run (cpu only),"""
    variant: str | None = None
    """and the instruction set of its kernels, the fastest one if None."""


@dataclass(frozen=True)
class Profile:
    """Where the clock cycles of a run went, and the bytes it moved over the memory ports."""

    instruction_cycles: tuple[int, ...]
    """From the end of one macro-instruction to the end of the next."""
    read_bytes: int
    written_bytes: int
    dense_slots: int
    """Cycles in which the array worked on a dense layer,"""
    attention_slots: int
    """and on attention."""
    wait_blocks: int
    """Cycles in which it could not, for want of weights,"""
    wait_rows: int
    """and of rows that others had not written yet."""
    kv_words: int
    """Words of K and V read."""


@dataclass(frozen=True)
class Output:
    """What a run left: its output buffer in line order; clock cycles and profile where the engine counts them."""

    buffer: bytes
    cycles: int | None = None
    profile: Profile | None = None
    trace: str | None = None
    """What every unit did when (`timeline.parse_trace` reads it), of the first run of each task."""
    device: str | None = None
    """What computed it, where that is not this processor."""


def task_of(request: Request, index: int) -> Task:
    """The manifest's entry of a run."""
    run = request.runs[index]
    return request.bundle.task(run.task, run.width)


def output_bytes(request: Request, index: int, file: Path) -> bytes:
    """The output buffer a run left in `file`. Raises CheckError when it is missing or not of the manifest's size."""
    run = request.runs[index]
    task = task_of(request, index)
    size = task.traced.output_bytes if request.traced else task.output_bytes
    buffer = file.read_bytes() if file.is_file() else b""
    if len(buffer) != size:
        raise CheckError(f"task {run.task}, image {run.image} must leave {size} bytes, not {len(buffer)}")
    return buffer
