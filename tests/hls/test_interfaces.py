# SPDX-License-Identifier: Apache-2.0
"""The top function's interface pragmas against the register map."""

from __future__ import annotations

import re
from itertools import pairwise

from codesign.schedule.isa import REGISTERS
from tests.hls.build import HLS


def test_every_register_has_its_argument_and_its_offset() -> None:
    text = (HLS / "src" / "top.cpp").read_text(encoding="utf-8")
    bound = re.findall(r"^  CODESIGN_REGISTER\((\w+), (\w+)\)$", text, re.MULTILINE)
    assert bound == [(r.name, f"CODESIGN_ADDR_{r.name.upper()}") for r in REGISTERS]
    header = (HLS / "src" / "codesign_top.hpp").read_text(encoding="utf-8")
    arguments = re.findall(r"codesign::(\w+)\*? (\w+)[,)]", header)
    scalars = [("WideRegister" if r.bit_width == 64 else "Register", r.name) for r in REGISTERS]
    assert arguments == [*(("Beat", f"gmem{m}") for m in range(4)), *scalars]
    assert re.findall(r"^  CODESIGN_MASTER\((\w+)\)$", text, re.MULTILINE) == [f"gmem{m}" for m in range(4)]


def test_vitis_keeps_the_offsets() -> None:
    """Vitis HLS moves a register whose data words and one control word do not fit before the next (UG1399)."""
    for register, following in pairwise(REGISTERS):
        assert following.offset >= register.offset + register.bit_width // 8 + 4
