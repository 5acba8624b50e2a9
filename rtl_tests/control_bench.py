# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of the control side: the machines they are built for, and what stands in a pass."""

from __future__ import annotations

import os
import re
from functools import cache

from codesign.emit import render_sv_package
from codesign.schedule.design import MachineSize

SIZES = {
    "simd16": MachineSize(
        simd=16, pe=16, ports=1, act_words=500, res_words=300, max_rows=40, key_words=3, max_experts=8, acc_bits=32,
        norm_dim_max=96, max_instructions=32, fifo_blocks=32,
    ),
    "simd32": MachineSize(
        simd=32, pe=32, ports=2, act_words=1024, res_words=777, max_rows=33, key_words=2, max_experts=1, acc_bits=33,
        norm_dim_max=128, max_instructions=20, fifo_blocks=64,
    ),
    "simd64": MachineSize(
        simd=64, pe=48, ports=4, act_words=8192, res_words=2000, max_rows=129, key_words=3, max_experts=16, acc_bits=32,
        norm_dim_max=768, max_instructions=100, fifo_blocks=512,
    ),
    "largest": MachineSize(
        simd=64, pe=64, ports=4, act_words=65536, res_words=65536, max_rows=1023, key_words=64, max_experts=64,
        acc_bits=40, norm_dim_max=4096, max_instructions=1024, fifo_blocks=4096,
    ),
}  # fmt: skip
"""Machines that differ in all that the control side derives from their size."""


def machine() -> MachineSize:
    """The size the running cocotb module was built for."""
    return SIZES[os.environ["CODESIGN_MACHINE"]]


@cache
def _pass_layout(size: MachineSize) -> tuple[tuple[str, int], ...]:
    """Fields of pass_t and their widths from bit 0 upward, as the rendered package has them."""
    text = render_sv_package(size)
    body = re.sub(r"//.*", "", text[: text.index("} pass_t;")].rsplit("typedef struct packed {", 1)[1])
    names = {name: int(value) for name, value in re.findall(r"localparam int unsigned (\w+) = (\d+);", text)}
    enums = {"pass_kind_t": 2, "row_source_t": 2, "pass_post_t": 4}
    fields = []
    for kind, name in re.findall(r"(\S+(?: \[\S+\])?) (\w+);", body):
        span = re.search(r"\[(\w+)(-1)?:0\]", kind)
        if span is None:
            fields.append((name, enums.get(kind, 1)))
        elif span.group(2):
            fields.append((name, names[span.group(1)]))
        else:
            fields.append((name, int(span.group(1)) + 1))
    return tuple(fields[::-1])


def decode_pass(word: int) -> dict[str, int]:
    """The fields of a codesign_pkg::pass_t."""
    values = {}
    for name, width in _pass_layout(machine()):
        values[name] = word & ((1 << width) - 1)
        word >>= width
    return values
