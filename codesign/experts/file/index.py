# SPDX-License-Identifier: Apache-2.0
"""The header and the JSON index of a store: written in one way, and checked field by field when read.

A store's places follow from its shapes, so the index may only name those: nothing can overlap, or lie outside.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from codesign.errors import InputError
from codesign.experts.file.blocks import PAGE, block_bytes, constants_bytes
from codesign.experts.file.checksum import crc32c
from codesign.kernels.layout import padded
from codesign.spec.moe import Activation, ExpertFormat, MoeLayer
from codesign.spec.types import INT8, Requant

MAGIC = b"CDGNEXPT"
VERSION = 1
HEADER_BYTES = 24
MAX_INDEX_BYTES = 1 << 28
MAX_EXPERTS = 1 << 12
MAX_SIZE = 1 << 13
_CHECKED = struct.Struct("<8sIII")

Fail = Callable[[int, str], InputError]
"""(offset, what must hold and what was found) to the error that names the file."""


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the file: `bytes` of it from `offset` on, with their checksum; zeros follow to the next page."""

    offset: int
    bytes: int
    crc32c: int

    @property
    def padded_bytes(self) -> int:
        """With the zeros: what a direct read takes."""
        return padded(self.bytes, PAGE)


@dataclass(frozen=True)
class LayerIndex:
    """One layer of the index. `sets` rescalings an expert; `blocks[level][expert]`."""

    layer: MoeLayer
    sets: int
    constants: Block
    blocks: tuple[tuple[Block, ...], ...]


@dataclass(frozen=True)
class Index:
    """What a store holds, and where."""

    kind: ExpertFormat
    model: str
    layers: tuple[LayerIndex, ...]

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        last = self.layers[-1].blocks[-1][-1]
        return last.offset + last.padded_bytes


def places(kind: ExpertFormat, layers: tuple[tuple[MoeLayer, int], ...], start: int) -> Iterator[LayerIndex]:
    """Where everything lies when the first block is at `start`: checksums are 0. `layers`: with their `sets`."""
    at = start

    def take(size: int) -> Block:
        nonlocal at
        block = Block(at, size, 0)
        at += block.padded_bytes
        return block

    for layer, sets in layers:
        constants = take(constants_bytes(layer, sets))
        sizes = [block_bytes(layer, kind, level) for level in range(len(kind.levels))]
        yield LayerIndex(
            layer, sets, constants, tuple(tuple(take(size) for _ in range(layer.num_experts)) for size in sizes)
        )


# -- writing ---------------------------------------------------------------------------------------------------------


