# SPDX-License-Identifier: Apache-2.0
"""Opens a store of experts: one file, checked before use. What is wrong is named with its offset (docs/edge.md, §3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from codesign.errors import InputError
from codesign.experts.file.blocks import PAGE, Bytes, MatrixPart, check_multipliers, decode_constants, parts
from codesign.experts.file.checksum import crc32c
from codesign.experts.file.index import HEADER_BYTES, Block, Index, decode_header, decode_index, reason
from codesign.kernels.layout import padded
from codesign.spec.moe import ExpertFormat, MoeConstants, MoeLayer

_REMEDY = "pack it again, or copy it again"


@dataclass(frozen=True)
class Store:
    """A store whose header and index are sound. Blocks are checked when they are read.

    Layers, levels and experts are counted from 0, in the order of the file.
    """

    path: Path
    index: Index

    @staticmethod
    def open(path: Path) -> Store:
        """Check header, index, places and size of the file at `path`.

        Raises InputError, naming the offset, for a file that is missing, foreign, truncated, or damaged.
        """
        with _reading(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            header = file.read(HEADER_BYTES)
            fail = _Failure(path)
            length = decode_header(header, size, fail)
            text = file.read(padded(HEADER_BYTES + length, PAGE) - HEADER_BYTES)
        if len(text) < length:
            raise fail(HEADER_BYTES + len(text), f"must hold its whole index, not end after {len(text)} bytes of it")
        index = decode_index(header, text[:length], fail)
        if text[length:].strip(b"\0"):
            raise fail(HEADER_BYTES + length, "must have zeros behind its index")
        if size != index.end:
            raise fail(min(size, index.end), f"must have {index.end} bytes, not {size}")
        return Store(path, index)

    @property
    def kind(self) -> ExpertFormat:
        """The format of all its layers."""
        return self.index.kind

    @property
    def layers(self) -> tuple[MoeLayer, ...]:
        """The mixture layers."""
        return tuple(entry.layer for entry in self.index.layers)

    @property
    def expert_bytes(self) -> int:
        """Bytes of all experts' blocks, as they lie in the file."""
        return sum(block.padded_bytes for entry in self.index.layers for level in entry.blocks for block in level)

    def layer_number(self, name: str) -> int:
        """The number of the layer of that name. Raises InputError when there is none."""
        names = [layer.name for layer in self.layers]
        if name not in names:
            raise InputError(f"store {self.path} must hold the layer {name}, not {', '.join(names)}; pack that model")
        return names.index(name)

    def block(self, layer: int, level: int, expert: int) -> Block:
        """Where an expert's level lies."""
        return self.index.layers[layer].blocks[level][expert]

    def parts(self, layer: int, level: int) -> tuple[MatrixPart, MatrixPart]:
        """Where both matrices lie within the blocks of a level."""
        return parts(self.index.layers[layer].layer, self.kind, level)

    def read_block(self, layer: int, level: int, expert: int) -> Bytes:
        """The bytes of an expert's level. Raises InputError, naming the offset, when they are not those written."""
        place = self.block(layer, level, expert)
        block = self._read(place)
        if self.kind is ExpertFormat.RESIDUAL:
            try:
                check_multipliers(self.parts(layer, level), level, block)
            except InputError as error:
                raise _Failure(self.path)(place.offset, f"must have sound blocks: {reason(error)}") from None
        return block

    def constants(self, layer: int) -> MoeConstants:
        """The rescalings of a layer. Raises InputError, naming the offset, when they are not sound."""
        entry = self.index.layers[layer]
        block = self._read(entry.constants)
        try:
            return decode_constants(entry.layer, self.kind, entry.sets, block)
        except InputError as error:
            raise _Failure(self.path)(entry.constants.offset, f"must have sound constants: {reason(error)}") from None

    def verify(self) -> None:
        """Read everything once. Raises InputError, naming the offset, for the first block that is damaged."""
        for number, layer in enumerate(self.layers):
            self.constants(number)
            for level in range(len(self.kind.levels)):
                for expert in range(layer.num_experts):
                    self.read_block(number, level, expert)

    def _read(self, block: Block) -> Bytes:
        fail = _Failure(self.path)
        with _reading(self.path) as file:
            try:
                file.seek(block.offset)
                content = np.frombuffer(file.read(block.padded_bytes), dtype=np.uint8)
            except OSError as error:
                raise fail(block.offset, f"must be readable: {error.strerror}") from None
        if len(content) < block.padded_bytes:
            raise fail(block.offset + len(content), f"must have {block.padded_bytes} bytes from {block.offset} on")
        found = crc32c(content[: block.bytes])
        if found != block.crc32c:
            raise fail(block.offset, f"must have the checksum {block.crc32c:08x} of the block there, not {found:08x}")
        if content[block.bytes :].any():
            raise fail(block.offset + block.bytes, "must have zeros behind the block there")
        return content[: block.bytes]


class _Failure:
    """Makes the one-line error about a store."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, offset: int, what: str) -> InputError:
        return InputError(f"store {self._path} {what} (offset {offset}); {_REMEDY}")


def _reading(path: Path) -> BinaryIO:
    try:
        if not path.is_file():
            raise InputError(f"store {path} must be a file, and there is none; run codesign experts pack")
        return path.open("rb")
    except OSError as error:
        raise InputError(f"store {path} must be readable: {error.strerror}; check its permissions") from None
