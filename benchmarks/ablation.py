# SPDX-License-Identifier: Apache-2.0
"""What each idea of the machine is worth: M3ViT-tiny with ideas switched off, one at a time and cumulatively.

`python benchmarks/ablation.py` runs what a Program or a hardware parameter can switch off on the RTL, bit for bit
against the reference, and takes the rest from the cycle model (`codesign.schedule.switches`); writes
benchmarks/results/ablation.json and the tables of docs/ablation.md. `--estimates`: only estimates again, the RTL's
figures stay. Exit status 1 when a bit differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any

from common import RESULTS, store
from frames import BOARD, ROOMY, ROOT, bundle, described, frames, long_machine, model
from tables import replace_tables

from codesign.emit.manifest import ExpertWidth
from codesign.engines import Bundle
from codesign.engines.estimate import expert_tokens, supply_of
from codesign.schedule import Design, Options, plan
from codesign.schedule.switches import Switches, best_shares, lacking, switched
from codesign.schedule.timing import Shares, estimate
from codesign.synthesis import ExpertWeights

TASK = "semseg"
ALL_OFF = Switches(**{f.name: False for f in fields(Switches) if f.type == "bool"})
DOC = ROOT / "docs" / "ablation.md"
TERNARY, INT4, INT8 = ExpertWeights.TERNARY, ExpertWeights.INT4, ExpertWeights.INT8


@dataclass(frozen=True)
class Case:
    """A row: what is switched how. `peer`: Edge-MoE's milliseconds with the same ideas of theirs."""

    name: str
    switches: Switches
    experts: ExpertWeights = TERNARY
    peer: float | None = None


@dataclass
class Ladder:
    """Ideas switched on one after the other."""

    on: set[str] = field(default_factory=set)

    def step(self, name: str, idea: str = "", experts: ExpertWeights = INT8, peer: float | None = None) -> Case:
        """The next row."""
        self.on |= {idea} - {""}
        return Case(name, Switches(**{**asdict(ALL_OFF), **dict.fromkeys(self.on, True)}), experts, peer)


def cumulative() -> list[Case]:
    """Edge-MoE's order (arXiv 2305.18691, its ablation), then what this machine adds."""
    ladder = Ladder()
    return [
        ladder.step("all off, int8 experts", peer=650.3),
        ladder.step("+ expert-by-expert reordering", "expert_reordering", peer=433.4),
        ladder.step("+ single-pass softmax", "single_pass_softmax", peer=353.4),
        ladder.step("+ GELU beside compute", "gelu_beside_compute", peer=212.9),
        ladder.step("+ unified unit", "unified_unit", peer=104.3),
        ladder.step("+ reordered attention", "reordered_attention", peer=34.6),
        ladder.step("+ bit-plane blocks", "bit_plane_blocks"),
        ladder.step("+ instruction overlap", "instruction_overlap"),
        ladder.step("+ expert prefetch", "expert_prefetch"),
        ladder.step("+ ternary experts (everything on)", experts=TERNARY),
    ]


def one_at_a_time() -> list[Case]:
    """Everything on but one idea."""
    return [
        Case("everything on", Switches()),
        Case("reordered attention", Switches(reordered_attention=False)),
        Case("expert-by-expert reordering", Switches(expert_reordering=False)),
        Case("unified unit", Switches(unified_unit=False)),
        Case("instruction overlap", Switches(instruction_overlap=False)),
        Case("bit-plane blocks", Switches(bit_plane_blocks=False)),
        Case("single-pass softmax", Switches(single_pass_softmax=False)),
        Case("GELU beside compute", Switches(gelu_beside_compute=False)),
        Case("expert prefetch", Switches(expert_prefetch=False)),
        Case("ternary experts (int4 instead)", Switches(), INT4),
        Case("ternary experts (int8 instead)", Switches(), INT8),
        Case("expert prefetch, int8 experts", Switches(expert_prefetch=False), INT8),
    ]


@dataclass(frozen=True)
class Row:
    """What a case takes for one frame."""

    name: str
    experts: str
    off: tuple[str, ...]
    by: str
    """`rtl`, compared with the reference bit by bit, or `estimate`."""
    bit_exact: bool | None
    cycles: int
    milliseconds: float
    mac_utilisation: float
    estimated: int
    estimate_error: float | None
    bytes_read: int | None
    edge_moe_milliseconds: float | None


@cache
def design_of(experts: ExpertWeights) -> Design:
    """Everything on, on the machine with room for long Programs."""
    return plan(model(experts).graph, ROOMY, Options(machine=long_machine()))


@cache
def tokens_of(experts: ExpertWeights) -> tuple[Bundle, tuple[tuple[int, ...], ...]]:
    """The bundle with everything on, and the tokens of each expert in it."""
    one = bundle(f"ablation-{experts.value}", model(experts), design_of(experts))
    return one, expert_tokens(one, TASK, 0, ExpertWidth.STORED)