def encode_index(index: Index) -> bytes:
    """The JSON text."""
    content = {
        "format": index.kind.value,
        "model": index.model,
        "layers": [
            {
                "name": entry.layer.name,
                "embed_dim": entry.layer.embed_dim,
                "hidden": entry.layer.hidden,
                "num_experts": entry.layer.num_experts,
                "top_k": entry.layer.top_k,
                "activation": entry.layer.activation.value,
                "hidden_multiplier": entry.layer.hidden_requant.multiplier[0],
                "hidden_shift": entry.layer.hidden_requant.shift[0],
                "sets": entry.sets,
                "constants": _encode_block(entry.constants),
                "blocks": [[_encode_block(block) for block in level] for level in entry.blocks],
            }
            for entry in index.layers
        ],
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _encode_block(block: Block) -> list[int]:
    return [block.offset, block.bytes, block.crc32c]


def encode_header(text: bytes) -> bytes:
    """The 24 bytes before an index."""
    checked = _CHECKED.pack(MAGIC, VERSION, len(text), _sum(text))
    return checked + struct.pack("<I", _sum(checked))


def _sum(content: bytes) -> int:
    return crc32c(np.frombuffer(content, dtype=np.uint8))


# -- reading ---------------------------------------------------------------------------------------------------------


def decode_header(header: bytes, file_bytes: int, fail: Fail) -> int:
    """Bytes of the index. Raises what `fail` makes when the file is no store of this version."""
    if header[:8] != MAGIC:
        raise fail(0, f"must begin with {MAGIC.decode()}, not {header[:8]!r}")
    if len(header) < HEADER_BYTES:
        raise fail(len(header), f"must have a header of {HEADER_BYTES} bytes, not end after {len(header)}")
    _, version, size, _ = _CHECKED.unpack(header[: _CHECKED.size])
    (found,) = struct.unpack("<I", header[_CHECKED.size : HEADER_BYTES])
    if found != _sum(header[: _CHECKED.size]):
        raise fail(20, "must have the checksum of its header")
    if version != VERSION:
        raise fail(8, f"must be of version {VERSION}, not {version}")
    if not 2 <= size <= min(MAX_INDEX_BYTES, file_bytes - HEADER_BYTES):
        raise fail(12, f"must hold its whole index, not claim {size} bytes of it in a file of {file_bytes}")
    return int(size)


def decode_index(header: bytes, text: bytes, fail: Fail) -> Index:
    """The index, with every field checked. Raises what `fail` makes, naming the offset, for anything else."""
    (wanted,) = struct.unpack("<I", header[16:20])
    if _sum(text) != wanted:
        raise fail(HEADER_BYTES, "must have the checksum of its index")
    reader = _Reader(fail)
    try:
        content = json.loads(text.decode(), object_pairs_hook=reader.object_of, parse_constant=reader.refuse)
    except (ValueError, RecursionError):
        raise fail(HEADER_BYTES, "must have an index of JSON") from None
    return reader.index(content, padded(HEADER_BYTES + len(text), PAGE))


def reason(error: InputError) -> str:
    """What an error says, without its remedy."""
    return str(error).split(";")[0]


class _Reader:
    """Reads JSON values as the types that they must have."""

    def __init__(self, fail: Fail) -> None:
        self._fail = fail

    def object_of(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise self._wrong("an object", "must not name a key twice")
        return made

    def refuse(self, name: str) -> object:
        raise self._wrong("a number", f"must not be {name}")

    def index(self, content: object, start: int) -> Index:
        top = self._fields(content, "the index", ("format", "model", "layers"))
        formats = {kind.value: kind for kind in ExpertFormat}
        kind = formats.get(self._text(top["format"], "format"))
        if kind is None:
            raise self._wrong("format", f"must be one of {', '.join(formats)}, not {top['format']!r}")
        entries = self._list(top["layers"], "layers")
        if not entries:
            raise self._wrong("layers", "must not be empty")
        read = [self._layer(entry, f"layers[{i}]") for i, entry in enumerate(entries)]
        names = [layer.name for layer, _, _, _ in read]
        if len(set(names)) != len(names):
            raise self._wrong("layers", "must have distinct names")
        for number, (_, sets, _, _) in enumerate(read):
            if sets not in (1, len(kind.widths)):
                known = " or ".join(map(str, sorted({1, len(kind.widths)})))
                raise self._wrong(f"layers[{number}].sets", f"must be {known}, not {sets}")
        expected = places(kind, tuple((layer, sets) for layer, sets, _, _ in read), start)
        layers = tuple(
            LayerIndex(
                layer, sets, self._block(constants, want.constants, f"layers[{i}].constants"),
                self._blocks(blocks, want.blocks, f"layers[{i}].blocks"),
            )
            for i, ((layer, sets, constants, blocks), want) in enumerate(zip(read, expected, strict=True))
        )  # fmt: skip
        return Index(kind, self._text(top["model"], "model"), layers)

    def _layer(self, content: object, where: str) -> tuple[MoeLayer, int, object, object]:
        numbers = {"embed_dim": MAX_SIZE, "hidden": MAX_SIZE, "num_experts": MAX_EXPERTS, "top_k": MAX_EXPERTS}
        others = {"hidden_multiplier": (1 << 16) - 1, "hidden_shift": 62, "sets": 3}
        keys = ("name", *numbers, "activation", *others, "constants", "blocks")
        entry = self._fields(content, where, keys)
        n = {k: self._number(entry[k], f"{where}.{k}", limit) for k, limit in {**numbers, **others}.items()}
        known = {activation.value: activation for activation in Activation}
        activation = known.get(self._text(entry["activation"], f"{where}.activation"))
        if activation is None:
            raise self._wrong(f"{where}.activation", f"must be one of {', '.join(known)}, not {entry['activation']!r}")
        try:
            layer = MoeLayer(
                self._text(entry["name"], f"{where}.name"), n["embed_dim"], n["hidden"], n["num_experts"], n["top_k"],
                activation, Requant((n["hidden_multiplier"],), (n["hidden_shift"],), INT8),
            )  # fmt: skip
        except InputError as error:
            raise self._wrong(where, reason(error)) from None
        return layer, n["sets"], entry["constants"], entry["blocks"]

    def _blocks(
        self, content: object, want: tuple[tuple[Block, ...], ...], where: str
    ) -> tuple[tuple[Block, ...], ...]:
        levels = self._list(content, where, len(want))
        return tuple(
            tuple(
                self._block(block, place, f"{where}[{i}][{e}]")
                for e, (block, place) in enumerate(
                    zip(self._list(level, f"{where}[{i}]", len(want[i])), want[i], strict=True)
                )
            )
            for i, level in enumerate(levels)
        )

    def _block(self, content: object, want: Block, where: str) -> Block:
        found = [self._number(v, where, (1 << 63) - 1) for v in self._list(content, where, 3)]
        if found[:2] != [want.offset, want.bytes]:
            raise self._wrong(where, f"must be {want.bytes} bytes at {want.offset}, not {found[1]} at {found[0]}")
        if found[2] >> 32:
            raise self._wrong(where, f"must have a checksum of 32 bits, not {found[2]}")
        return Block(want.offset, want.bytes, found[2])

    def _fields(self, content: object, where: str, keys: tuple[str, ...]) -> dict[str, object]:
        if not isinstance(content, dict):
            raise self._wrong(where, f"must be an object, not {_short(content)}")
        for key in sorted(set(keys) ^ content.keys()):
            raise self._wrong(where, f"{'must' if key in keys else 'must not'} have the field {key!r}")
        return content

    def _list(self, content: object, where: str, size: int | None = None) -> list[object]:
        if not isinstance(content, list) or (size is not None and len(content) != size):
            many = "" if size is None else f" of {size}"
            raise self._wrong(where, f"must be a list{many}, not {_short(content)}")
        return content

    def _text(self, content: object, where: str) -> str:
        if not isinstance(content, str):
            raise self._wrong(where, f"must be text, not {_short(content)}")
        return content

    def _number(self, content: object, where: str, limit: int) -> int:
        if type(content) is not int or not 0 <= content <= limit:
            raise self._wrong(where, f"must be an integer in 0..{limit}, not {_short(content)}")
        return content

    def _wrong(self, where: str, what: str) -> InputError:
        return self._fail(HEADER_BYTES, f"must have a sound index: {where} {what}")


def _short(content: object) -> str:
    text = repr(content)
    return text if len(text) <= 40 else text[:37] + "..."
