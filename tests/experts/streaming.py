# SPDX-License-Identifier: Apache-2.0
"""Small random stores and batches for the tests of the runtime, and what the reference makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from codesign.experts.file.codec import encode_expert, stored_experts
from codesign.experts.file.store import Store
from codesign.experts.file.writer import ExpertRescaling, LayerSource, PackedExpert, write_store
from codesign.experts.run.compute import Batch
from codesign.experts.run.routing import drawn_trace
from codesign.experts.run.schedule import Order, Schedule
from codesign.reference.moe import Matrix, choose_widths, matrix_of, moe
from codesign.spec import INT8, Requant
from codesign.spec.moe import GROUP, Activation, ExpertFormat, MoeLayer, WidthPolicy

SCHEDULES = [Schedule(order, hits) for order in Order for hits in (False, True)]
BATCHES = ((0, 1), (1, 1), (0, 9), (1, 9), (0, 2))
"""(layer, tokens), one after the other through one runtime."""
LOWEST = {ExpertFormat.TERNARY: (-1, 2), ExpertFormat.TRITS: (-1, 2)}


def layer_of(
    name: str = "layer", dim: int = 40, hidden: int = 24, experts: int = 6, top_k: int = 2, gated: bool = True
) -> MoeLayer:
    """A small layer whose hidden values span int8."""
    activation = Activation.SILU_GATED if gated else Activation.GELU
    scale = 2.0**-16 if gated else 2.0**-5
    return MoeLayer(name, dim, hidden, experts, top_k, activation, Requant.of_scale(scale, INT8))


def make_store(
    path: Path, kind: ExpertFormat, layers: tuple[MoeLayer, ...], seed: int = 0, sets: int | None = None
) -> Store:
    """A store of random experts; with `sets` > 1 every width has its own rescaling."""
    count = sets or (len(kind.widths) if kind in (ExpertFormat.NESTED, ExpertFormat.RESIDUAL) else 1)
    sources = [
        LayerSource(
            layer, count, lambda layer=layer, n=n: _experts(kind, layer, count, np.random.default_rng((seed, n)))
        )
        for n, layer in enumerate(layers)
    ]
    write_store(path, kind, "random", sources)
    return Store.open(path)


def _experts(kind: ExpertFormat, layer: MoeLayer, sets: int, draws: np.random.Generator) -> Iterator[PackedExpert]:
    for _ in range(layer.num_experts):
        w1, w2 = (_matrix(kind, shape, draws) for shape in layer.shapes)
        fc = [_rescaling(kind, sets, shape, draws) for shape in layer.shapes]
        yield PackedExpert(encode_expert(layer, kind, w1, w2), *fc)


def _matrix(kind: ExpertFormat, shape: tuple[int, int], draws: np.random.Generator) -> Matrix:
    if kind is not ExpertFormat.RESIDUAL:
        low, high = LOWEST.get(kind, (-128, 128))
        return matrix_of(draws.integers(low, high, shape), kind)
    groups = -(-shape[1] // GROUP)
    digits = tuple(draws.integers(0, 1 << level.bits, shape) for level in kind.levels)
    multipliers = draws.integers(-300, 300, (len(digits), shape[0], groups))
    return Matrix(digits, multipliers, draws.integers(0, 900, (shape[0], groups)))


def _rescaling(kind: ExpertFormat, sets: int, shape: tuple[int, int], draws: np.random.Generator) -> ExpertRescaling:
    """Such that int16 is spanned, and now and then exceeded."""
    largest = {ExpertFormat.TERNARY: 1, ExpertFormat.TRITS: 1, ExpertFormat.RESIDUAL: 600}.get(kind, 80)
    spread = largest * 60 * np.sqrt(shape[1])
    scale = 2.0**14 / spread * draws.uniform(0.5, 3, (sets, shape[0]))
    pairs = [Requant.of_scale([float(s) for s in row], INT8) for row in scale]
    multiplier = np.array([p.multiplier for p in pairs])
    shift = np.array([p.shift for p in pairs])
    return ExpertRescaling(draws.integers(-int(spread), int(spread), (sets, shape[0])), multiplier, shift)


def batch_of(store: Store, number: int, tokens: int, seed: int) -> Batch:
    """A batch with a skewed routing, widths by the policy, and some extreme values."""
    layer = store.layers[number]
    draws = np.random.default_rng((seed, number, tokens))
    x = draws.integers(-128, 128, (tokens, layer.embed_dim)).astype(np.int8)
    residual = draws.integers(-(1 << 15), 1 << 15, (tokens, layer.embed_dim)).astype(np.int16)
    trace = drawn_trace(1, layer.num_experts, layer.top_k, (tokens,), seed)
    gates = trace.dense_gates(0, 0)
    return Batch(x, gates, residual, choose_widths(gates.astype(np.int64), store.kind, WidthPolicy()))


def judged(store: Store, number: int, batch: Batch) -> np.ndarray:
    """What the reference computes."""
    wide = [array.astype(np.int64) for array in (batch.x, batch.gates, batch.residual)]
    layer = store.layers[number]
    constants = store.constants(number)
    return moe(layer, store.kind, constants, stored_experts(store, number), *wide, batch.widths)


_EXPECTED: dict[tuple[Path, int, int], tuple[Batch, np.ndarray]] = {}


def expected(store: Store, number: int, tokens: int) -> tuple[Batch, np.ndarray]:
    key = store.path, number, tokens
    if key not in _EXPECTED:
        batch = batch_of(store, number, tokens, seed=3)
        _EXPECTED[key] = batch, judged(store, number, batch)
    return _EXPECTED[key]
