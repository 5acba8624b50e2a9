# SPDX-License-Identifier: Apache-2.0
"""The sections of the page, each a string of HTML made from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType

import numpy as np

from codesign.emit.manifest import Task
from codesign.engines import Bundle, Engine, SimulationResult, TaskProfile
from codesign.report import svg
from codesign.report.measure import ExpertLoad, Measurement
from codesign.report.pictures import samples
from codesign.report.training import Scores, Training
from codesign.schedule.isa import INSTRUCTION_BITS, Opcode

Verdicts = Sequence[tuple[Engine, SimulationResult | None]]

WHAT: Mapping[Engine, str] = MappingProxyType(
    {
        Engine.REFERENCE: "NumPy integers against the golden outputs",
        Engine.CSIM: "HLS C++ against the reference",
        Engine.RTLSIM: "SystemVerilog, cycle by cycle, against the reference",
    }
)

# Paul Tol's bright scheme: distinguishable with any colour vision.
COLOURS: Mapping[Opcode, str] = MappingProxyType(
    {
        Opcode.LINEAR: "#4477aa",
        Opcode.ATTENTION: "#ee6677",
        Opcode.EXPERTS: "#228833",
        Opcode.NORM: "#ccbb44",
        Opcode.ROUTE: "#aa3377",
        Opcode.LOAD: "#66ccee",
        Opcode.STORE: "#99a1ab",
    }
)
SAVED = "#dfe4ea"


def section(title: str, lead: str, body: str) -> str:
    """A box with a heading and a sentence that says what one sees."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(lead)}</p>{body}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    cells = "".join(f"<th{' class=n' if i else ''}>{escape(cell)}</th>" for i, cell in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if i else ''}>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def missing(text: str) -> str:
    """A remark in place of a figure that nobody has measured yet."""
    return f'<div class="missing">{escape(text)}</div>'


def cards(verdicts: Verdicts, clock_mhz: float) -> str:
    """One card an engine: is it bit exact, on how much, how fast."""
    return "".join(_card(engine, result, clock_mhz) for engine, result in verdicts)


def _card(engine: Engine, result: SimulationResult | None, clock_mhz: float) -> str:
    name = f"<small>{engine.value} · {escape(WHAT[engine])}</small>"
    if result is None:
        return f'<div class="card"><b>not run</b>{name}</div>'
    verdict = "bit exact" if result.bit_exact else "DIFFERENT"
    lines = [f"images: {result.images}, tasks: {', '.join(result.tasks)}; {result.seconds:.1f} s"]
    for one in result.cycles or ():
        mean = sum(one.cycles) / len(one.cycles)
        lines.append(f"{one.task}: {mean:,.0f} cycles = {clock_mhz * 1e6 / mean:,.0f} images/s")
    if result.mac_utilisation is not None:
        lines.append(f"useful MACs: {result.mac_utilisation:.1%} of the peak")
    lines += [str(difference) for difference in result.mismatches[:2]]
    details = "".join(f"<small>{escape(line)}</small>" for line in lines)
    return f'<div class="card {"good" if result.bit_exact else "bad"}"><b>{verdict}</b>{name}{details}</div>'


def accuracy(measured: Measurement, training: Training) -> str:
    """Scores of the constant guess, the float, the fake-quantized and the integer model."""
    here = measured.scores
    integer = None if here is None else Scores(miou=here.miou, depth_rel=here.depth_rel, depth_rmse=here.depth_rmse)
    columns = (training.baseline, training.compared.unquantized, training.scores, integer)
    if not any(columns):
        return section("Accuracy", "The model carries no scores and its images no labels.", "")
    head = ("", "constant guess", "float", "fake-quantized", "integer")
    rows = (
        ("semseg: mean IoU, higher is better", *("–" if c is None else f"{c.miou:.1%}" for c in columns)),
        ("depth: mean relative error, lower is better", *("–" if c is None else f"{c.depth_rel:.1%}" for c in columns)),
        (
            "depth: root mean square error, lower is better",
            *("–" if c is None else f"{c.depth_rmse:.4f}" for c in columns),
        ),
    )
    lead = f"Constant guess, float and fake-quantized: scored after training on {training.test_images} test scenes"
    lead += "." if here is None else f"; integer: run for this page on {len(measured.images)} of them."
    return section("Accuracy", lead, table(head, rows))


