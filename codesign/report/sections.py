# SPDX-License-Identifier: Apache-2.0
"""The sections of the page, each a string of HTML made from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType

import numpy as np

from codesign.engines import Bundle, Engine, InstructionEstimate, SimulationResult
from codesign.report import svg
from codesign.report.frame import Frame
from codesign.report.measure import Measurement
from codesign.report.parts import COLOURS, SAVED, missing, opcode_legend, section, short, size, table
from codesign.report.pictures import samples
from codesign.report.training import Scores, Training
from codesign.schedule.isa import INSTRUCTION_BITS, Opcode

_BYTES = INSTRUCTION_BITS // 8

Verdicts = Sequence[tuple[Engine, SimulationResult | None]]

WHAT: Mapping[Engine, str] = MappingProxyType(
    {
        Engine.REFERENCE: "NumPy integers against the golden outputs",
        Engine.CSIM: "HLS C++ against the reference",
        Engine.RTLSIM: "SystemVerilog, cycle by cycle, against the reference",
        Engine.CPU: "native kernels against the reference",
        Engine.CUDA: "Triton kernels against the reference",
    }
)


def cards(verdicts: Verdicts, clock_mhz: float) -> str:
    """One card an engine: is it bit exact, on how much, how fast. The GPU's is there only when it ran."""
    shown = [one for one in verdicts if one[0] is not Engine.CUDA or one[1] is not None]
    return "".join(_card(engine, result, clock_mhz) for engine, result in shown)


def _card(engine: Engine, result: SimulationResult | None, clock_mhz: float) -> str:
    name = f"<small>{engine.value} · {escape(WHAT[engine])}</small>"
    if result is None:
        return f'<div class="card"><b>not run</b>{name}</div>'
    verdict = "bit exact" if result.bit_exact else "DIFFERENT"
    lines = [f"images: {result.images}, tasks: {', '.join(result.tasks)}; {result.seconds:.1f} s"]
    lines += [] if result.device is None else [f"on {result.device}"]
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
        body += svg.heatmap(values, [short(load.layer) for load in loads], columns, f"expert load of {task}")
    return section("Expert load", lead, body or missing("The model has no experts."))


def traffic(frames: Sequence[Frame]) -> str:
    """Bytes read from DRAM per image: program, input, and every block of the model."""
    lead = (
        "Bytes over the memory ports for the bundle's first image. Experts without tokens are never read: grey is what "
        "that saved."
    )
    body = opcode_legend((Opcode.LOAD, Opcode.LINEAR, Opcode.NORM, Opcode.ROUTE, Opcode.EXPERTS))
    for one in frames:
        task, seen = one.task, one.profile
        program = InstructionEstimate("program", "STORE", 0, 0, 0, 0, 0, 0, task.num_instructions * _BYTES, 0)
        rows = (program, *one.estimate.instructions)
        note = "" if seen is None else f"; simulated: {size(seen.read_bytes)} in, {size(seen.written_bytes)} out"
        total = sum(row.read_bytes for row in rows)
        body += f"<h3>{escape(task.name)}: {size(total)} in, {size(task.output_bytes)} out{note}</h3>"
        groups: dict[str, list[InstructionEstimate]] = {}
        for row in rows:
            if row.read_bytes:
                groups.setdefault(short(row.name), []).append(row)
        body += svg.bars([_traffic_bar(*group) for group in groups.items()], f"memory traffic of {task.name}")
    return section("Memory traffic", lead, body)


def _traffic_bar(group: str, rows: Sequence[InstructionEstimate]) -> svg.Bar:
    read, saved = sum(row.read_bytes for row in rows), sum(row.skipped_bytes for row in rows)
    pieces = [(float(sum(r.read_bytes for r in rows if r.opcode == o.name)), COLOURS[o]) for o in COLOURS]
    note = size(read) + (f", {size(saved)} saved" if saved else "")
    return svg.Bar(group, (*pieces, (float(saved), SAVED)), note, f"{group}: {note}")


def machine(bundle: Bundle) -> str:
    """Sizes of the machine."""
    m = bundle.manifest.machine
    rows = (
        (
            "MAC array",
            f"{m.simd} columns × {m.pe} rows, {m.simd * m.pe} MACs per cycle, {m.acc_bits}-bit sums",
        ),
        ("activation memory", f"{m.act_words:,} words of {m.simd} int8 ({size(m.act_words * m.simd)})"),
        ("residual memory", f"{m.res_words:,} words of {m.pe} int16 ({size(m.res_words * m.pe * 2)})"),
        ("tokens, experts", f"at most {m.max_rows} and {m.max_experts}"),
        ("memory image", f"{size(bundle.manifest.memory.bytes)}: weights, constants, programs"),
    )
    body = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    return section("Machine", "The sizes this bundle was generated with.", f"<table>{body}</table>")
