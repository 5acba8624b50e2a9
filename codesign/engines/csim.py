# SPDX-License-Identifier: Apache-2.0
"""C-simulation: the emitted HLS C++, compiled with g++ and hls4ml's `ap_types`."""

from __future__ import annotations

from pathlib import Path

from codesign.engines import toolchain
from codesign.engines.build import build
from codesign.engines.engine import Engine, Output, Request, output_bytes, task_of
from codesign.engines.images import input_buffer
from codesign.engines.toolchain import Command, Completed, Tool
from codesign.errors import CheckError
from codesign.schedule import striped, unstriped

_SECONDS_PER_RUN = 900.0


def run(request: Request) -> list[Output]:
    """Build once, then one process a run, `jobs` side by side. Raises CheckError when the machine reports a fault."""
    executable = build(request.bundle, Engine.CSIM, (Tool.GXX,))
    manifest = request.bundle.manifest
    for image in {run.image for run in request.runs}:
        buffer = striped(input_buffer(request.images[image], manifest.image), manifest.machine.ports)
        (request.work / f"input{image}.bin").write_bytes(buffer)
    commands = [_command(request, executable, index) for index in range(len(request.runs))]

    def poll() -> None:
        request.progress(len(list(request.work.glob("output*.bin"))), len(commands))

    completed = toolchain.run_all(commands, request.jobs, poll)
    return [_output(request, index, one) for index, one in enumerate(completed)]


def _command(request: Request, executable: Path, index: int) -> Command:
    """csim MEMORY INPUTS OUTPUTS PROGRAM_ADDR NUM_INSTRUCTIONS INPUT_BYTES OUTPUT_BYTES RUNS."""
    run, work, manifest = request.runs[index], request.work, request.bundle.manifest
    task = task_of(request, index)
    program = task.traced if request.traced else task
    files = (request.bundle.path / manifest.memory.file, work / f"input{run.image}.bin", work / f"output{index}.bin")
    numbers = (program.program_addr, program.num_instructions, manifest.image.bytes, program.output_bytes, 1)
    return Command(
        executable, (*map(str, files), *map(str, numbers)), work / f"csim{index}.log", work, _SECONDS_PER_RUN
    )


def _output(request: Request, index: int, completed: Completed) -> Output:
    run = request.runs[index]
    if completed.status:
        line = completed.tail[-1] if completed.tail else "no output"
        raise CheckError(
            f"csim of task {run.task}, image {run.image} must end with status 0, not {completed.status}: {line}"
        )
    buffer = output_bytes(request, index, request.work / f"output{index}.bin")
    return Output(unstriped(buffer, request.bundle.manifest.machine.ports))
