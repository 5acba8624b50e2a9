# SPDX-License-Identifier: Apache-2.0
"""What coarser experts cost: signal to noise of a mixture's outputs in each format and width, fitted and not.

`python benchmarks/expert_formats.py [--recipe R.toml] [--layers N]` makes a model with int8 experts and random weights
(models/m3vit_tiny.toml, its first two blocks), packs it in every format, and measures on images that nothing was fitted
on. It also compares the two ways of cutting an int8 weight to r bits, before and after its rescaling is fitted: the
machine's, which takes the middle of the interval that the first r bits name, and MatQuant's, which rounds.
Results: benchmarks/results/expert_formats.json, and two tables of docs/edge-results.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import RESULTS, store
from tables import markdown, replace_tables

from codesign.assets import asset
from codesign.experts.file.store import Store
from codesign.experts.pack.fit import FormatChoice, hidden
from codesign.experts.pack.fitting import Floats, Line, fit_line, scale_of
from codesign.experts.pack.mixtures import Expert, Mixture, Samples, expert_of, joined, mixtures, sample
from codesign.experts.pack.pack import measure, pack_graph
from codesign.reference import functions as f
from codesign.reference.functions import Ints
from codesign.spec import Graph
from codesign.spec.moe import ExpertFormat
from codesign.spec.patches import Pixels
from codesign.synthesis import ExpertWeights, read_recipe, synthesise

Pair = tuple[Ints, Ints]
DOCUMENT = RESULTS.parent.parent / "docs" / "edge-results.md"
IMAGES = 16
FEWEST_ROWS = 32


@dataclass(frozen=True)
class FormatRow:
    """Mean over the mixtures of the signal to noise in dB of their outputs; None: exact."""

    format: str
    fitting: str
    width: int
    sqnr_db: float | None


@dataclass(frozen=True)
class SliceRow:
    """Signal to noise in dB of the sums of all experts' first and second matrices, cut to `width` bits."""

    slice: str
    width: int
    fitted: bool
    w1_db: float
    w2_db: float


def matquant(weight: Ints, bits: int) -> Ints:
    """int8 weights cut as MatQuant does (Nair et al. 2025, equation 4): the first `bits` bits of the code, rounded."""
    drop = 8 - bits
    rounded = np.clip((weight + 128 + (1 << (drop - 1))) >> drop, 0, (1 << bits) - 1)
    return (rounded << drop) - 128


SLICES = (("middle of the interval", f.slice_planes), ("rounded (MatQuant)", matquant))


