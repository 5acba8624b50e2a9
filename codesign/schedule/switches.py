# SPDX-License-Identifier: Apache-2.0
"""Switches the machine's ideas off, one by one, so that what each is worth can be measured (`benchmarks/ablation.py`).

What the Program or a hardware parameter decides is switched off in a Design (`switched`), which runs on every engine
and computes the same bits. What is wired into the hardware is switched off in the cycle model only (`lacking`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from codesign.errors import InputError
from codesign.schedule.design import MIN_FIFO_BLOCKS, Design, MachineSize, Program, Step, TaskPrograms
from codesign.schedule.isa import Instruction, Opcode, Unit
from codesign.schedule.timing import Lacking, ProgramTime, Shares

SOFTMAX_PASSES = 3
"""Over the scores before the weighted sum, without the single pass: maximum, sum, normalisation."""


@dataclass(frozen=True)
class Switches:
    """Which ideas are on. The first four are of the Program and its machine, the others of the hardware."""

    expert_reordering: bool = True
    """Off: each token is routed alone and reads the weights of its experts for itself."""
    expert_prefetch: bool = True
    """Off: no expert is requested before its layer is routed, and the block FIFO is the smallest that works."""
    reordered_attention: bool = True
    """Off: every query loads K and V for itself."""
    instruction_overlap: bool = True
    """Off: an instruction starts when all before it are complete."""
    single_pass_softmax: bool = True
    """Off: separate passes over the scores find maximum and sum and normalise, before the weighted sum."""
    gelu_beside_compute: bool = True
    """Off: GELU is a pass of its own over the hidden activations."""
    unified_unit: bool = True
    """Off: the multipliers are shared out to separate units for dense layers, experts and attention."""
    bit_plane_blocks: bool = True
    """Off: a weight tile loads one row a cycle, not one bit plane."""
    queries_per_load: int | None = None
    """Queries that share a load of K and V, where attention is reordered; None: all of an instruction."""

    def __post_init__(self) -> None:
        if self.queries_per_load is not None and self.queries_per_load < 1:
            raise InputError(f"queries_per_load must be 1 or more, not {self.queries_per_load}; give None for all")

    @property
    def in_hardware(self) -> bool:
        """Whether everything that is wired into the hardware is on: then the RTL can run it."""
        return self.single_pass_softmax and self.gelu_beside_compute and self.unified_unit and self.bit_plane_blocks

    @property
    def queries(self) -> int | None:
        """Queries that share a load of K and V, None for all of them."""
        return self.queries_per_load if self.reordered_attention else 1


def machine_of(size: MachineSize, switches: Switches) -> MachineSize:
    """The machine with the smallest block FIFO where prefetching is off."""
    return size if switches.expert_prefetch else replace(size, fifo_blocks=MIN_FIFO_BLOCKS)


def switched(design: Design, switches: Switches) -> Design:
    """The Design with its Programs rewritten, the same results to the bit. Its program store grows where it must.

    Traced Programs of a Design without expert reordering store no queues: no queue ever holds more than one token.
    """
    size = machine_of(design.size, switches)
    memory = bytearray(design.memory)
    tasks = tuple(
        TaskPrograms(t.task, t.width, *(_put(_rewritten(p, switches), memory, size) for p in (t.plain, t.traced)))
        for t in design.tasks
    )
    longest = max(len(p.steps) for t in tasks for p in (t.plain, t.traced))
    instructions = max(size.max_instructions, 1 << (longest - 1).bit_length())
    return replace(design, size=replace(size, max_instructions=instructions), memory=bytes(memory), tasks=tasks)


def lacking(switches: Switches, shares: Shares) -> Lacking:
    """What the cycle model must leave out. `shares`: of the multipliers, for units that are separate."""
    return Lacking(
        softmax_passes=0 if switches.single_pass_softmax else SOFTMAX_PASSES,
        gelu_pass=not switches.gelu_beside_compute,
        row_loads=not switches.bit_plane_blocks,
        shares=Shares() if switches.unified_unit else shares,
    )


def best_shares(program: Sequence[Instruction], time: ProgramTime) -> Shares:
    """The shares of the multipliers with which units that are never busy together need the fewest cycles.

    `time`: of the Program on the unified unit. Work w on a share f takes w / f, so f goes with the root of w.
    """
    work = dict.fromkeys((Opcode.LINEAR, Opcode.EXPERTS, Opcode.ATTENTION), 0)
    for instruction, spent in zip(program, time.instructions, strict=True):
        kind = Opcode.LINEAR if instruction.opcode is Opcode.ROUTE else instruction.opcode
        if kind in work:
            work[kind] += spent.compute
    total = sum(sqrt(w) for w in work.values())
    if not all(work.values()):
        raise InputError("a Program must have dense layers, experts and attention to share multipliers; use another")
    dense, experts, attention = (sqrt(w) / total for w in work.values())
    return Shares(dense, experts, attention)


def _put(program: Program, memory: bytearray, size: MachineSize) -> Program:
    """The Program with its code at the end of the memory image."""
    code = b"".join(step.instruction.encode() for step in program.steps)
    addr = len(memory) // size.line_bytes
    memory += code + bytes(-len(code) % size.line_bytes)
    return replace(program, addr=addr)


def _rewritten(program: Program, switches: Switches) -> Program:
    """Every step replaced by those that do its work; positions that steps and tensors refer to follow."""
    out: list[Step] = []
    ends: list[int] = []
    route: Step | None = None
    overlaps = False
    for step in program.steps:
        parts = list(_parts(step, route, switches))
        overlaps = overlaps and len(parts) == 1
        for part in parts:
            out.append(_placed(part, len(out), ends, overlaps))
        overlaps = switches.instruction_overlap and len(parts) == 1
        ends.append(len(out))
        route = step if step.instruction.opcode is Opcode.ROUTE else route
    kept = (s for s in program.stored if switches.expert_reordering or s.unit is not Unit.QUEUE)
    return replace(program, steps=tuple(out), stored=tuple(replace(s, step=ends[s.step] - 1) for s in kept))


def _placed(step: Step, index: int, ends: Sequence[int], overlaps: bool) -> Step:
    """The step as the `index`-th of a Program in which old step n ends before step `ends[n]`."""
    i = step.instruction
    fence = index if i.opcode is Opcode.EXPERTS else ends[i.fence - 1] if i.fence else 0
    return replace(step, instruction=replace(i, chain=i.chain if overlaps else 0, fence=fence))


def _parts(step: Step, route: Step | None, switches: Switches) -> Iterator[Step]:
    """The steps that do a step's work. `route`: the ROUTE before it."""
    i = step.instruction
    alone = not switches.expert_reordering
    if i.opcode is Opcode.ATTENTION and switches.queries is not None:
        for first in range(0, i.rows, switches.queries):
            yield _rows(step, first, min(switches.queries, i.rows - first))
    elif alone and (i.opcode is Opcode.ROUTE or (i.opcode is Opcode.STORE and i.unit is Unit.QUEUE)):
        return  # each token's experts come with its own ROUTE
    elif alone and i.opcode is Opcode.EXPERTS:
        assert route is not None
        for row in range(i.rows):
            yield _rows(route, row, 1)
            yield _without_prefetch(_rows(step, row, 1))
    elif i.opcode is Opcode.EXPERTS and not switches.expert_prefetch:
        yield _without_prefetch(step)
    else:
        yield step


def _without_prefetch(step: Step) -> Step:
    return replace(step, instruction=replace(step.instruction, ahead=0))


def _rows(step: Step, first: int, rows: int) -> Step:
    """The step over some of its rows."""
    i = step.instruction
    part = replace(i, rows=rows, src_base=i.src_base + first * i.src_stride, dst_base=i.dst_base + first * i.dst_stride)
    return replace(step, instruction=part, macs=step.macs * rows // i.rows)
