# SPDX-License-Identifier: Apache-2.0
"""`codesign experts`: the commands about experts that rest in a file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from codesign.errors import InputError
from codesign.experts.run.compute import Where
from codesign.experts.run.reader import Io, Transport
from codesign.experts.run.schedule import Order
from codesign.progress import watching
from codesign.spec.moe import ExpertFormat

if TYPE_CHECKING:
    from codesign.experts.gpu.session import GpuRunResult
    from codesign.experts.pack.pack import PackResult
    from codesign.experts.run.analyze import Analysis
    from codesign.experts.run.session import RunResult

experts_app = typer.Typer(
    name="experts",
    help="Experts in a file: pack them, run them under a memory budget, analyze their routing.",
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@experts_app.command()
def pack(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A checkpoint, a bundle, a QONNX file, or a recipe (.toml)."),
    ],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    form: Annotated[ExpertFormat, typer.Option("--format", help="How the weights rest.")] = ExpertFormat.INT8,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="IMAGES", help="Fit on FILE.npy, a folder of PNGs, or 'digitscenes'."),
    ] = None,
    ternarize: Annotated[bool, typer.Option(help="ternary, trits: round weights that are int8.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Recipe: of its random weights.")] = 0,
    layers: Annotated[int | None, typer.Option(min=1, help="Recipe: its first layers only.")] = None,
    as_json: Json = False,
) -> None:
    """Write the experts of a model to one file that they can be read from while others compute."""
    from codesign.experts.pack.fit import FormatChoice
    from codesign.experts.pack.pack import pack_graph
    from codesign.experts.pack.sources import pack_layers, read_calibration, read_source
    from codesign.spec import Graph

    choice = FormatChoice(form, ternarize)
    with watching() as watch:
        model = read_source(source, seed, layers)
        out.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(model, Graph):
            images = None if calibrate is None else read_calibration(calibrate, model.image)
            result = pack_graph(model, choice, out, images, watch)
        elif calibrate is not None:
            raise InputError(
                f"calibration images must be left out for {source}, which has layers only; drop --calibrate"
            )
        else:
            result = pack_layers(model, choice, out, seed, watch)
    if as_json:
        _print_json(result)
    else:
        _print_pack(result)


def _print_json(result: PackResult) -> None:
    quality = [
        {"layer": q.layer, "width": q.width, "sqnr_db": None if isinf(q.sqnr_db) else round(q.sqnr_db, 2)}
        for q in result.quality
    ]
    facts = {**asdict(result), "store": str(result.store), "format": result.format.value, "quality": quality}
    print(json.dumps(facts, indent=1))


def _print_pack(result: PackResult) -> None:
    if result.quality:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("layer", no_wrap=True)
        widths = result.format.widths
        for width in widths:
            table.add_column(f"{width} bits, dB", justify="right", no_wrap=True)
        for layer in dict.fromkeys(q.layer for q in result.quality):
            found = {q.width: q.sqnr_db for q in result.quality if q.layer == layer}
            table.add_row(layer, *("exact" if isinf(found[w]) else f"{found[w]:.1f}" for w in widths))
        Console(width=None if sys.stdout.isatty() else 120).print(table)
        print("signal to noise of the layers' outputs, on calibration images that nothing was fitted on")
    levels = ", ".join(f"{size:,}" for size in result.level_bytes)
    print(f"store   {result.store}\nformat  {result.format.value}\nlayers  {result.layers}")
    print(f"bytes   {result.bytes:,} (levels: {levels})")


@experts_app.command()
def run(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A file that codesign experts pack wrote.")],
    budget: Annotated[str, typer.Option(help="Memory for experts: bytes, 200M, or 50% of the store's experts.")],
    bundle: Annotated[Path | None, typer.Option(help="Run this bundle's whole graph on its images.")] = None,
    images: Annotated[Path | None, typer.Option(help="With --bundle: FILE.npy or a folder of PNGs.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --bundle: the first images only.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="With --bundle: a task; may be repeated.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Without --bundle: route tokens as this trace does.")] = None,
    prefill: Annotated[int, typer.Option(min=0, help="Without a trace: tokens of the prompt.")] = 64,
    tokens: Annotated[int, typer.Option(min=0, help="Without a trace: tokens decoded one by one.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Without a trace: of the drawn routing.")] = 1,
    hot: Annotated[Path | None, typer.Option(help="A trace: its most used blocks begin in memory.")] = None,
    pin: Annotated[float | None, typer.Option(help="Share of the budget for the hot set, 0 to 1.")] = None,
    schedule: Annotated[Order, typer.Option(help="Order of reading.")] = Order.HOTTEST_BIT_FIRST,
    hits_first: Annotated[bool, typer.Option(help="Compute first what is resident.")] = True,
    foresight: Annotated[int, typer.Option(min=0, help="Layers whose routing is known or guessed early.")] = 0,
    recall: Annotated[float | None, typer.Option(help="Without --bundle: experts foreseen, 0 to 1.")] = None,
    io: Annotated[Io, typer.Option(help="O_DIRECT, or through the page cache.")] = Io.DIRECT,
    transport: Annotated[Transport, typer.Option(help="What moves the bytes.")] = Transport.URING,
    device: Annotated[Where, typer.Option(help="What computes; on cuda the budget is of its memory.")] = Where.CPU,
    threads: Annotated[int, typer.Option(min=1, help="Threads that compute.")] = 1,
    variant: Annotated[str | None, typer.Option(help="Kernels; the processor's fastest if left out.")] = None,
    width: Annotated[int | None, typer.Option(help="Bits of every expert; by gate if left out.")] = None,
    check: Annotated[int, typer.Option(min=0, help="Compare the first images or batches with the reference.")] = 0,
    record: Annotated[Path | None, typer.Option(help="Write the routing trace.")] = None,
    perfetto: Annotated[Path | None, typer.Option(help="Write the timeline (JSON).")] = None,
    as_json: Json = False,
) -> None:
    """Read experts while others compute, under a memory budget, and say how well both overlapped."""
    from codesign.experts.command import Source, run_store
    from codesign.experts.run.options import IMAGES_PIN, TOKENS_PIN, RuntimeOptions
    from codesign.experts.run.reader import ReaderOptions
    from codesign.experts.run.schedule import Schedule

    source = Source(store, bundle, images, limit, tuple(task or ()), trace, prefill, tokens, seed, hot, recall)
    with watching() as watch:

        def options(size: int) -> RuntimeOptions:
            order, reader = Schedule(schedule, hits_first), ReaderOptions(io, transport)
            share = pin if pin is not None else TOKENS_PIN if bundle is None else IMAGES_PIN
            return RuntimeOptions(size, order, reader, threads, variant, share, width=width, foresight=foresight)

        result = run_store(source, budget, options, check, record, perfetto, watch, device)
    if as_json:
        print(json.dumps(result.facts(), indent=1))
    else:
        _print_run(result)


@experts_app.command()
def analyze(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A file of codesign experts run --record.")],
    segment: Annotated[list[int] | None, typer.Option(min=1, help="Tokens of a window; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """How alike neighbouring tokens choose experts: SRP and SCH of moe-lrc (arXiv 2505.16056)."""
    from codesign.experts.run.analyze import SEGMENTS
    from codesign.experts.run.analyze import analyze as measure
    from codesign.experts.run.routing import RoutingTrace

    result = measure(RoutingTrace.load(trace), tuple(segment or SEGMENTS))
    if as_json:
        print(json.dumps(asdict(result), indent=1))
    else:
        _print_analysis(result)


def _print_run(result: RunResult | GpuRunResult) -> None:
    from codesign.experts.run.metrics import TABLE

    for name, value in result.notes():
        print(f"{name:22} {value}")
    for name, attribute, form in TABLE:
        print(f"{name:22} {form.format(getattr(result.metrics, attribute))}")


def _print_analysis(result: Analysis) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    sizes = [size for size, _ in result.rows[0].sch]
    for title in ("layer", "window", "SRP", *(f"SCH, {size} experts" for size in sizes)):
        table.add_column(title, justify="left" if title == "layer" else "right", no_wrap=True)
    for row in result.rows:
        name = "all" if row.layer is None else str(row.layer)
        table.add_row(name, str(row.segment), f"{row.srp:.3f}", *(f"{rate:.3f}" for _, rate in row.sch))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"{result.source}: {result.tokens:,} tokens, {result.mean_choices:.2f} of {result.num_experts} experts each")
