# SPDX-License-Identifier: Apache-2.0
"""From the integer graph and a board to a sized machine, its memory image and one Program per task.

In: `Graph`, `Board`. Out: `Design` (with its `Program`s). The instruction set and the register map are in `isa.py`.
"""

from codesign.schedule.board import Board, load_board
from codesign.schedule.design import Design, MachineSize, Program, Step, Stored, TaskPrograms
from codesign.schedule.plan import ArrayShape, plan

__all__ = [
    "ArrayShape",
    "Board",
    "Design",
    "MachineSize",
    "Program",
    "Step",
    "Stored",
    "TaskPrograms",
    "load_board",
    "plan",
]
