# SPDX-License-Identifier: Apache-2.0
"""The whole way once: shipped checkpoint, QONNX, bundle, four engines, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codesign.assets import asset
from codesign.engines import Bundle, Engine, SimulationResult, simulate
from codesign.generate import generate
from codesign.report import Measurement, measure, read_training, write_page
from codesign.schedule import ArrayShape, Options

CHECKPOINT = "digits.safetensors"
BOARD = "zcu104"
ARRAY = ArrayShape(simd=32, pe=32)
"""Large enough for the small model, and quick to compile for simulation."""

Watch = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo made and found."""

    bundle: Path
    simulations: tuple[SimulationResult, ...]
    measured: Measurement
    """The integer model on the test scenes."""
    report: Path

    @property
    def bit_exact(self) -> bool:
        """Every engine agrees."""
        return all(one.bit_exact for one in self.simulations)


def _nobody(what: str, done: int, total: int) -> None:
    """For a caller who does not watch."""


def demo(out: Path, checkpoint: Path | None = None, jobs: int = 2, watch: Watch = _nobody) -> DemoResult:
    """Take the shipped checkpoint (or another) to a verified bundle in folder `out`; the QONNX file lies beside it.

    Raises InputError for a bad checkpoint, an output that cannot be written, or a missing tool.
    """
    from codesign.train.export import export  # torch takes seconds to import

    source = asset("models") / CHECKPOINT if checkpoint is None else checkpoint
    model = out.parent / f"{source.stem}.onnx"
    watch("exporting QONNX", 0, 1)
    model.parent.mkdir(parents=True, exist_ok=True)
    export(source, model)
    watch("exporting QONNX", 1, 1)
    watch("generating the bundle", 0, 1)
    bundle = generate(model, BOARD, out, options=Options(ARRAY))
    watch("generating the bundle", 1, 1)
    simulations = tuple(_simulate(bundle, engine, jobs, watch) for engine in Engine if engine is not Engine.CUDA)
    opened = Bundle.load(bundle)
    test_images = read_training(opened).test_images
    measured = measure(opened, test_images, lambda done, total: watch("measuring the integer model", done, total))
    return DemoResult(bundle, simulations, measured, write_page(opened, measured))


def _simulate(bundle: Path, engine: Engine, jobs: int, watch: Watch) -> SimulationResult:
    def progress(done: int, total: int) -> None:
        watch(f"simulating on {engine.value}", done, total)

    return simulate(bundle, engine, jobs=jobs, progress=progress)
