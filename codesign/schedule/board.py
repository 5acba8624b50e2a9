# SPDX-License-Identifier: Apache-2.0
"""Boards: what a design may use, read from `boards/<name>/board.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from codesign.assets import asset
from codesign.errors import InputError


class Resources(BaseModel):
    """What the device holds. Units: counts of primitives."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dsp: int = Field(gt=0)
    lut: int = Field(gt=0)
    ff: int = Field(gt=0)
    bram36: int = Field(gt=0)
    uram: int = Field(ge=0)


class Memory(BaseModel):
    """The external memory as the machine's ports see it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ports: int = Field(gt=0)
    """128-bit AXI ports of the programmable logic."""
    peak_bytes_per_second: float = Field(gt=0)
    """Of the memory chips."""
    efficiency: float = Field(gt=0, le=1)
    """Share of the peak that long bursts reach (refresh, turnarounds, row misses)."""
    latency_ns: float = Field(ge=0)
    """From a read address to the first beat, unloaded."""
    source: str


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
    try:
        return Board.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be TOML: {error}; repair it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where} must be valid: {first['msg']}; repair it") from None
