# SPDX-License-Identifier: Apache-2.0
"""Weights on a device: packed cells with the places of their levels, and the rescaling behind the sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from codesign.kernels.gpu.device import Device
from codesign.kernels.layout import OFFSET_INT8, codes_of, pack_codes
from codesign.spec.moe import ExpertFormat, Rescaling
from codesign.spec.types import INT8, Requant

if TYPE_CHECKING:
    import torch

Ints = npt.NDArray[np.integer[Any]]

NESTED = tuple((level.bits, level.position) for level in ExpertFormat.NESTED.levels)


@dataclass(frozen=True)
class Packing:
    """How a weight [outputs, inputs] is packed: (bits, position) of each level, and what a code is larger by."""

    outputs: int
    inputs: int
    levels: tuple[tuple[int, int], ...]
    offset: int
    residual: bool = False

    @staticmethod
    def of_format(shape: tuple[int, int], kind: ExpertFormat, levels: int) -> Packing:
        """The first `levels` levels of a format (trits are turned into cells of 2 bits when they are loaded)."""
        pairs = tuple((level.bits, level.position) for level in kind.levels[:levels])
        return Packing(*shape, pairs, kind.offset, kind is ExpertFormat.RESIDUAL)


@dataclass(frozen=True)
class Scaling:
    """Bias, multiplier and shift int32 [rows, outputs]."""

    bias: torch.Tensor
    multiplier: torch.Tensor
    shift: torch.Tensor

    @staticmethod
    def of(device: Device, bias: Ints, multiplier: Ints, shift: Ints) -> Scaling:
        """Of arrays [..., outputs]; multiplier and shift may have one entry for all outputs."""
        arrays = (np.broadcast_to(array, bias.shape).reshape(-1, bias.shape[-1]) for array in (bias, multiplier, shift))
        return Scaling(*(device.tensor(array.astype(np.int32)) for array in arrays))

    @staticmethod
    def of_requants(device: Device, bias: Ints, requants: Sequence[Requant]) -> Scaling:
        """Of biases [rows, outputs] and a rescaling for each row."""
        pairs = [
            np.broadcast_to(np.array((rq.multiplier, rq.shift)), (2, bias.shape[-1])) for rq in requants
        ]  # fmt: skip
        factors = np.stack(pairs)
        return Scaling.of(device, bias, factors[:, 0], factors[:, 1])

    @staticmethod
    def of_store(device: Device, rescaling: Rescaling) -> Scaling:
        """Of a store's layer: row set * experts + expert."""
        return Scaling.of(device, rescaling.bias, rescaling.multiplier, rescaling.shift)


@dataclass(frozen=True)
class Weight:
    """Weights of one layer, or of all its experts: bytes, places int64 [experts, levels] in them, and rescalings."""

    packing: Packing
    cells: torch.Tensor
    places: torch.Tensor
    scaling: Scaling

    @property
    def nbytes(self) -> int:
        """Bytes of the packed weights."""
        return int(self.cells.numel())


def pack_dense(device: Device, weight: Ints, bias: Ints, requant: Requant) -> Weight:
    """A layer [N, K] in the fewest of 2, 4 and 8 bits that hold it. Raises InputError for more than 8192 inputs."""
    bits, offset = _fewest(weight)
    cells = pack_codes(codes_of(weight, offset), bits, offset)
    packing = Packing(weight.shape[0], weight.shape[1], ((bits, 0),), offset)
    scaling = Scaling.of_requants(device, bias[None], (requant,))
    return Weight(packing, device.tensor(cells.reshape(-1)), device.tensor(np.zeros((1, 1), dtype=np.int64)), scaling)


def pack_experts(
    device: Device, weight: Ints, bias: Ints, requants: Sequence[Requant], slices: Sequence[int]
) -> Weight:
    """Experts [E, N, K] in one piece; `slices`: bit planes that are read of each, 2, 4 or 8; () for all of them."""
    bits, offset = _fewest(weight)
    levels: tuple[tuple[int, int], ...] = ((bits, 0),)
    if any(one != INT8.bit_width for one in slices):
        offset, levels = OFFSET_INT8, NESTED
    cells, places = [], np.zeros((len(weight), len(levels)), dtype=np.int64)
    end = 0
    for expert, level in np.ndindex(places.shape):
        size, position = levels[level]
        digit = (codes_of(weight[expert], offset) >> position) & ((1 << size) - 1)
        cells.append(pack_codes(digit.astype(np.uint8), size, 0).reshape(-1))
        places[expert, level] = end
        end += cells[-1].size
    packing = Packing(weight.shape[1], weight.shape[2], levels, offset)
    scaling = Scaling.of_requants(device, bias, requants)
    return Weight(packing, device.tensor(np.concatenate(cells)), device.tensor(places), scaling)


def _fewest(weight: Ints) -> tuple[int, int]:
    """Bits and offset of the codes."""
    low, high = int(weight.min()), int(weight.max())
    for bits in (2, 4):
        if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
            return bits, 1 << (bits - 1)
    return INT8.bit_width, OFFSET_INT8