def predictions(measured: Measurement) -> str:
    """Pictures of the first test images."""
    lead = (
        "What the integer model, and therefore the accelerator, makes of the first test images. Depth: near is bright."
    )
    return section("Predictions", lead, samples(measured))


def _legend(opcodes: Sequence[Opcode]) -> str:
    items = "".join(f'<span><i style="background:{COLOURS[o]}"></i>{o.name}</span>' for o in opcodes)
    return f'<div class="legend">{items}</div>'


def cycles(bundle: Bundle, profiles: Sequence[TaskProfile]) -> str:
    """Where the clock cycles of an image go: a timeline of macro-instructions and a sum per opcode."""
    lead = (
        "Mean over the images of the last RTL simulation, from the end of one macro-instruction to the end of the next."
    )
    if not profiles:
        return section("Clock cycles", lead, missing("No RTL simulation yet: codesign simulate --engine rtlsim."))
    body = _legend(tuple(COLOURS))
    for profile in profiles:
        task = bundle.task(profile.task)
        total = sum(profile.instruction_cycles)
        segments = [
            svg.Segment(f"{info.opcode} {info.name}", round(spent), COLOURS[Opcode[info.opcode]])
            for info, spent in zip(task.instructions, profile.instruction_cycles, strict=True)
        ]
        body += f"<h3>{escape(task.name)}: {total:,.0f} cycles in {task.num_instructions} macro-instructions</h3>"
        body += svg.timeline(segments, f"cycles of {task.name}")
        body += _per_opcode(task, profile, bundle.peak_macs_per_cycle)
    return section("Clock cycles", lead, body)


def _per_opcode(task: Task, profile: TaskProfile, peak: int) -> str:
    spent = dict.fromkeys(Opcode, 0.0)
    macs, count = dict.fromkeys(Opcode, 0), dict.fromkeys(Opcode, 0)
    for info, used in zip(task.instructions, profile.instruction_cycles, strict=True):
        opcode = Opcode[info.opcode]
        spent[opcode] += used
        macs[opcode] += info.macs
        count[opcode] += 1
    total = sum(spent.values())
    rows = []
    for opcode in sorted(spent, key=lambda o: -spent[o]):
        if count[opcode]:
            busy = f"{macs[opcode] / (spent[opcode] * peak):.1%}" if macs[opcode] and spent[opcode] else "–"
            share = f"{spent[opcode] / total:.1%}"
            rows.append((opcode.name, str(count[opcode]), f"{spent[opcode]:,.0f}", share, f"{macs[opcode]:,}", busy))
    rows.append(
        (
            "all",
            str(sum(count.values())),
            f"{total:,.0f}",
            "100.0%",
            f"{task.macs:,}",
            f"{task.macs / (total * peak):.1%}",
        )
    )
    return table(("opcode", "instructions", "cycles", "share", "MACs", "array busy"), rows)


def experts(measured: Measurement) -> str:
    """How many tokens each expert receives, by task and layer."""
    lead = f"Tokens per expert and image, mean over {len(measured.images)} images. Every task has its own gates."
    body = ""
    for task in dict.fromkeys(load.task for load in measured.loads):
        loads = [load for load in measured.loads if load.task == task]
        values = np.stack([load.tokens.mean(axis=0) for load in loads])
        columns = [str(e) for e in range(values.shape[1])]
        empty = np.mean([(load.tokens == 0).mean() for load in loads])
        body += f"<h3>{escape(task)}: {empty:.1%} of the experts are empty and never loaded</h3>"
        body += svg.heatmap(values, [_short(load.layer) for load in loads], columns, f"expert load of {task}")
    return section("Expert load", lead, body or missing("The model has no experts."))


