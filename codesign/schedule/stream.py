# SPDX-License-Identifier: Apache-2.0
"""Packs weights and per-channel parameters into the streams the machine reads (docs/machine.md, "The stream")."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codesign.schedule.design import MachineSize
from codesign.schedule.isa import BIAS_BITS, MULTIPLIER_BITS, PLANES, WeightFormat
from codesign.spec import Requant

Ints = npt.NDArray[np.int64]


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def pad_to(x: Ints, shape: tuple[int, ...]) -> Ints:
    """x with zeros appended along every axis up to `shape`."""
    return np.pad(x, [(0, to - have) for have, to in zip(x.shape, shape, strict=True)])


def records(bias: Ints, multiplier: Ints, shift: Ints, channels: int) -> npt.NDArray[np.uint64]:
    """Parameter records of `channels` >= len(bias) channels; padding channels compute 0 (multiplier 0, shift 1)."""
    b = pad_to(bias, (channels,)).astype(np.uint64) & np.uint64((1 << BIAS_BITS) - 1)
    m = pad_to(multiplier, (channels,)).astype(np.uint64) & np.uint64((1 << MULTIPLIER_BITS) - 1)
    s = np.ones(channels, dtype=np.uint64)
    s[: len(shift)] = shift.astype(np.uint64)
    packed: npt.NDArray[np.uint64] = b | (m << np.uint64(BIAS_BITS)) | (s << np.uint64(BIAS_BITS + MULTIPLIER_BITS))
    return packed


def weight_format(*weights: Ints) -> WeightFormat:
    """The format with the fewest planes that holds all the weights."""
    low = min(int(w.min(initial=0)) for w in weights)
    high = max(int(w.max(initial=0)) for w in weights)
    fits = [form for form, planes in PLANES.items() if -(1 << (planes - 1)) <= low and high < 1 << (planes - 1)]
    return min(fits, key=lambda form: PLANES[form])


def pack_tile(tile: Ints, planes: int) -> bytes:
    """The blocks of a weight tile [pe, simd]: its planes, the most significant first; bit p * simd + s is [p][s]."""
    flat = tile.reshape(-1)
    shifts = np.arange(planes - 1, -1, -1, dtype=np.int64)
    bits = ((flat[None, :] >> shifts[:, None]) & 1).astype(np.uint8)
    return np.packbits(bits, axis=1, bitorder="little").tobytes()


def dense(weight: Ints, bias: Ints, requant: Requant, form: WeightFormat, size: MachineSize) -> bytes:
    """The stream of one dense layer, weight [N, K]: for each n tile its records, then its weight tiles."""
    n_tiles, k_words = ceil_div(weight.shape[0], size.pe), ceil_div(weight.shape[1], size.simd)
    padded = pad_to(weight, (n_tiles * size.pe, k_words * size.simd))
    channels = (
        np.broadcast_to(np.array(requant.multiplier), bias.shape),
        np.broadcast_to(np.array(requant.shift), bias.shape),
    )
    record = records(bias, *channels, n_tiles * size.pe)
    parts = []
    for j in range(n_tiles):
        rows = slice(j * size.pe, (j + 1) * size.pe)
        parts.append(record[rows].astype("<u8").tobytes())
        for k in range(k_words):
            parts.append(pack_tile(padded[rows, k * size.simd : (k + 1) * size.simd], PLANES[form]))
    return b"".join(parts)


def norm(gain: Ints, bias: Ints, size: MachineSize) -> bytes:
    """The stream of a NORM: one record a channel, gain in the multiplier's place (signed)."""
    channels = ceil_div(len(gain), size.pe) * size.pe
    return records(bias, gain, np.ones(len(gain), dtype=np.int64), channels).astype("<u8").tobytes()


@dataclass
class MemoryImage:
    """Collects streams of whole lines of `line_bytes`; equal streams are stored once (tasks share their trunk)."""

    line_bytes: int
    block_lines: int
    parts: list[bytes] = field(default_factory=list)
    lines: int = 0
    _addr_of: dict[bytes, int] = field(default_factory=dict)

    def add(self, part: bytes) -> int:
        """The line where the stream starts; it is zero padded to whole lines."""
        part += bytes(-len(part) % self.line_bytes)
        if part not in self._addr_of:
            self._addr_of[part] = self.lines
            self.parts.append(part)
            self.lines += len(part) // self.line_bytes
        return self._addr_of[part]

    def to_bytes(self) -> bytes:
        """The whole image."""
        return b"".join(self.parts)