def estimated(case: Case) -> int:
    """Cycles of the model."""
    design = switched(design_of(case.experts), case.switches)
    one, tokens = tokens_of(case.experts)
    if not case.switches.expert_reordering:
        tokens = expert_tokens(bundle("ablation-estimate", model(case.experts), design), TASK, 0, ExpertWidth.STORED)
    program = tuple(s.instruction for s in next(t for t in design.tasks if t.task == TASK).plain.steps)
    supply = supply_of(one)
    unified = estimate(program, design.size, supply, tokens)
    shares = Shares() if case.switches.unified_unit else best_shares(program, unified)
    return estimate(program, design.size, supply, tokens, lacking=lacking(case.switches, shares)).cycles


@cache
def simulated(switches: Switches, experts: ExpertWeights) -> tuple[bool, int, int]:
    """(bit exact, cycles, bytes read) of a frame on the RTL."""
    design = switched(design_of(experts), switches)
    (frame,) = frames(bundle("ablation-rtl", model(experts), design), [TASK])
    return frame.exact, frame.cycles, frame.profile.read_bytes


def measure(case: Case, kept: Mapping[str, Any] | None) -> Row:
    """On the RTL if it can run the case. `kept`: its row of an earlier run, whose RTL figures stay."""
    guess = estimated(case)
    exact, cycles, read = None, guess, None
    if case.switches.in_hardware and kept:
        exact, cycles, read = kept["bit_exact"], kept["cycles"], kept["bytes_read"]
    elif case.switches.in_hardware:
        exact, cycles, read = simulated(case.switches, case.experts)
    size, macs = design_of(case.experts).size, next(t for t in design_of(case.experts).tasks if t.task == TASK).macs
    row = Row(
        case.name, case.experts.value,
        tuple(f.name for f in fields(Switches) if getattr(case.switches, f.name) is False),
        "estimate" if exact is None else "rtl", exact, cycles, cycles / BOARD.clock_mhz / 1e3,
        macs / cycles / size.macs, guess, None if exact is None else guess / cycles - 1, read, case.peer,
    )  # fmt: skip
    verdict = {None: "estimate", True: "RTL exact", False: "RTL DIFFERS"}[exact]
    print(f"{row.name:36} {cycles:10,} cycles {row.milliseconds:8.3f} ms  {verdict}", end="", flush=True)
    print("" if row.estimate_error is None else f", estimate {row.estimate_error:+.1%}", flush=True)
    return row


def by(row: Mapping[str, Any]) -> str:
    """The table's column."""
    return "estimate" if row["by"] == "estimate" else "RTL, bit exact" if row["bit_exact"] else "RTL, DIFFERS"


def cumulative_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, beside Edge-MoE's."""
    lines = [
        "| | ms | gain | measured by | Edge-MoE, ms | its gain |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for before, row in zip([None, *rows[:-1]], rows, strict=True):
        peer = row["edge_moe_milliseconds"]
        gain = f"{before['milliseconds'] / row['milliseconds']:.2f}x" if before else ""
        theirs = f"{before['edge_moe_milliseconds'] / peer:.2f}x" if before and peer else ""
        lines.append(f"| {row['name']} | {row['milliseconds']:.2f} | {gain} | {by(row)} | {peer or ''} | {theirs} |")
    return "\n".join(lines)


def single_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: each idea off, beside everything on."""
    lines = [
        "| off | cycles | ms | slower | array busy | MB read | measured by | estimate off by |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        error = "" if row["estimate_error"] is None else f"{row['estimate_error']:+.1%}"
        read = "" if row["bytes_read"] is None else f"{row['bytes_read'] / 1e6:.1f}"
        name = "nothing (everything on)" if row is rows[0] else row["name"]
        lines.append(
            f"| {name} | {row['cycles']:,} | {row['milliseconds']:.3f} | {row['cycles'] / rows[0]['cycles']:.2f}x |"
            f" {row['mac_utilisation']:.1%} | {read} | {by(row)} | {error} |"
        )
    return "\n".join(lines)


def write_tables(content: Mapping[str, Any]) -> None:
    """Replaces what stands between the markers of docs/ablation.md."""
    tables = {
        "cumulative": cumulative_table(content["cumulative"]),
        "one at a time": single_table(content["one_at_a_time"]),
    }
    replace_tables(DOC, "ablation", tables)


def main() -> int:
    """Run, print, store and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimates", action="store_true", help="only estimate again; the RTL's figures stay")
    facts: dict[str, Any] = {}
    if parser.parse_args().estimates:
        facts = json.loads((RESULTS / "ablation.json").read_text(encoding="utf-8"))
    lists = {"one_at_a_time": one_at_a_time(), "cumulative": cumulative()}
    kept = {(name, row["name"]): row for name in lists for row in facts.get(name, ())}
    rows = {name: [measure(case, kept.get((name, case.name))) for case in cases] for name, cases in lists.items()}
    every = [row for each in rows.values() for row in each]
    errors = [abs(row.estimate_error) for row in every if row.estimate_error is not None]
    content = {
        "model": "m3vit-tiny, top-2",
        "task": TASK,
        "board": BOARD.name,
        "clock_mhz": BOARD.clock_mhz,
        "machine": described(tokens_of(TERNARY)[0]),
        **facts,
        "estimate_error_max": max(errors),
        **{name: [asdict(row) for row in each] for name, each in rows.items()},
    }
    store("ablation", content, "python benchmarks/ablation.py")
    write_tables(content)
    return 0 if all(row.bit_exact is not False for row in every) else 1


if __name__ == "__main__":
    sys.exit(main())
