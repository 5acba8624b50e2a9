# SPDX-License-Identifier: Apache-2.0
"""Writes a store expert by expert, so that memory stays bounded, under a temporary name: all of it or nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codesign.errors import InputError
from codesign.experts.file.blocks import PAGE, Bytes, check_bias, encode_constants
from codesign.experts.file.checksum import crc32c
from codesign.experts.file.index import HEADER_BYTES, Block, Index, LayerIndex, encode_header, encode_index, places
from codesign.experts.file.whole import part_of, refuse_special
from codesign.kernels.layout import padded
from codesign.spec.moe import ExpertFormat, MoeConstants, MoeLayer, Rescaling

_LARGEST_SUM = (1 << 32) - 1


@dataclass(frozen=True)
class ExpertRescaling:
    """Bias, multiplier and shift of one expert's layer, each [sets, rows]."""

    bias: npt.NDArray[np.int64]
    multiplier: npt.NDArray[np.int64]
    shift: npt.NDArray[np.int64]


@dataclass(frozen=True)
class PackedExpert:
    """One expert as it goes into the file: the block of each level, and its rescalings."""

    blocks: tuple[Bytes, ...]
    fc1: ExpertRescaling
    fc2: ExpertRescaling


@dataclass(frozen=True)
class LayerSource:
    """A layer to write: its shape, rescalings an expert (1, or one a width), and its experts in order, when asked."""

    layer: MoeLayer
    sets: int
    experts: Callable[[], Iterator[PackedExpert]]


def write_store(
    path: Path,
    kind: ExpertFormat,
    model: str,
    sources: Sequence[LayerSource],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write a store to `path` and return its bytes. `progress` is told experts done, and how many there are.

    Raises InputError when the file cannot be written, or does not fit the disk; then nothing is left behind.
    """
    if not sources:
        raise InputError(f"model {model} must have mixtures of experts to pack, and it has none; give another")
    shapes = tuple((source.layer, source.sets) for source in sources)
    longest = Index(kind, model, tuple(_with_sums(entry) for entry in places(kind, shapes, 1 << 50)))
    start = padded(HEADER_BYTES + len(encode_index(longest)), PAGE)
    planned = Index(kind, model, tuple(places(kind, shapes, start)))
    total = sum(layer.num_experts for layer, _ in shapes)
    with _whole_file(path, planned.end) as file:
        layers, done = [], 0
        for source, entry in zip(sources, planned.layers, strict=True):
            layers.append(_write_layer(file, kind, source, entry, partial(_report, progress, done, total)))
            done += source.layer.num_experts
        text = encode_index(replace(planned, layers=tuple(layers))).ljust(start - HEADER_BYTES)
        _write_at(file, encode_header(text) + text, 0)
    return planned.end


def _report(progress: Callable[[int, int], None], before: int, total: int, here: int) -> None:
    progress(before + here, total)


def _with_sums(entry: LayerIndex) -> LayerIndex:
    """The longest text that an index of these places can have."""
    blocks = tuple(tuple(replace(block, crc32c=_LARGEST_SUM) for block in level) for level in entry.blocks)
    return replace(entry, constants=replace(entry.constants, crc32c=_LARGEST_SUM), blocks=blocks)


def _write_layer(
    file: int, kind: ExpertFormat, source: LayerSource, entry: LayerIndex, progress: Callable[[int], None]
) -> LayerIndex:
    """Write a layer's experts and constants; the entry with their checksums."""
    layer, written, kept = source.layer, [], []
    for number, expert in enumerate(source.experts()):
        written.append(
            [_write_block(file, level[number], b) for level, b in zip(entry.blocks, expert.blocks, strict=True)]
        )
        kept.append((expert.fc1, expert.fc2))
        progress(number + 1)
    first, second = ([pair[i] for pair in kept] for i in (0, 1))
    for (_, inputs), rescalings in zip(layer.shapes, (first, second), strict=True):
        for one in rescalings:
            check_bias(layer, kind, inputs, one.bias)
    constants = MoeConstants(_joined(first), _joined(second))
    encoded = np.frombuffer(encode_constants(constants), dtype=np.uint8)
    return LayerIndex(
        layer, source.sets, _write_block(file, entry.constants, encoded), tuple(zip(*written, strict=True))
    )


def _joined(experts: list[ExpertRescaling]) -> Rescaling:
    return Rescaling(
        np.stack([one.bias for one in experts], axis=1).astype(np.int32),
        np.stack([one.multiplier for one in experts], axis=1).astype(np.uint16),
        np.stack([one.shift for one in experts], axis=1).astype(np.uint8),
    )


def _write_block(file: int, place: Block, content: Bytes) -> Block:
    if len(content) != place.bytes:
        raise AssertionError(f"a block of {place.bytes} bytes was packed as {len(content)}")
    whole = np.ascontiguousarray(content)
    _write_at(file, whole.tobytes(), place.offset)  # zeros follow: the file was made of them
    return replace(place, crc32c=crc32c(whole))


def _write_at(file: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count


@contextmanager
def _whole_file(path: Path, size: int) -> Iterator[int]:
    """A new file of `size` zeros that becomes `path` when all went well."""
    refuse_special(path, "store")
    temporary = part_of(path)
    file = -1
    try:
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        _reserve(file, size)
        yield file
        os.fsync(file)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, size, error) from None
    finally:
        if file >= 0:
            os.close(file)
        with suppress(OSError):  # it was renamed, or could not be made
            temporary.unlink()


def _reserve(file: int, size: int) -> None:
    """Make a file of `size` zeros; where the file system can, a full disk is found now, not after an hour."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(file, size)


def _sync_folder(folder: Path) -> None:
    """Make the rename last; some file systems cannot sync a folder."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _cannot_write(path: Path, size: int, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return InputError(
            f"store {path} must fit the disk: {size:,} bytes are needed; free space, or choose another --out"
        )
    return InputError(f"store {path} must be writable: {error.strerror}; choose another --out")
