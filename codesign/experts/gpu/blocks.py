# SPDX-License-Identifier: Apache-2.0
"""A store's blocks in page-locked host memory, from where a GPU fetches them; and what its kernels keep of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from codesign.experts.file.blocks import PAGE, Bytes, MatrixPart, parts
from codesign.experts.file.store import Store
from codesign.experts.run.arena import BlockKey
from codesign.kernels.gpu.device import Device
from codesign.kernels.gpu.weights import Packing, Scaling
from codesign.kernels.layout import padded
from codesign.kernels.levels import decode_trits
from codesign.spec.moe import ExpertFormat, MoeLayer

if TYPE_CHECKING:
    import torch


class HostBlocks:
    """Every block of a store, read and checked once. Trits become cells of 2 bits, which is what kernels read.

    Raises InputError for a damaged store, and when the memory does not hold it.
    """

    def __init__(self, store: Store, device: Device) -> None:
        self.store, self.device = store, device
        self.kind = ExpertFormat.TERNARY if store.kind is ExpertFormat.TRITS else store.kind
        self._places: dict[BlockKey, int] = {}
        self.sizes: dict[BlockKey, int] = {}
        """Bytes of each block's slot: whole pages."""
        end = 0
        for number, layer in enumerate(store.layers):
            for level in range(len(self.kind.levels)):
                size = parts(layer, self.kind, level)[1].end
                for expert in range(layer.num_experts):
                    key = BlockKey(number, level, expert)
                    self._places[key], self.sizes[key] = end, padded(size, PAGE)
                    end += self.sizes[key]
        self._bytes = device.host_bytes(end)
        whole: Bytes = self._bytes.numpy()
        for key, place in self._places.items():
            block = self._read(key)
            whole[place : place + block.size] = block

    @property
    def bytes(self) -> int:
        """Of all blocks."""
        return sum(self.sizes.values())

    def block(self, key: BlockKey) -> torch.Tensor:
        """A block with its padding."""
        place = self._places[key]
        return self._bytes[place : place + self.sizes[key]]

    def _read(self, key: BlockKey) -> Bytes:
        found = self.store.read_block(*key)
        if self.kind is self.store.kind:
            return found
        layer = self.store.layers[key.layer]
        wanted = parts(layer, self.kind, key.level)
        made = np.zeros(wanted[1].end, dtype=np.uint8)
        for source, target in zip(self.store.parts(key.layer, key.level), wanted, strict=True):
            target.cells_of(made)[:] = decode_trits(np.ascontiguousarray(source.cells_of(found)))
        return made


@dataclass(frozen=True)
class Matrix:
    """One of a layer's two matrices: where it lies in the block of each level, how many levels, its rescalings."""

    shape: tuple[int, int]
    kind: ExpertFormat
    parts: tuple[MatrixPart, ...]
    scaling: Scaling

    def packing(self, levels: int) -> Packing:
        """With its first levels."""
        return Packing.of_format(self.shape, self.kind, levels)

    def places(self, blocks: Sequence[int]) -> list[int]:
        """Where the cells of each level lie, given where the blocks lie."""
        return [block + part.cells for block, part in zip(blocks, self.parts, strict=False)]


@dataclass(frozen=True)
class DeviceLayer:
    """A layer's matrices on a device, less the cells, which come and go."""

    layer: MoeLayer
    first: Matrix
    second: Matrix
    sets: int

    @staticmethod
    def of(blocks: HostBlocks, number: int) -> DeviceLayer:
        """The layer of that number. Raises InputError when its constants are damaged."""
        layer, constants = blocks.store.layers[number], blocks.store.constants(number)
        each = [parts(layer, blocks.kind, level) for level in range(len(blocks.kind.levels))]
        made = [
            Matrix(layer.shapes[i], blocks.kind, tuple(both[i] for both in each), Scaling.of_store(blocks.device, by))
            for i, by in enumerate((constants.fc1, constants.fc2))
        ]
        return DeviceLayer(layer, made[0], made[1], len(constants.fc1.bias))

    def scaling_entry(self, expert: int, levels: int) -> int:
        """What a block of the kernels' table says about the rescaling and the levels."""
        chosen = levels - 1 if self.sets > 1 else 0
        return chosen * self.layer.num_experts + expert | levels << 24
