# SPDX-License-Identifier: Apache-2.0
"""`codesign experts pack`: the experts of a graph into a store, exact or fitted on calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from codesign.errors import InputError
from codesign.experts.file.codec import encode_expert, stored_experts
from codesign.experts.file.store import Store
from codesign.experts.file.writer import LayerSource, PackedExpert, write_store
from codesign.experts.pack.fit import FormatChoice, fit_expert
from codesign.experts.pack.mixtures import (
    TERNARY_FORMATS,
    Mixture,
    Samples,
    expert_of,
    is_ternary,
    joined,
    mixtures,
    sample,
)
from codesign.reference import OPERATORS
from codesign.reference.functions import Ints
from codesign.reference.moe import moe
from codesign.spec import Graph
from codesign.spec.moe import ExpertFormat
from codesign.spec.patches import Pixels

Watch = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Quality:
    """How a layer's outputs, summed over its experts, compare with the model's own: signal to noise in dB per width.

    Measured on the last quarter of the calibration images, which nothing was fitted on.
    """

    layer: str
    width: int
    sqnr_db: float


@dataclass(frozen=True)
class PackResult:
    """What was written. `level_bytes`: of all experts, per level."""

    store: Path
    format: ExpertFormat
    layers: int
    bytes: int
    level_bytes: tuple[int, ...]
    quality: tuple[Quality, ...]


def _nobody(what: str, done: int, total: int) -> None:
    """For a caller who does not watch."""


def pack_graph(
    graph: Graph, choice: FormatChoice, out: Path, calibration: Pixels | None = None, watch: Watch = _nobody
) -> PackResult:
    """Write the experts of a graph to the store `out`.

    `calibration`: images uint8 [n, height, width, channels] on which nested and residual experts are fitted; without
    them nested experts keep the model's rescalings (the bits of the spec's `slices`), and residual ones are fitted
    weight by weight. Raises InputError for a model without experts, for a format that its weights do not suit, and for
    a store that cannot be written.
    """
    found = mixtures(graph)
    _check_suits(graph, found, choice)
    fitted: list[Samples | None] = [None] * len(found)
    held: list[Samples] = []
    if calibration is not None and not _exact(graph, found, choice):
        if len(calibration) < 2:
            raise InputError(f"calibration must have 2 images or more, not {len(calibration)}; give more")
        samples = sample(graph, found, calibration, partial(watch, "running calibration images"))
        kept = len(calibration) - max(1, len(calibration) // 4)
        fitted = [joined(images[:kept]) for images in samples]
        held = [joined(images[kept:]) for images in samples]
    sources = [
        LayerSource(mixture.layer, choice.sets(rows is not None), partial(_experts, graph, mixture, choice, rows))
        for mixture, rows in zip(found, fitted, strict=True)
    ]
    write_store(out, choice.kind, graph.name, sources, partial(watch, "packing experts"))
    store = Store.open(out)
    quality = tuple(
        one for mixture, rows in zip(found, held, strict=bool(held)) for one in measure(graph, mixture, store, rows)
    )
    return result_of(store, quality)


def result_of(store: Store, quality: tuple[Quality, ...] = ()) -> PackResult:
    """The summary of a store."""
    levels = range(len(store.kind.levels))
    sizes = (sum(b.bytes for entry in store.index.layers for b in entry.blocks[level]) for level in levels)
    return PackResult(store.path, store.kind, len(store.layers), store.index.end, tuple(sizes), quality)


def _exact(graph: Graph, found: tuple[Mixture, ...], choice: FormatChoice) -> bool:
    """Whether the format holds the model's own integers, so that nothing is to be fitted."""
    if choice.kind in TERNARY_FORMATS:
        return all(is_ternary(graph, mixture) for mixture in found)
    return choice.kind is ExpertFormat.INT8


def _check_suits(graph: Graph, found: tuple[Mixture, ...], choice: FormatChoice) -> None:
    ternary = [mixture for mixture in found if is_ternary(graph, mixture)]
    if choice.kind in (ExpertFormat.NESTED, ExpertFormat.RESIDUAL) and ternary:
        raise InputError(
            f"experts must be int8 to be packed as {choice.kind.value}, not ternary as in {ternary[0].layer.name};"
            " pack --format ternary"
        )


def _experts(graph: Graph, mixture: Mixture, choice: FormatChoice, samples: Samples | None) -> Iterator[PackedExpert]:
    layer = mixture.layer
    for number in range(layer.num_experts):
        made = fit_expert(layer, expert_of(graph, mixture, number), number, choice, samples)
        yield PackedExpert(encode_expert(layer, choice.kind, made.w1, made.w2), made.fc1, made.fc2)


def measure(graph: Graph, mixture: Mixture, store: Store, rows: Samples) -> Iterator[Quality]:
    """The quality of a layer in a store at each width, on rows that a graph's own experts are given as well."""
    number = store.layer_number(mixture.layer.name)
    none = np.zeros((len(rows.x), mixture.layer.embed_dim), dtype=np.int64)
    constants = [graph.constant(name).values for name in mixture.node.inputs[3:]]
    wanted = OPERATORS[mixture.node.kind](mixture.node, [rows.x, rows.gates, none, *constants])
    for width in store.kind.widths:
        widths = np.full(rows.gates.shape, width, dtype=np.uint8)
        experts = stored_experts(store, number)
        found = moe(mixture.layer, store.kind, store.constants(number), experts, rows.x, rows.gates, none, widths)
        yield Quality(mixture.layer.name, width, sqnr_db(wanted, found))


def sqnr_db(wanted: Ints, found: Ints) -> float:
    """Signal to quantization noise in dB; infinite when equal."""
    noise = float(np.square((found - wanted).astype(np.float64)).sum())
    signal = float(np.square(wanted.astype(np.float64)).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-12) / noise))
