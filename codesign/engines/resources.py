# SPDX-License-Identifier: Apache-2.0
"""What a bundle's machine takes of its board, and its longest paths: synthesis by Yosys, module by module.

Each module is mapped once, with its small submodules, its large ones as black boxes; totals are sums over instances.
Optimisation across the boundary of a black box is lost: constants do not go in, unused outputs are not cut off.
How each primitive counts: docs/resources.md and resources_primitives.py.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from codesign.engines.bundle import Bundle
from codesign.engines.engine import Progress
from codesign.engines.resources_netlist import Summary
from codesign.engines.resources_paths import Timing, timing
from codesign.engines.resources_primitives import Kind, primitive
from codesign.engines.resources_units import LIMIT_BITS, Unit, cut, split
from codesign.engines.resources_yosys import cache_folder, elaborate, map_units, version
from codesign.errors import InputError, reason
from codesign.schedule import Board, load_board
from codesign.schedule.board import Resources

TOP = "codesign_top"
LEVELS = 8
"""Paths of more LUT levels are flagged: a LUT and its wiring take about 0.4 ns, and 300 MHz leaves 3.3 ns."""


@dataclass(frozen=True)
class Use:
    """Primitives of a module or of the whole machine."""

    dsp: int = 0
    lut: int = 0
    """LUT1 to LUT6 and inverters one each, LUTRAM and shift registers by the LUTs they take."""
    ff: int = 0
    bram18: int = 0
    """Halves of a BRAM36."""
    uram: int = 0
    lut_memory: int = 0
    """Of `lut`: distributed RAM."""
    lut_shift: int = 0
    """Of `lut`: shift registers."""
    ff_after_block: int = 0
    """Of `ff`: those that only delay the output of a RAM or DSP block, and that Vivado takes into the block."""
    lut_before_dsp: int = 0
    """Of `lut`: adders in front of a DSP's factor, which Vivado takes into its pre-adder."""
    carry4: int = 0
    muxf: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Use)))

    def __mul__(self, count: int) -> Use:
        return Use(*(getattr(self, f.name) * count for f in fields(Use)))

    @property
    def bram36(self) -> float:
        """Block RAMs of 36 Kbit."""
        return self.bram18 / 2


@dataclass(frozen=True)
class ModuleUse:
    """A module that was mapped, and what one instance takes without its black boxes."""

    name: str
    """Its source name, with the parameters in which it differs from others of that name."""
    instances: int
    inside: tuple[str, ...]
    """Submodules counted with it."""
    use: Use
    levels: int | None
    """LUT levels of the longest path from register to register that no black box holds whole; None: no such path."""
    path: tuple[str, ...]
    """The nets and pins that path comes by."""
    loop: bool
    """Black boxes feed one another in a circle of ports, so a longer path may be missing."""


@dataclass(frozen=True)
class ResourceReport:
    """The machine against its board."""

    board: str
    available: Resources
    total: Use
    modules: tuple[ModuleUse, ...]
    yosys: str
    seconds: float

    @property
    def lines(self) -> tuple[tuple[str, float, int], ...]:
        """(resource, used, available) of what a board is judged by."""
        use, have = self.total, self.available
        return (
            ("DSP48E2", use.dsp, have.dsp),
            ("LUT", use.lut, have.lut),
            ("FF", use.ff, have.ff),
            ("BRAM36", use.bram36, have.bram36),
            ("URAM", use.uram, have.uram),
        )

    @property
    def fits(self) -> bool:
        """Nothing exceeds the board."""
        return all(used <= available for _, used, available in self.lines)

    @property
    def levels(self) -> int:
        """LUT levels of the longest path of all."""
        return max((module.levels or 0 for module in self.modules), default=0)

    def to_json(self) -> str:
        """The stable JSON form."""
        content = {
            "board": self.board,
            "fits": self.fits,
            "resources": {name: {"used": used, "available": have} for name, used, have in self.lines},
            "total": asdict(self.total),
            "levels": self.levels,
            "levels_limit": LEVELS,
            "modules": [asdict(module) for module in self.modules],
            "yosys": self.yosys,
            "seconds": round(self.seconds, 2),
        }
        return json.dumps(content, indent=1)

    def table(self) -> str:
        """What a person reads."""
        rows: list[tuple[str, ...]] = [("module", "instances", "DSP48E2", "LUT", "FF", "BRAM36", "URAM", "levels")]
        for module in sorted(self.modules, key=lambda one: (-one.use.lut * one.instances, one.name)):
            use = module.use * module.instances
            levels = "–" if module.levels is None else f"{module.levels}{' !' if module.levels > LEVELS else ''}"
            rows.append((module.name, f"{module.instances:,}", *_figures(use), levels))
        rows.append(("used", "", *_figures(self.total), str(self.levels)))
        rows.append(("available", "", *(f"{have:,}" for _, _, have in self.lines), str(LEVELS)))
        rows.append(("share", "", *(f"{used / have:.1%}" if have else "–" for _, used, have in self.lines), ""))
        text = _aligned(rows)
        over = [f"{name}: {used:g} of {have:,}" for name, used, have in self.lines if used > have]
        slow = [_path_text(module) for module in self.modules if module.levels is not None and module.levels > LEVELS]
        verdict = f"does not fit {self.board}: {', '.join(over)}" if over else f"fits {self.board}"
        use = self.total
        notes = [
            f"of the LUTs {use.lut_memory:,} are RAM and {use.lut_shift:,} shift registers;"
            f" {use.lut_before_dsp:,} LUTs and {use.ff_after_block:,} FFs would go into DSP and RAM blocks in Vivado"
        ]
        return "\n".join([*text, *notes, *slow, verdict])


