# SPDX-License-Identifier: Apache-2.0
"""The command line. Every command calls one function of the public Python API and prints what it gave.

Exit status: 0 done, 1 a check failed, 2 bad input, 130 interrupted. Errors are one line on stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from codesign import __version__
from codesign.cli_experts import experts_app
from codesign.emit.manifest import ExpertWidth
from codesign.engines import Engine, EstimateReport, SimulationResult
from codesign.errors import CodesignError, reason
from codesign.progress import watching
from codesign.synthesis.recipe import ExpertWeights

INTERRUPTED = 130

app = typer.Typer(
    name="codesign",
    help="From a trained multi-task vision transformer with mixture of experts to a verified accelerator.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(experts_app)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes side by side.")]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that codesign generate wrote.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Path("build/demo"),
    checkpoint: Annotated[Path | None, typer.Option(help="Another checkpoint than the shipped one.")] = None,
    jobs: Jobs = 2,
    as_json: Json = False,
) -> None:
    """Shipped checkpoint to QONNX, bundle, four engines and a report."""
    from codesign.demo import demo as run

    with watching() as watch:
        result = run(out, checkpoint, jobs, watch)
    scores = result.measured.scores
    if as_json:
        simulations = [json.loads(one.to_json()) for one in result.simulations]
        accuracy = None if scores is None else asdict(scores)
        facts = {"bundle": str(result.bundle), "report": str(result.report), "accuracy": accuracy}
        _print_json({**facts, "simulations": simulations})
    else:
        _print_simulations(result.simulations)
        if scores is not None:
            where = f"integer model, {len(result.measured.images)} test scenes"
            print(f"scores  semseg mIoU {scores.miou:.1%}, depth error {scores.depth_rel:.1%} ({where})")
        print(f"bundle  {result.bundle}\nreport  {result.report}")
    _exit_unless(result.bit_exact)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, for example models/digits.toml.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")] = Path("build/model.safetensors"),
    resume: Annotated[bool, typer.Option(help="Go on from an interrupted run.")] = True,
    as_json: Json = False,
) -> None:
    """Train a recipe, quantization-aware."""
    from codesign.train.fit import train as run

    out.parent.mkdir(parents=True, exist_ok=True)
    result = run(recipe, out, resume=resume)
    scores = {
        "checkpoint": str(out),
        "miou": result.scores.miou,
        "depth_rel": result.scores.depth_rel,
        "depth_rmse": result.scores.depth_rmse,
        "seconds": round(result.seconds, 1),
    }
    _print_facts(scores, as_json)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint of codesign train.")],
    out: Annotated[Path, typer.Option(help="The QONNX file to write.")] = Path("build/model.onnx"),
    as_json: Json = False,
) -> None:
    """Write a checkpoint as QONNX."""
    from codesign.train.export import export as run

    out.parent.mkdir(parents=True, exist_ok=True)
    _print_facts({"model": str(run(checkpoint, out))}, as_json)


@app.command()
def generate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A QONNX file, or the .toml recipe of a shape.")],
    board: Annotated[str, typer.Option(help="A board's name, or the path of a board.toml.")] = "zcu104",
    out: Annotated[Path, typer.Option(help="Folder of the bundle.")] = Path("build/bundle"),
    images: Annotated[Path | None, typer.Option(help="Test images: FILE.npy or a folder of PNGs.")] = None,
    array: Annotated[
        str | None, typer.Option(metavar="SIMDxPE", help="MAC array; the board's best if left out.")
    ] = None,
    width: Annotated[
        list[ExpertWidth] | None, typer.Option(help="Also Programs that read slices of int8 experts.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Recipe: of its random weights.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Recipe: its first blocks only.")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Recipe: experts a token.")] = None,
    experts: Annotated[ExpertWeights | None, typer.Option(help="Recipe: format of the experts.")] = None,
    as_json: Json = False,
) -> None:
    """Turn a model into a bundle: HLS C++, SystemVerilog, data, driver, tests."""
    from codesign.generate import Synthetic
    from codesign.generate import generate as run
    from codesign.schedule import ArrayShape, Options

    shape = None if array is None else ArrayShape.parse(array)
    given = any(value is not None for value in (seed, layers, top_k, experts))
    synthetic = Synthetic(seed or 0, layers, top_k, experts) if given else None
    widths = tuple(dict.fromkeys((ExpertWidth.STORED, *(width or ()))))
    with watching() as watch:
        watch("generating the bundle", 0, 1)
        bundle = run(model, board, out, images, Options(shape, tuple(one.code for one in widths)), synthetic)
        watch("generating the bundle", 1, 1)
    _print_facts({"bundle": str(bundle)}, as_json)


@app.command()
def simulate(
    bundle: BundleArgument,
    engine: Annotated[Engine, typer.Option(help="What executes the bundle.")] = Engine.CSIM,
    task: Annotated[list[str] | None, typer.Option(help="A task; may be repeated. All when left out.")] = None,
    images: Annotated[Path | None, typer.Option(help="FILE.npy or a folder of PNGs; else the bundle's own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first images only.")] = None,
    trace_tensors: Annotated[bool, typer.Option("--trace-tensors", help="Compare every tensor.")] = False,
    width: Annotated[ExpertWidth, typer.Option(help="Bit planes of the experts to read.")] = ExpertWidth.STORED,
    perfetto: Annotated[Path | None, typer.Option(help="rtlsim: write the first run's timeline (JSON).")] = None,
    waves: Annotated[Path | None, typer.Option(help="rtlsim: write all signals (FST); slow.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="cpu: threads of one run.")] = 1,
    variant: Annotated[str | None, typer.Option(help="cpu: instruction set; the fastest if left out.")] = None,
    jobs: Jobs = 2,
    as_json: Json = False,
) -> None:
    """Run a bundle on an engine and compare it with the reference, bit for bit."""
    from codesign.engines import simulate as run

    with watching() as watch:
        result = run(
            bundle,
            engine,
            tuple(task or ()),
            images,
            limit,
            trace_tensors,
            jobs,
            lambda done, total: watch(f"simulating on {engine.value}", done, total),
            width,
            perfetto,
            waves,
            threads,
            variant,
        )
    if as_json:
        print(result.to_json())
    else:
        _print_simulations((result,))
    _exit_unless(result.bit_exact)


@app.command()
def estimate(
    bundle: BundleArgument,
    image: Annotated[int, typer.Option(min=0, help="Which of the bundle's images decides the routing.")] = 0,
    width: Annotated[ExpertWidth, typer.Option(help="Bit planes of the experts to read.")] = ExpertWidth.STORED,
    as_json: Json = False,
) -> None:
    """Predict clock cycles without simulation, split by what they are spent on."""
    from codesign.engines import Bundle, estimate_bundle

    result = estimate_bundle(Bundle.load(bundle), image, width)
    if as_json:
        print(result.to_json())
    else:
        _print_estimate(result)


@app.command()
def resources(bundle: BundleArgument, jobs: Jobs = 2, as_json: Json = False) -> None:
    """Synthesise the RTL with Yosys, module by module, and hold it against the board. Status 1 when it does not fit."""
    from codesign.engines import Bundle
    from codesign.engines.resources import resources as run

    with watching() as watch:
        result = run(Bundle.load(bundle), lambda done, total: watch("synthesising modules", done, total), jobs)
    print(result.to_json() if as_json else result.table())
    _exit_unless(result.fits)


@app.command()
def report(bundle: BundleArgument, as_json: Json = False) -> None:
    """Write one self-contained HTML page about a bundle and its last simulations."""
    from codesign.report import report as run

    with watching() as watch:
        page = run(bundle, lambda done, total: watch("measuring the integer model", done, total))
    _print_facts({"report": str(page)}, as_json)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"codesign {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """From a trained multi-task vision transformer with mixture of experts to a verified accelerator."""


def _print_json(content: dict[str, object]) -> None:
    print(json.dumps(content, indent=1))


def _print_facts(facts: dict[str, object], as_json: bool) -> None:
    if as_json:
        _print_json(facts)
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key:{width}}  {value:.4g}" if isinstance(value, float) else f"{key:{width}}  {value}")


def _print_simulations(results: tuple[SimulationResult, ...]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("engine", "images", "tasks", "bit exact", "cycles per image", "MACs used", "seconds"):
        table.add_column(title, justify="left" if title in {"engine", "tasks"} else "right", no_wrap=True)
    for one in results:
        mean = [] if one.cycles is None else [f"{sum(t.cycles) / len(t.cycles):,.0f}" for t in one.cycles]
        used = "–" if one.mac_utilisation is None else f"{one.mac_utilisation:.1%}"
        verdict = "yes" if one.bit_exact else "NO"
        cells = (str(one.images), ", ".join(one.tasks), verdict, " / ".join(mean) or "–", used, f"{one.seconds:.1f}")
        table.add_row(one.engine.value, *cells)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for one in results:
        if one.device is not None:
            print(f"{one.engine.value}: computed by {one.device}")
        for difference in one.mismatches:
            print(f"{one.engine.value}: {difference}")


def _print_estimate(result: EstimateReport) -> None:
    for task in result.tasks:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("instruction", "opcode", "cycles", "compute", "memory", "fill", "stall"):
            table.add_column(title, justify="left" if title in {"instruction", "opcode"} else "right", no_wrap=True)
        for i in task.instructions:
            table.add_row(i.name, i.opcode, *(f"{n:,}" for n in (i.cycles, i.compute, i.memory, i.fill, i.stall)))
        Console(width=None if sys.stdout.isatty() else 120).print(table)
        used = task.macs / task.cycles / result.peak_macs_per_cycle
        print(
            f"{task.task}: {task.cycles:,} cycles (estimated), {task.cycles / result.clock_mhz / 1e3:.3f} ms at"
            f" {result.clock_mhz:g} MHz, {used:.1%} of the array; bounds: compute {task.compute_bound:,.0f},"
            f" memory {task.memory_bound:,.0f} cycles"
        )


def _exit_unless(good: bool) -> None:
    if not good:
        raise typer.Exit(1)


def _fail(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _run(arguments: list[str]) -> int:
    """Run the command line and turn every expected failure into one line and a status."""
    try:
        status = app(args=arguments or ["--help"], standalone_mode=False)
        if status == INTERRUPTED:  # what typer makes of KeyboardInterrupt
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except typer.TyperException as error:
        return _fail(f"{error.format_message().rstrip('.')}; see codesign --help", 2)
    except CodesignError as error:
        return _fail(str(error), error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except typer.Exit as stop:
        return stop.exit_code
    except MemoryError:
        return _fail("the model must fit this computer's memory, and it does not; use fewer tokens or more memory", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{reason(error)}; check the path, its permissions and the free space", 2)


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `codesign` and `python -m codesign`."""
    warnings.filterwarnings("ignore", "fast_hadamard_transform package not found")  # Brevitas, of a kernel we never use
    signal.signal(signal.SIGTERM, _interrupt)  # ends as Ctrl-C does: children die, temporary files go
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    main()
