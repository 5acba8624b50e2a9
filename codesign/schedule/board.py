# SPDX-License-Identifier: Apache-2.0
"""Boards: what a design may use, read from `boards/<name>/board.toml`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from codesign.assets import asset
from codesign.errors import InputError
from codesign.schedule.isa import BEAT_BYTES
from codesign.settings import parse_toml, read_text


class Resources(BaseModel):
    """What the device holds. Units: counts of primitives."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dsp: int = Field(gt=0)
    lut: int = Field(gt=0)
    ff: int = Field(gt=0)
    bram36: int = Field(gt=0)
    uram: int = Field(ge=0)


class Memory(BaseModel):
    """The external memory as the machine's ports see it; simulated by `rtl_tests/machine/dram.cpp`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ports: int = Field(gt=0)
    """128-bit AXI ports of the programmable logic."""
    peak_bytes_per_second: float = Field(gt=0)
    """Of the memory chips."""
    efficiency: float = Field(gt=0, le=1)
    """Share of the peak that long bursts in one direction reach, refresh included."""
    latency_ns: float = Field(ge=0)
    """From a read address to the first beat, and from the last write beat to its response, unloaded."""
    burst_beats: int = Field(gt=0, le=256)
    """Beats after which the memory's ports slice a longer burst."""
    outstanding: int = Field(gt=0)
    """Slices that one port has under way in one direction."""
    banks: int = Field(gt=0)
    page_bytes: int = Field(gt=0)
    """Of an open row, over all chips."""
    row_miss_ns: float = Field(ge=0)
    """Closing a row and opening another (tRP + tRCD); hidden while other banks transfer."""
    row_cycle_ns: float = Field(ge=0)
    """Between two openings of rows of one bank (tRC)."""
    turnaround_ns: float = Field(ge=0)
    """The data bus rests between reads and writes."""
    refresh_interval_ns: float = Field(gt=0)
    refresh_ns: float = Field(ge=0)
    """Every `refresh_interval_ns` (tREFI) all banks are closed and rest for this long (tRFC)."""
    source: str

    def bytes_per_cycle(self, clock_mhz: float) -> float:
        """Sustained bytes a clock cycle over all ports: the chips' share, and never more than the ports carry."""
        sustained = self.peak_bytes_per_second * self.efficiency / (clock_mhz * 1e6)
        return min(sustained, self.ports * BEAT_BYTES)

    def latency_cycles(self, clock_mhz: float) -> float:
        """`latency_ns` in clock cycles."""
        return self.latency_ns * clock_mhz / 1e3


class Board(BaseModel):
    """A board: FPGA part, clock, resources."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    part: str
    board_part: str
    clock_mhz: float = Field(gt=0, le=1000)
    resources: Resources
    memory: Memory
    source: str


def load_board(name: str) -> Board:
    """The board of that name, or of a path to a `board.toml`. Raises InputError for an unknown name or a bad file."""
    path = Path(name) if name.endswith(".toml") else asset("boards") / name / "board.toml"
    if not path.is_file():
        known = sorted(p.parent.name for p in asset("boards").glob("*/board.toml"))
        raise InputError(
            f"board must be one of {', '.join(known)} or a path to a board.toml, not {name!r}; choose one of those"
        )
    return parse_toml(Board, read_text(path, "board"), str(path), "boards/zcu104/board.toml")
