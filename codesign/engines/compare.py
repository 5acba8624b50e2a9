# SPDX-License-Identifier: Apache-2.0
"""Turns raw output buffers into tensors by the manifest, and finds the first element that differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.emit.manifest import BufferTensor, TensorKind
from codesign.errors import CheckError

Ints = npt.NDArray[np.int64]

_ENTRY = np.dtype("<u4")
_TOKEN_BITS = 16


@dataclass(frozen=True)
class Difference:
    """The first element in which a run differs: its place, what the reference says and what the engine said."""

    task: str
    image: int
    tensor: str
    index: tuple[int, ...]
    expected: int
    found: int

    def __str__(self) -> str:
        where = ", ".join(map(str, self.index))
        return f"task {self.task}, image {self.image}: {self.tensor}[{where}] must be {self.expected}, not {self.found}"


def decode(buffer: bytes, at: BufferTensor) -> Ints:
    """A matrix tensor [rows, columns] out of a raw output buffer. Raises CheckError when the buffer is too short."""
    dtype = np.dtype(at.dtype).newbyteorder("<")
    cells = _slice(buffer, at, at.rows * at.row_elements, dtype)
    return cells.reshape(at.rows, at.row_elements)[:, : at.columns].astype(np.int64)


def decode_queues(buffer: bytes, at: BufferTensor) -> Ints:
    """The expert queues [experts, row_elements] of 32-bit entries: a count, then (token, gate) entries."""
    words = _slice(buffer, at, at.columns * at.row_elements, _ENTRY)
    return words.reshape(at.columns, at.row_elements).astype(np.int64)


def queues_of(gates: Ints, row_elements: int) -> Ints:
    """The queues that gates [tokens, experts] stand for; entries beyond the count are 0."""
    queues = np.zeros((gates.shape[1], row_elements), dtype=np.int64)
    for expert, column in enumerate(gates.T):
        tokens = np.nonzero(column)[0]
        queues[expert, 0] = len(tokens)
        queues[expert, 1 : len(tokens) + 1] = tokens | column[tokens] << _TOKEN_BITS
    return queues


def rows_of(values: Mapping[str, Ints], at: BufferTensor) -> Ints:
    """The rows of a tensor that the buffer holds there."""
    return values[at.tensor][at.first_row : at.first_row + at.rows]


def encode(tensors: Iterable[BufferTensor], values: Mapping[str, Ints], size: int) -> bytes:
    """The output buffer of `size` bytes that holds `values` as the machine lays them out; the rest is 0."""
    buffer = np.zeros(size, dtype=np.uint8)
    for at in tensors:
        if at.kind is TensorKind.QUEUE:
            cells = queues_of(rows_of(values, at), at.row_elements).astype(_ENTRY)
        else:
            cells = np.zeros((at.rows, at.row_elements), np.dtype(at.dtype).newbyteorder("<"))
            cells[:, : at.columns] = rows_of(values, at)
        raw = cells.reshape(-1).view(np.uint8)
        buffer[at.offset : at.offset + len(raw)] = raw
    return buffer.tobytes()


def first_difference(
    task: str, image: int, buffer: bytes, tensors: Iterable[BufferTensor], expected: Mapping[str, Ints]
) -> Difference | None:
    """Compare every tensor of a run's buffer, in the order they were computed; None when all are equal."""
    for at in tensors:
        wanted = rows_of(expected, at)
        if at.kind is TensorKind.QUEUE:
            wanted, found = queues_of(wanted, at.row_elements), decode_queues(buffer, at)
            meant = np.arange(at.row_elements) <= wanted[:, :1]  # what lies beyond the count may be anything
            wanted, found = np.where(meant, wanted, 0), np.where(meant, found, 0)
        else:
            found = decode(buffer, at)
        unequal = np.argwhere(wanted != found)
        if len(unequal):
            index = tuple(int(i) for i in unequal[0])
            place = index if at.kind is TensorKind.QUEUE else (index[0] + at.first_row, *index[1:])
            return Difference(task, image, at.tensor, place, int(wanted[index]), int(found[index]))
    return None


def _slice(buffer: bytes, at: BufferTensor, count: int, dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
    end = at.offset + count * dtype.itemsize
    if len(buffer) < end:
        raise CheckError(f"output buffer must hold {at.tensor} up to byte {end}, not end at {len(buffer)}")
    return np.frombuffer(buffer, dtype, count, at.offset)