def formats(graph: Graph, images: Pixels, held: list[Samples]) -> Iterator[FormatRow]:
    """Every format, with what can be fitted fitted and not."""
    cases = (
        (FormatChoice(ExpertFormat.NESTED), None, "the model's rescalings"),
        (FormatChoice(ExpertFormat.NESTED), images, "rescalings fitted"),
        (FormatChoice(ExpertFormat.RESIDUAL), None, "weight by weight"),
        (FormatChoice(ExpertFormat.RESIDUAL, compensate=False), images, "rescalings fitted"),
        (FormatChoice(ExpertFormat.RESIDUAL), images, "rescalings fitted, errors compensated"),
        (FormatChoice(ExpertFormat.TERNARY, ternarize=True), images, "rescalings fitted"),
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.experts"
        for choice, calibration, fitting in cases:
            pack_graph(graph, choice, path, calibration)
            opened = Store.open(path)
            found = [q for m, rows in zip(mixtures(graph), held, strict=True) for q in measure(graph, m, opened, rows)]
            for width in choice.kind.widths:
                mean = float(np.mean([q.sqnr_db for q in found if q.width == width]))
                row = FormatRow(choice.kind.value, fitting, width, None if np.isinf(mean) else round(mean, 2))
                shown = "exact" if row.sqnr_db is None else f"{row.sqnr_db:.2f} dB"
                print(f"{row.format:10}{row.width:2} bits  {shown:>9}  {fitting}")
                yield row


def slices(graph: Graph, mixture: Mixture, fitted: Samples, held: Samples) -> Iterator[SliceRow]:
    """Both ways to cut weights to 2 and 4 bits."""
    numbers = range(mixture.layer.num_experts)
    experts = [(expert_of(graph, mixture, e), *_inputs(graph, mixture, e, fitted, held)) for e in numbers]
    for name, cut in SLICES:
        for bits in (2, 4):
            for fit in (False, True):
                totals = np.sum([_noise(*one, partial(cut, bits=bits), fit) for one in experts], axis=0)
                first, second = (round(float(10 * np.log10(totals[i] / totals[i + 1])), 2) for i in (0, 2))
                how = "fitted" if fit else "as cut"
                print(f"{name:24}{bits} bits  {how:7} w1 {first:6.2f} dB  w2 {second:6.2f} dB")
                yield SliceRow(name, bits, fit, first, second)


def _inputs(graph: Graph, mixture: Mixture, number: int, fitted: Samples, held: Samples) -> tuple[Pair, Pair]:
    """What flows into both matrices of an expert: rows to fit on, rows to measure on."""
    expert, made = expert_of(graph, mixture, number), []
    for rows in (fitted, held):
        own = rows.x[rows.gates[:, number] > 0]
        x = own if len(own) >= FEWEST_ROWS else rows.x
        made.append((x, hidden(mixture.layer, expert, x)))
    return made[0], made[1]


def _noise(expert: Expert, fitted: Pair, held: Pair, cut: Callable[[Ints], Ints], fit: bool) -> list[float]:
    """Signal and noise of both matrices of an expert, in real units of its outputs."""
    found = []
    layers = ((expert.w1, expert.fc1), (expert.w2, expert.fc2))
    for (weight, rescaling), x, y in zip(layers, fitted, held, strict=True):
        scale = scale_of(rescaling)
        none = np.zeros(len(weight))
        line = fit_line(_sums(x, weight), _sums(x, cut(weight))) if fit else Line(none + 1, none)
        whole = _sums(y, weight)
        found += [_power(whole * scale), _power((_sums(y, cut(weight)) * line.gain + line.offset - whole) * scale)]
    return found


def _sums(x: Ints, weight: Ints) -> Floats:
    return f.matmul(x, weight, np.zeros(1, dtype=np.int64)).astype(np.float64)


def _power(values: Floats) -> float:
    return float(np.square(values).sum())


def format_table(rows: list[FormatRow]) -> str:
    """Markdown: a row for each format and fitting, a column for each width."""
    widths = sorted({row.width for row in rows})
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        shown = "exact" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
        cells.setdefault((row.format, row.fitting), {})[row.width] = shown
    lines = [[*name, *(found.get(width, "") for width in widths)] for name, found in cells.items()]
    return markdown(["format", "fitted", *(f"{width} bits, dB" for width in widths)], lines, left=2)


def slice_table(rows: list[SliceRow]) -> str:
    """Markdown: a row for each way to cut and width."""
    found = {(row.slice, row.width, row.fitted): row for row in rows}
    lines = []
    for name, width in dict.fromkeys((row.slice, row.width) for row in rows):
        cut, fitted = found[name, width, False], found[name, width, True]
        numbers = (cut.w1_db, fitted.w1_db, cut.w2_db, fitted.w2_db)
        lines.append([name, str(width), *(f"{number:.1f}" for number in numbers)])
    heads = ["an int8 weight cut to", "bits", "w1 as cut, dB", "w1 fitted", "w2 as cut", "w2 fitted"]
    return markdown(heads, lines)


def main() -> None:
    """Measure, print, store and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=asset("models") / "m3vit_tiny.toml")
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    recipe = read_recipe(options.recipe).changed(layers=options.layers, expert_weights=ExpertWeights.INT8)
    model = synthesise(recipe, images=IMAGES)
    images = np.concatenate([model.calibration, model.test])
    kept = len(images) - len(images) // 4
    samples = sample(model.graph, mixtures(model.graph), images, lambda done, total: None)
    fitted, held = [joined(s[:kept]) for s in samples], [joined(s[kept:]) for s in samples]
    cuts = list(slices(model.graph, mixtures(model.graph)[0], fitted[0], held[0]))
    rows = list(formats(model.graph, images, held))
    content = {
        "model": f"{recipe.name}, first {options.layers} blocks, int8 experts, random weights",
        "images": {"fitted": kept, "measured": len(images) - kept},
        "formats": [asdict(row) for row in rows],
        "slices": [asdict(row) for row in cuts],
    }
    print(store("expert_formats", content, f"python benchmarks/expert_formats.py --layers {options.layers}"))
    replace_tables(DOCUMENT, "expert_formats", {"formats": format_table(rows), "slices": slice_table(cuts)})


if __name__ == "__main__":
    main()
