# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a mixture layer as its blocks arrive, in the native module (kernels/src/mixture.cpp).

Per expert, tokens of one width form a group. A level that arrives is added to the first matrix's sums of every group
that reads it; a group's last level completes it. Contributions are added in ascending order of experts at the end, so
the bits depend on no order of arrival.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.experts.arena import BlockKey, Residency
from codesign.experts.blocks import Bytes
from codesign.experts.schedule import Demand
from codesign.experts.store import Store
from codesign.kernels.native import checked_threads, choose_variant, native
from codesign.reference.tables import GELU_DELTA, SILU_DELTA
from codesign.spec.moe import Activation, ExpertFormat, MoeLayer

Int8s = npt.NDArray[np.int8]
Int16s = npt.NDArray[np.int16]
Int32s = npt.NDArray[np.int32]
Indices = npt.NDArray[np.int64]
Gates = npt.NDArray[np.uint16]
Widths = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Batch:
    """What a layer computes on: x [T, D], gates [T, E], residual [T, D], widths [T, E] (read where a gate is not 0)."""

    x: Int8s
    gates: Gates
    residual: Int16s
    widths: Widths

    def check(self, layer: MoeLayer) -> None:
        """Raise InputError when shapes or types are not the layer's."""
        tokens = len(self.x)
        wanted = (
            ("x", self.x, np.int8, layer.embed_dim),
            ("gates", self.gates, np.uint16, layer.num_experts),
            ("residual", self.residual, np.int16, layer.embed_dim),
            ("widths", self.widths, np.uint8, layer.num_experts),
        )
        for name, array, kind, columns in wanted:
            if array.dtype != kind or array.shape != (tokens, columns):
                raise InputError(
                    f"{name} of layer {layer.name} must be {np.dtype(kind)} [{tokens}, {columns}], not {array.dtype}"
                    f" {list(array.shape)}; convert it"
                )


class Workers:
    """The threads that compute (the caller is one of them), and the variant of the kernels: a name, or the fastest."""

    def __init__(self, threads: int = 1, variant: str | None = None) -> None:
        self.variant = choose_variant(variant)
        self.native = native().MixturePool(checked_threads(threads))


class LayerKernel:
    """A layer of a store, ready to compute from an arena."""

    def __init__(self, store: Store, number: int, arena: Bytes, workers: Workers) -> None:
        layer, kind = store.layers[number], store.kind
        constants = store.constants(number)
        gated = layer.activation is Activation.SILU_GATED
        levels = []
        for at, level in enumerate(kind.levels):
            first, second = store.parts(number, at)
            places = [(part.cells, part.multipliers, part.zeros) for part in (first, second)]
            levels.append((level.bits, level.position, level.trits, *places, second.end))
        self.layer, self.kind = layer, kind
        self.native = native().MixtureLayer(
            embed_dim=layer.embed_dim,
            hidden=layer.hidden,
            gated=gated,
            residual=kind is ExpertFormat.RESIDUAL,
            offset=kind.offset,
            levels=levels,
            multiplier=layer.hidden_requant.multiplier[0],
            shift=layer.hidden_requant.shift[0],
            table=list((SILU_DELTA if gated else GELU_DELTA).values),
            bias1=constants.fc1.bias,
            multiplier1=constants.fc1.multiplier,
            shift1=constants.fc1.shift,
            bias2=constants.fc2.bias,
            multiplier2=constants.fc2.multiplier,
            shift2=constants.fc2.shift,
            arena=arena,
            variant=workers.variant.native,
            pool=workers.native,
        )


@dataclass
class _Group:
    """Tokens of one expert that read `levels` levels."""

    levels: int
    pairs: slice
    x: Int8s
    gates: Gates
    sums: Int32s
    added: int = 0


class LayerPass:
    """One batch through one layer: `compute` is called once for each block in demand, levels ascending per expert."""

    def __init__(self, kernel: LayerKernel, number: int, batch: Batch) -> None:
        batch.check(kernel.layer)
        self._kernel, self._number, self._batch = kernel, number, batch
        widths = np.array((*kernel.kind.widths, 0))
        tokens, experts = np.nonzero(batch.gates)
        found = batch.widths[tokens, experts]
        levels = np.searchsorted(widths[:-1], found) + 1
        if not np.array_equal(widths[levels - 1], found):
            bad = found[widths[levels - 1] != found][0]
            kernel.kind.level_count(int(bad))  # raises
        order = np.lexsort((tokens, -levels, experts))
        self._tokens, self._experts, self._levels = tokens[order], experts[order], levels[order]
        self._out: Int16s = np.empty((len(order), kernel.layer.embed_dim), dtype=np.int16)
        self.demand = self._count()
        self._groups: dict[int, list[_Group]] = {}

    def _count(self) -> Demand:
        """Tokens by (expert, level)."""
        depth = len(self._kernel.kind.levels)
        table = np.zeros((self._kernel.layer.num_experts, depth), dtype=np.int64)
        np.add.at(table, (self._experts, self._levels - 1), 1)
        reading = table[:, ::-1].cumsum(axis=1)[:, ::-1]
        return {(int(e), int(v)): int(reading[e, v]) for e, v in zip(*np.nonzero(reading), strict=True)}

    @property
    def pairs(self) -> int:
        """Pairs of token and expert."""
        return len(self._tokens)

    def pairs_by_levels(self) -> Mapping[int, int]:
        """Pairs by the number of levels that they read."""
        return {int(n): int(c) for n, c in zip(*np.unique(self._levels, return_counts=True), strict=True)}

    def _begin(self, expert: int) -> list[_Group]:
        start, end = np.searchsorted(self._experts, (expert, expert + 1))
        x = self._batch.x[self._tokens[start:end]]
        gates = self._batch.gates[self._tokens[start:end], expert]
        rows1 = self._kernel.layer.rows1
        groups = []
        bounds = [0, *(np.nonzero(np.diff(self._levels[start:end]))[0] + 1).tolist(), end - start]
        for a, b in itertools.pairwise(bounds):
            sums = np.empty((b - a, rows1), dtype=np.int32)
            pairs = slice(int(start) + a, int(start) + b)
            groups.append(_Group(int(self._levels[start + a]), pairs, x[a:b], gates[a:b], sums))
        return groups

    def compute(self, residency: Residency, expert: int, last: int) -> None:
        """Use the blocks of an expert up to level `last`, which are resident."""
        groups = self._groups.get(expert)
        if groups is None:
            groups = self._groups[expert] = self._begin(expert)
        places = [residency.place(BlockKey(self._number, level, expert)) for level in range(last + 1)]
        for group in groups:
            upto = min(group.levels, last + 1)
            if group.added == group.levels or upto <= group.added:
                continue
            if upto < group.levels:
                self._kernel.native.add(group.x, group.sums, places, group.added, upto)
            else:
                out = self._out[group.pairs]
                where = places[:upto]
                self._kernel.native.complete(group.x, group.sums, group.gates, out, where, group.added, upto, expert)
            group.added = upto
        if last + 1 >= groups[0].levels:  # the widest group is the first one
            self._groups[expert] = []

    def result(self) -> Int16s:
        """The layer's output [T, D], when everything was computed."""
        order = np.lexsort((self._experts, self._tokens))
        starts = np.searchsorted(self._tokens[order], np.arange(len(self._batch.x) + 1))
        y: Int16s = np.empty_like(self._batch.residual)
        residual = np.ascontiguousarray(self._batch.residual)
        native().combine(residual, self._out, order.astype(np.int64), starts.astype(np.int64), y)
        return y
