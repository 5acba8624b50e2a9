# SPDX-License-Identifier: Apache-2.0
"""Small random stores in every format, for tests."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.experts.file.checksum import crc32c
from codesign.experts.file.codec import encode_expert
from codesign.experts.file.store import Store
from codesign.experts.file.writer import ExpertRescaling, LayerSource, PackedExpert, write_store
from codesign.reference.moe import Matrix, matrix_of
from codesign.spec import INT8, Requant
from codesign.spec.moe import GROUP, RESIDUAL_MULTIPLIER_MAX, Activation, ExpertFormat, MoeLayer

TERNARY = (ExpertFormat.TERNARY, ExpertFormat.TRITS)


@dataclass(frozen=True)
class Shape:
    """Of a random layer."""

    embed_dim: int = 40
    hidden: int = 24
    experts: int = 3
    top_k: int = 2
    activation: Activation = Activation.GELU


def layer_of(shape: Shape, name: str = "layer0.experts") -> MoeLayer:
    gated = shape.activation is Activation.SILU_GATED
    requant = Requant.of_scale(2.0 ** -(14 if gated else 5), INT8)
    return MoeLayer(name, shape.embed_dim, shape.hidden, shape.experts, shape.top_k, shape.activation, requant)


def random_matrix(rng: np.random.Generator, shape: tuple[int, int], kind: ExpertFormat) -> Matrix:
    if kind is not ExpertFormat.RESIDUAL:
        low, high = (-1, 1) if kind in TERNARY else (-128, 127)
        return matrix_of(rng.integers(low, high, shape, endpoint=True), kind)
    rows, columns = shape
    groups = -(-columns // GROUP)
    limit = RESIDUAL_MULTIPLIER_MAX
    return Matrix(
        tuple(rng.integers(0, 1 << level.bits, shape) for level in kind.levels),
        rng.integers(-limit, limit, (len(kind.levels), rows, groups), endpoint=True),
        rng.integers(0, 3 * limit, (rows, groups), endpoint=True),
    )


def random_rescaling(
    rng: np.random.Generator, sets: int, shape: tuple[int, int], kind: ExpertFormat
) -> ExpertRescaling:
    """So that most int16 outputs use their range, and few saturate."""
    rows, inputs = shape
    unit = {ExpertFormat.TERNARY: 1, ExpertFormat.TRITS: 1, ExpertFormat.RESIDUAL: 4096}.get(kind, 64)
    requant = Requant.of_scale([float(v) for v in rng.uniform(40, 90, rows) / (unit * inputs**0.5)], INT8)
    size = (sets, rows)
    multiplier, shift = (np.broadcast_to(np.array(v), size).copy() for v in (requant.multiplier, requant.shift))
    return ExpertRescaling(rng.integers(-500 * unit, 500 * unit, size), multiplier, shift)


@dataclass(frozen=True)
class Made:
    """A store, and the matrices that went into it, [layer][expert]."""

    store: Store
    matrices: tuple[tuple[tuple[Matrix, Matrix], ...], ...]


def make_store(
    path: Path, kind: ExpertFormat, shapes: tuple[Shape, ...] = (Shape(),), seed: int = 0, fitted: bool = True
) -> Made:
    """A store of random layers; `fitted`: with rescalings of its own for each width."""
    rng = np.random.default_rng(seed)
    sets = len(kind.widths) if fitted else 1
    layers = [layer_of(shape, f"layer{i}.experts") for i, shape in enumerate(shapes)]
    matrices = tuple(
        tuple(
            (random_matrix(rng, layer.shapes[0], kind), random_matrix(rng, layer.shapes[1], kind))
            for _ in range(layer.num_experts)
        )
        for layer in layers
    )

    def experts(number: int) -> Iterator[PackedExpert]:
        layer = layers[number]
        for w1, w2 in matrices[number]:
            scalings = (random_rescaling(rng, sets, shape, kind) for shape in layer.shapes)
            yield PackedExpert(encode_expert(layer, kind, w1, w2), *scalings)

    sources = [LayerSource(layer, sets, lambda i=i: experts(i)) for i, layer in enumerate(layers)]
    write_store(path, kind, "random", sources)
    return Made(Store.open(path), matrices)


SMALL = (Shape(embed_dim=5, hidden=3, experts=2),)


def crc_by_bits(data: bytes) -> int:
    """CRC-32C as its definition has it: one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@cache
def whole(kind: ExpertFormat) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.experts"
        make_store(path, kind, SMALL)
        return path.read_bytes()


def read_all(path: Path) -> None:
    Store.open(path).verify()


def refused(path: Path) -> str:
    """The error of reading all of a file: one line that names file and offset."""
    with pytest.raises(InputError) as caught:
        read_all(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def forge_block(path: Path, key: tuple[int, int, int], change: Callable[[np.ndarray], object]) -> None:
    """Change the block of (layer, level, expert), or a layer's constants (level -1), with checksums that are right."""
    content = bytearray(path.read_bytes())
    (size,) = struct.unpack("<I", content[12:16])
    index = json.loads(content[24 : 24 + size])
    layer, level, expert = key
    entry = index["layers"][layer]
    place = entry["constants"] if level < 0 else entry["blocks"][level][expert]
    block = np.frombuffer(content, dtype=np.uint8, count=place[1], offset=place[0]).copy()
    change(block)
    place[2] = crc32c(block)
    content[place[0] : place[0] + place[1]] = block.tobytes()
    text = json.dumps(index, separators=(",", ":")).encode().ljust(size)
    assert len(text) == size, "a checksum with more digits than the one before"
    header = struct.pack("<8sIII", b"CDGNEXPT", 1, size, crc32c(np.frombuffer(text, dtype=np.uint8)))
    content[: 24 + size] = header + struct.pack("<I", crc32c(np.frombuffer(header, dtype=np.uint8))) + text
    path.write_bytes(content)
