# SPDX-License-Identifier: Apache-2.0
"""One batch through one mixture layer on a GPU: which pairs each block completes, and the kernels that compute them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from codesign.experts.gpu.blocks import DeviceLayer, Matrix
from codesign.experts.run.compute import Batch
from codesign.kernels.gpu.ops import Ops, Pairs
from codesign.kernels.gpu.weights import Weight
from codesign.spec.moe import Activation, ExpertFormat, MoeLayer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Ready:
    """Blocks of an expert up to `last` that were not computed before `first`."""

    expert: int
    first: int
    last: int


class SortedPairs:
    """A batch's pairs of token and expert, by expert and then by the levels they read."""

    def __init__(self, layer: MoeLayer, kind: ExpertFormat, batch: Batch) -> None:
        batch.check(layer)
        token, expert = np.nonzero(batch.gates)
        widths, which = np.unique(batch.widths[token, expert], return_inverse=True)
        levels = np.array([kind.level_count(int(width)) for width in widths], dtype=np.int64)[which]
        order = np.lexsort((token, levels, expert))
        self.tokens, self.experts, self.levels = token[order], expert[order], levels[order]
        self.gates = batch.gates[self.tokens, self.experts]
        keys, starts, counts = np.unique(self.experts * 8 + self.levels, return_index=True, return_counts=True)
        self.segments = {
            (int(key) // 8, int(key) % 8): (int(start), int(count))
            for key, start, count in zip(keys, starts, counts, strict=True)
        }
        """(expert, levels) to first pair and number."""

    @property
    def demand(self) -> Mapping[tuple[int, int], int]:
        """Tokens by (expert, level)."""
        found: dict[tuple[int, int], int] = {}
        for (expert, levels), (_, count) in self.segments.items():
            for level in range(levels):
                found[expert, level] = found.get((expert, level), 0) + count
        return found

    def slots(self, tokens: int) -> npt.NDArray[np.int32]:
        """Each token's pairs, experts ascending, int32 [T, most]; -1 where there are fewer."""
        counts = np.bincount(self.tokens, minlength=tokens)
        made = np.full((tokens, max(1, int(counts.max(initial=0)))), -1, dtype=np.int32)
        order = np.lexsort((self.experts, self.tokens))
        starts = np.cumsum(counts) - counts
        made[self.tokens[order], np.arange(len(order)) - starts[self.tokens[order]]] = order
        return made


class LayerPass:
    """One batch through one layer: tensors on the device."""

    def __init__(self, ops: Ops, layer: DeviceLayer, kind: ExpertFormat, batch: Batch) -> None:
        self._ops, self._layer = ops, layer
        self.pairs = SortedPairs(layer.layer, kind, batch)
        device, library = ops.device, ops.device.library
        count, tokens = len(self.pairs.tokens), len(batch.x)
        slots = self.pairs.slots(tokens)
        sent = device.upload(
            np.concatenate([self.pairs.tokens.astype(np.int32), self.pairs.gates.astype(np.int32), slots.ravel()])
        )
        self._tokens, self._gates = sent[:count], sent[count : 2 * count]
        self._slots = sent[2 * count :].view(slots.shape)
        self._x, self._residual = device.upload(batch.x), device.upload(batch.residual)
        self._u = device.empty((count, layer.layer.rows1), library.int16)
        self._h = device.empty((count, layer.layer.hidden), library.int8)
        self._parts = device.empty((count, layer.layer.embed_dim), library.int16)

    def compute(self, ready: Sequence[Ready], places: Mapping[int, list[int]], arena: torch.Tensor) -> bool:
        """The pairs that these blocks complete. `places`: of each expert's levels. Whether there were any."""
        wanted = [
            (one.expert, level + 1)
            for one in ready
            for level in range(one.first, one.last + 1)
            if (one.expert, level + 1) in self.pairs.segments
        ]
        if not wanted:
            return False
        most = max(levels for _, levels in wanted)
        pairs, first, second = self._table(wanted, most, places)
        layer, ops = self._layer.layer, self._ops
        weights = [
            Weight(matrix.packing(most), arena, where, matrix.scaling)
            for matrix, where in ((self._layer.first, first), (self._layer.second, second))
        ]
        if layer.activation is Activation.GELU:
            ops.experts_into(self._h, self._x, weights[0], pairs, gather=True, gelu=layer.hidden_requant)
        else:
            ops.experts_into(self._u, self._x, weights[0], pairs, gather=True)
            ops.silu_into(self._h, self._u, pairs, layer.hidden_requant)
        ops.experts_into(self._parts, self._h, weights[1], pairs, gather=False, gated=True)
        return True

    def _table(
        self, wanted: Sequence[tuple[int, int]], most: int, places: Mapping[int, list[int]]
    ) -> tuple[Pairs, torch.Tensor, torch.Tensor]:
        """The kernels' table of blocks of pairs, and where both matrices lie: one copy to the device."""
        segments = [self.pairs.segments[one] for one in wanted]
        tile = self._ops.row_tile(-(-sum(count for _, count in segments) // len(segments)))
        blocks = [
            (row, first + done, min(tile, count - done), self._layer.scaling_entry(*wanted[row]))
            for row, (first, count) in enumerate(segments)
            for done in range(0, count, tile)
        ]

        def lying(matrix: Matrix) -> list[list[int]]:
            each = (matrix.places(places[expert][:levels]) for expert, levels in wanted)
            return [(found + found[-1:] * most)[:most] for found in each]

        where = np.array([lying(self._layer.first), lying(self._layer.second)], dtype=np.int64)
        table = np.array(blocks, dtype=np.int32)
        sent = self._ops.device.upload(np.concatenate([where.ravel(), table.view(np.int64).ravel()]))
        first, second = sent[: where.size].view(where.shape)
        on_device = sent[where.size :].view(self._ops.device.library.int32).view(table.shape)
        return Pairs(on_device, self._tokens, self._gates, self._slots, tile), first, second

    def result(self) -> torch.Tensor:
        """The layer's output int16 [T, D]."""
        return self._ops.combine(self._residual, self._parts, self._slots)
