# SPDX-License-Identifier: Apache-2.0
"""From the integer graph and a board to a sized machine, its memory image and one Program per task.

In: `Graph`, `Board`. Out: `Design` (with its `Program`s). The instruction set and the register map are in `isa.py`.
"""

from codesign.schedule.board import Board, load_board
from codesign.schedule.design import (
    Design,
    MachineSize,
    MemoryKind,
    Program,
    Step,
    Stored,
    TaskPrograms,
    striped,
    unstriped,
)
from codesign.schedule.isa import Width
from codesign.schedule.plan import ArrayShape, Options, plan

__all__ = [
    "ArrayShape",
    "Board",
    "Design",
    "MachineSize",
    "MemoryKind",
    "Options",
    "Program",
    "Step",
    "Stored",
    "TaskPrograms",
    "Width",
    "load_board",
    "plan",
    "striped",
    "unstriped",
]
