# SPDX-License-Identifier: Apache-2.0
"""Runs a bundle on one engine and compares it, bit for bit, with the reference."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from codesign.emit.manifest import ExpertWidth
from codesign.engines import cpu, csim, cuda, reference, rtlsim
from codesign.engines.bundle import Bundle
from codesign.engines.compare import Difference, Ints, decode, first_difference
from codesign.engines.engine import Engine, Output, Progress, Request, Run
from codesign.engines.images import load_images
from codesign.engines.results import SimulationResult, TaskCycles, keep_profiles, keep_result
from codesign.errors import InputError, reason
from codesign.reference import run_task
from codesign.spec.patches import Pixels, to_patches

ENGINES: Mapping[Engine, Callable[[Request], list[Output]]] = MappingProxyType(
    {
        Engine.REFERENCE: reference.run,
        Engine.CSIM: csim.run,
        Engine.RTLSIM: rtlsim.run,
        Engine.CPU: cpu.run,
        Engine.CUDA: cuda.run,
    }
)
"""What runs each engine."""


def _silent(done: int, total: int) -> None:
    """The progress callback of somebody who does not watch."""


def simulate(
    path: Path,
    engine: Engine,
    tasks: Sequence[str] = (),
    images: Path | None = None,
    limit: int | None = None,
    trace_tensors: bool = False,
    jobs: int = 2,
    progress: Progress = _silent,
    width: ExpertWidth = ExpertWidth.STORED,
    perfetto: Path | None = None,
    waves: Path | None = None,
    threads: int = 1,
    variant: str | None = None,
) -> SimulationResult:
    """Run the bundle in folder `path` and compare each output, with `trace_tensors` each tensor, with the reference.

    `tasks`: all when empty. `images`: a .npy file or a folder of PNGs, the bundle's own test images when None; the
    first `limit` of them. `width`: how many bit planes of its experts the Program reads. `perfetto`, `waves`:
    files for the timeline of the first run and for all signals (FST), of the RTL only. `threads`, `variant`: of the
    cpu engine's kernels, the fastest variant if None. The reference engine itself is compared with the golden outputs
    of those images that are the bundle's. The result is kept in `<bundle>/results/<engine>.json`.
    Raises InputError for a bad bundle, task, image or a missing tool; CheckError when the machine reports a fault.
    """
    started = time.monotonic()
    bundle = Bundle.load(path)
    chosen = tuple(dict.fromkeys(bundle.task(name, width).name for name in tasks or bundle.graph.tasks))
    if jobs < 1 or (limit is not None and limit < 1):
        raise InputError(f"jobs and limit must be at least 1, not {jobs} and {limit}; give positive numbers")
    pixels = (bundle.images if images is None else load_images(images, bundle.graph.image))[:limit]
    runs = tuple(Run(image, task, width) for task in chosen for image in range(len(pixels)))
    if (perfetto or waves) and engine is not Engine.RTLSIM:
        raise InputError(f"engine must be rtlsim for a timeline or waves, not {engine.value}; choose it")
    if (threads != 1 or variant is not None) and engine is not Engine.CPU:
        raise InputError(f"engine must be cpu for threads or a variant, not {engine.value}; choose it")
    asked = replace(
        Request(bundle, pixels, Path(), runs, trace_tensors, jobs, Path(), progress),
        perfetto=_new_file(perfetto),
        waves=_new_file(waves),
        threads=threads,
        variant=variant,
    )
    outputs = _run(asked, engine)
    differences = _compare(bundle, engine, pixels, runs, outputs, trace_tensors)
    result = SimulationResult(
        engine=engine,
        images=len(pixels),
        tasks=chosen,
        mismatches=tuple(differences),
        cycles=_cycles(chosen, runs, outputs),
        macs=sum(bundle.task(run.task, run.width).macs for run in runs),
        peak_macs_per_cycle=bundle.peak_macs_per_cycle,
        seconds=time.monotonic() - started,
        device=next((output.device for output in outputs), None),
    )
    keep_result(bundle, result)
    if not trace_tensors:
        keep_profiles(bundle, runs, outputs)
    return result


def _new_file(path: Path | None) -> Path | None:
    """The absolute path of a file to be written. Raises InputError when its folder is missing."""
    if path is not None and not path.resolve().parent.is_dir():
        raise InputError(f"folder {path.resolve().parent} must exist, and it does not; make it first")
    return None if path is None else path.resolve()


def _run(asked: Request, engine: Engine) -> list[Output]:
    """Runs the engine in a folder of its own below the bundle's build folder."""
    bundle = asked.bundle
    build = bundle.path / "build"
    try:
        build.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{engine.value}-", dir=build) as folder:
            work = Path(folder)
            images_path = work / "images.npy"
            np.save(images_path, asked.images, allow_pickle=False)
            outputs = ENGINES[engine](replace(asked, images_path=images_path, work=work))
            asked.progress(len(asked.runs), len(asked.runs))
            return outputs
    except OSError as error:
        raise InputError(f"bundle {bundle.path} must be writable and have room: {reason(error)}; copy it") from None


def _compare(
    bundle: Bundle, engine: Engine, pixels: Pixels, runs: Sequence[Run], outputs: Sequence[Output], traced: bool
) -> list[Difference]:
    x = to_patches(pixels, bundle.graph.image)
    differences = []
    for run, output in zip(runs, outputs, strict=True):
        task = bundle.task(run.task, run.width)
        tensors = task.traced.tensors if traced else (task.result,)
        if engine is Engine.REFERENCE:
            expected = _golden(bundle, run, pixels)
            tensors = tuple(at for at in tensors if at.tensor in expected)
        else:
            expected = run_task(bundle.graph_at(run.width), run.task, x[run.image])
        difference = first_difference(run.task, run.image, output.buffer, tensors, expected)
        if difference is not None:
            differences.append(difference)
    return differences


def _golden(bundle: Bundle, run: Run, pixels: Pixels) -> dict[str, Ints]:
    """The result that the bundle expects for this image; empty when the image is not one of the bundle's."""
    result = bundle.task(run.task, run.width).result
    for own, golden in zip(bundle.images, bundle.golden(run.task, run.width), strict=True):
        if np.array_equal(own, pixels[run.image]):
            return {result.tensor: decode(golden.tobytes(), result)}
    return {}


def _cycles(tasks: Sequence[str], runs: Sequence[Run], outputs: Sequence[Output]) -> tuple[TaskCycles, ...] | None:
    counted = [(run.task, output.cycles) for run, output in zip(runs, outputs, strict=True)]
    if any(cycles is None for _, cycles in counted):
        return None
    return tuple(TaskCycles(task, tuple(c for name, c in counted if name == task and c is not None)) for task in tasks)
