# SPDX-License-Identifier: Apache-2.0
"""Cycles of a bundle's Programs by the analytic model (`codesign.schedule.timing`), without simulating the machine.

How many tokens each expert gets decides a mixture's time, so the integer reference routes one image first.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from codesign.emit.manifest import ExpertWidth
from codesign.engines.bundle import Bundle
from codesign.errors import InputError
from codesign.reference import run_task
from codesign.schedule.isa import Instruction, Opcode
from codesign.schedule.timing import Supply, estimate
from codesign.spec import OpKind
from codesign.spec.patches import to_patches


@dataclass(frozen=True)
class InstructionEstimate:
    """One macro-instruction's share of the cycles (`timing.InstructionTime`)."""

    name: str
    opcode: str
    macs: int
    cycles: int
    compute: int
    memory: int
    fill: int
    stall: int
    read_bytes: int
    """Of the stream; of the experts only those with tokens,"""
    skipped_bytes: int
    """and those without."""


@dataclass(frozen=True)
class TaskEstimate:
    """Estimated cycles of one image through one task, beside what its work and its traffic take at least."""

    task: str
    width: ExpertWidth
    cycles: int
    macs: int
    compute_bound: float
    """Cycles of the MACs on a perfectly busy array."""
    memory_bound: float
    """Cycles of the bytes it must read at the memory's sustained rate, experts without tokens left out."""
    instructions: tuple[InstructionEstimate, ...]

    @property
    def roofline(self) -> float:
        """The larger of the two bounds."""
        return max(self.compute_bound, self.memory_bound)


@dataclass(frozen=True)
class EstimateReport:
    """Estimates of a bundle's tasks for one image."""

    peak_macs_per_cycle: int
    clock_mhz: float
    tasks: tuple[TaskEstimate, ...]

    def to_json(self) -> str:
        """The stable JSON form."""
        tasks = [
            {
                **asdict(t),
                "width": t.width.value,
                "milliseconds": t.cycles / self.clock_mhz / 1e3,
                "mac_utilisation": t.macs / t.cycles / self.peak_macs_per_cycle,
                "roofline_ratio": t.cycles / t.roofline,
            }
            for t in self.tasks
        ]
        content = {"peak_macs_per_cycle": self.peak_macs_per_cycle, "clock_mhz": self.clock_mhz, "tasks": tasks}
        return json.dumps(content, indent=1)


def supply_of(bundle: Bundle) -> Supply:
    """The external memory of the bundle's board at the machine's clock."""
    dram, clock = bundle.manifest.dram, bundle.manifest.clock_mhz
    return Supply(
        bytes_per_cycle=dram.bytes_per_cycle(clock),
        latency=dram.latency_cycles(clock),
        opening=dram.row_miss_ns * clock / 1e3,
        turnaround=dram.turnaround_ns * clock / 1e3,
        refresh_interval=dram.refresh_interval_ns * clock / 1e3,
        slice_lines=dram.burst_beats,
        banks=dram.banks,
        page_bytes=dram.page_bytes,
        stripe=bundle.manifest.memory.bytes // bundle.size.ports,
    )


def estimate_bundle(bundle: Bundle, image: int = 0, width: ExpertWidth = ExpertWidth.STORED) -> EstimateReport:
    """Estimate every task for one of the bundle's images. Raises InputError when there is no such image or width."""
    if not 0 <= image < len(bundle.images):
        raise InputError(
            f"image must be one of the bundle's {len(bundle.images)}, not {image}; choose a smaller number"
        )
    tasks = tuple(_task(bundle, task, image, width) for task in bundle.graph.tasks)
    return EstimateReport(bundle.peak_macs_per_cycle, bundle.manifest.clock_mhz, tasks)


def expert_tokens(bundle: Bundle, task: str, image: int, width: ExpertWidth) -> tuple[tuple[int, ...], ...]:
    """Tokens of each expert in every EXPERTS instruction of the plain Program, by routing the image."""
    graph, entry = bundle.graph_at(width), bundle.task(task, width)
    x = to_patches(bundle.images[image : image + 1], graph.image)[0]
    values = run_task(graph, task, x)
    gates_of = {n.name: n.inputs[1] for n in graph.nodes if n.kind is OpKind.EXPERTS}
    done: dict[str, int] = {}
    tokens = []
    for info, instruction in zip(entry.instructions, bundle.instructions(entry), strict=True):
        if instruction.opcode is Opcode.EXPERTS:
            first = done.get(info.name, 0)
            done[info.name] = first + instruction.rows
            gates = values[gates_of[info.name]][first : first + instruction.rows]
            tokens.append(tuple(int(n) for n in np.count_nonzero(gates, axis=0)))
    return tuple(tokens)


def _task(bundle: Bundle, task: str, image: int, width: ExpertWidth) -> TaskEstimate:
    entry, size, supply = bundle.task(task, width), bundle.size, supply_of(bundle)
    program = bundle.instructions(entry)
    tokens = expert_tokens(bundle, task, image, width)
    timed = estimate(program, size, supply, tokens)
    moved = _bytes_read(bundle, program, tokens)
    rows = tuple(
        InstructionEstimate(info.name, info.opcode, info.macs, t.cycles, t.compute, t.memory, t.fill, t.stall, *bytes_)
        for info, t, bytes_ in zip(entry.instructions, timed.instructions, moved, strict=True)
    )
    read = sum(row.read_bytes for row in rows)
    rate = min(supply.bytes_per_cycle, size.line_bytes)
    return TaskEstimate(task, width, timed.cycles, entry.macs, entry.macs / size.macs, read / rate, rows)


def _bytes_read(
    bundle: Bundle, program: tuple[Instruction, ...], tokens: tuple[tuple[int, ...], ...]
) -> list[tuple[int, int]]:
    """Bytes of the stream that the image needs for each instruction, and of experts that it does not need."""
    size, queues, moved = bundle.size, iter(tokens), []
    for i in program:
        blocks = [i.blocks, 0]
        if i.opcode is Opcode.EXPERTS:
            blocks = [0, 0]
            for e, count in enumerate(next(queues)):
                blocks[count == 0] += i.blocks_of(e, size.record_blocks)
        moved.append((blocks[0] * size.block_bytes, blocks[1] * size.block_bytes))
    return moved