def _short(name: str) -> str:
    """The block a name belongs to: `semseg.block1.router` -> `block1`; other names stay."""
    return next((part for part in name.split(".") if part.startswith("block")), name)


def traffic(bundle: Bundle, measured: Measurement, profiles: Sequence[TaskProfile]) -> str:
    """Bytes read from DRAM per image: program, input, and every block of the model."""
    lead = "Bytes over the memory ports per image. Experts without tokens are never read: grey is what that saved."
    body = _legend((Opcode.LOAD, Opcode.LINEAR, Opcode.NORM, Opcode.ROUTE, Opcode.EXPERTS))
    for task in bundle.manifest.tasks:
        loads = [load for load in measured.loads if load.task == task.name]
        parts = _traffic(task, loads)
        total = sum(part.read for part in parts)
        seen = next((p for p in profiles if p.task == task.name), None)
        note = "" if seen is None else f"; simulated: {_size(seen.read_bytes)} in, {_size(seen.written_bytes)} out"
        body += f"<h3>{escape(task.name)}: {_size(total)} in, {_size(task.output_bytes)} out{note}</h3>"
        groups = dict.fromkeys(part.group for part in parts)
        rows = [_traffic_bar(group, [part for part in parts if part.group == group]) for group in groups]
        body += svg.bars(rows, f"memory traffic of {task.name}")
    return section("Memory traffic", lead, body)


@dataclass(frozen=True)
class _Part:
    """Bytes an instruction reads, and would have read had no expert been empty."""

    group: str
    opcode: Opcode
    read: float
    saved: float = 0.0


def _traffic(task: Task, loads: Sequence[ExpertLoad]) -> list[_Part]:
    parts, mixtures = [_Part("program", Opcode.STORE, task.num_instructions * INSTRUCTION_BITS / 8)], iter(loads)
    for info in task.instructions:
        opcode = Opcode[info.opcode]
        if opcode is Opcode.EXPERTS:
            load = next(mixtures)
            filled = float((load.tokens > 0).sum(axis=1).mean())
            empty = load.tokens.shape[1] - filled
            parts.append(_Part(_short(info.name), opcode, filled * info.read_bytes, empty * info.read_bytes))
        elif info.read_bytes:
            parts.append(_Part(_short(info.name), opcode, float(info.read_bytes)))
    return parts


def _traffic_bar(group: str, parts: Sequence[_Part]) -> svg.Bar:
    read, saved = sum(part.read for part in parts), sum(part.saved for part in parts)
    pieces = [(sum(p.read for p in parts if p.opcode is opcode), COLOURS[opcode]) for opcode in COLOURS]
    note = _size(read) + (f", {_size(saved)} saved" if saved else "")
    return svg.Bar(group, (*pieces, (saved, SAVED)), note, f"{group}: {note}")


def _size(count: float) -> str:
    """Bytes for a person."""
    return f"{count / 1024:,.1f} KiB" if count >= 1024 else f"{count:,.0f} B"


def machine(bundle: Bundle) -> str:
    """Sizes of the machine."""
    m = bundle.manifest.machine
    rows = (
        (
            "MAC array",
            f"{m.simd} columns × {m.pe} rows, {m.simd * m.pe} MACs per cycle, {m.acc_bits}-bit sums",
        ),
        ("activation memory", f"{m.act_words:,} words of {m.simd} int8 ({_size(m.act_words * m.simd)})"),
        ("residual memory", f"{m.res_words:,} words of {m.pe} int16 ({_size(m.res_words * m.pe * 2)})"),
        ("tokens, experts", f"at most {m.max_rows} and {m.max_experts}"),
        ("memory image", f"{_size(bundle.manifest.memory.bytes)}: weights, constants, programs"),
    )
    body = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    return section("Machine", "The sizes this bundle was generated with.", f"<table>{body}</table>")