def _figures(use: Use) -> tuple[str, ...]:
    return (f"{use.dsp:,}", f"{use.lut:,}", f"{use.ff:,}", f"{use.bram36:g}", f"{use.uram:,}")


def _path_text(module: ModuleUse) -> str:
    return f"{module.levels} levels in {module.name}: {module.path[0]} to {module.path[-1]}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            c.ljust(w) if n == 0 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _silent(done: int, total: int) -> None:
    """The progress callback of somebody who does not watch."""


@dataclass(frozen=True)
class Synthesis:
    """Where a synthesis works and how it divides the design."""

    work: Path
    """A folder for files in between."""
    cache: Path
    """A folder for what need not be done again."""
    jobs: int = 2
    """Processes side by side."""
    limit_bits: int = LIMIT_BITS
    """`resources_units.cut`."""


def resources(bundle: Bundle, progress: Progress = _silent, jobs: int = 2) -> ResourceReport:
    """Synthesise the bundle's RTL and hold it against the board.

    `progress` is told how many modules are done, of how many. Raises InputError when Yosys is missing or refuses the
    RTL, CheckError for a combinational loop.
    """
    board = load_board(bundle.manifest.board)
    build = bundle.path / "build"
    try:
        build.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="resources-", dir=build) as folder:
            return measure(bundle.path / "rtl", TOP, board, Synthesis(Path(folder), cache_folder(), jobs), progress)
    except OSError as error:
        raise InputError(f"bundle {bundle.path} must be writable and have room: {reason(error)}; copy it") from None


def measure(rtl: Path, top: str, board: Board, how: Synthesis, progress: Progress = _silent) -> ResourceReport:
    """Synthesise module `top` of the RTL in folder `rtl` (files by its `sources.f`). Raises as `resources`."""
    started = time.monotonic()
    release = version()
    units = cut(split(elaborate(rtl, top, how.work, how.cache)), f"\\{top}", how.limit_bits)
    summaries = map_units(units, how.work, how.cache, how.jobs, progress)
    modules = _modules(units, summaries)
    total = sum((one.use * one.instances for one in modules), Use())
    return ResourceReport(board.name, board.resources, total, modules, release, time.monotonic() - started)


def _modules(units: Sequence[Unit], summaries: Sequence[Summary]) -> tuple[ModuleUse, ...]:
    """Every unit before its black boxes: the top comes first."""
    timings: dict[str, Timing] = {}
    for unit, summary in zip(units, summaries, strict=True):
        timings[unit.module.name.removeprefix("\\")] = timing(summary, timings)
    instances = Counter({units[-1].module.name.removeprefix("\\"): 1})
    found = []
    for unit, summary, label in reversed(list(zip(units, summaries, _labels(units), strict=True))):
        name = unit.module.name.removeprefix("\\")
        for box in summary.boxes:
            instances[box.module] += instances[name]
        at = timings[name]
        worst = at.worst
        stations = () if worst is None else worst.stations
        levels = None if worst is None else worst.levels
        found.append(ModuleUse(label, instances[name], unit.inside, _use(summary), levels, stations, at.loop))
    return tuple(found)


def _labels(units: Sequence[Unit]) -> list[str]:
    """Source names, with as few parameters as tell units of one name apart."""
    chosen: dict[str, list[str]] = {}
    for source in {unit.module.source for unit in units}:
        named = [dict(unit.module.parameters) for unit in units if unit.module.source == source]
        chosen[source] = []
        for parameter in named[0]:
            before = len({tuple(one.get(name) for name in chosen[source]) for one in named})
            after = len({tuple(one.get(name) for name in [*chosen[source], parameter]) for one in named})
            if after > before:
                chosen[source].append(parameter)
    labels = []
    for unit in units:
        values = dict(unit.module.parameters)
        told = [f"{name}={values[name]}" for name in chosen[unit.module.source] if name in values]
        labels.append(" ".join([unit.module.source, *told]))
    return labels


def _use(summary: Summary) -> Use:
    sites: Counter[Kind] = Counter()
    for name, count in summary.primitives:
        sites[primitive(name).kind] += primitive(name).sites * count
    return Use(
        dsp=sites[Kind.DSP],
        lut=sites[Kind.LUT] + sites[Kind.LUT_MEMORY] + sites[Kind.SHIFT_REGISTER],
        ff=sites[Kind.REGISTER],
        bram18=sites[Kind.BRAM],
        uram=sites[Kind.URAM],
        lut_memory=sites[Kind.LUT_MEMORY],
        lut_shift=sites[Kind.SHIFT_REGISTER],
        ff_after_block=summary.ff_after_block,
        lut_before_dsp=summary.lut_before_dsp,
        carry4=sites[Kind.CARRY],
        muxf=sites[Kind.MUX],
    )
