# SPDX-License-Identifier: Apache-2.0
"""Stores whose checksums are right and whose index is not: each field is checked."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.experts.file.blocks import PAGE
from codesign.experts.file.index import HEADER_BYTES
from codesign.experts.file.store import Store
from codesign.spec.moe import ExpertFormat
from tests.experts.stores import SMALL, crc_by_bits, forge_block, make_store, read_all, refused, whole


def forge(path: Path, change: Callable[[dict[str, object]], object], kind: ExpertFormat = ExpertFormat.NESTED) -> None:
    """A store whose index was changed by someone who can compute checksums."""
    content = whole(kind)
    (size,) = struct.unpack("<I", content[12:16])
    index = json.loads(content[24 : 24 + size])
    changed = change(index)
    forge_text(path, json.dumps(index if changed is None else changed).encode(), kind)


def forge_text(path: Path, text: bytes, kind: ExpertFormat = ExpertFormat.NESTED, version: int = 1) -> None:
    content = whole(kind)
    (size,) = struct.unpack("<I", content[12:16])
    start = (HEADER_BYTES + size + PAGE - 1) // PAGE * PAGE
    text = text.ljust(size)
    header = struct.pack("<8sIII", b"CDGNEXPT", version, len(text), crc_by_bits(text))
    header += struct.pack("<I", crc_by_bits(header))
    path.write_bytes((header + text).ljust(start, b"\0") + content[start:])


def test_a_forged_index_that_says_the_same_is_read(tmp_path: Path) -> None:
    forge(tmp_path / "a.experts", lambda index: None)
    read_all(tmp_path / "a.experts")


def layer0(index: dict[str, object]) -> dict[str, object]:
    layers = index["layers"]
    assert isinstance(layers, list)
    return layers[0]


WRONG: dict[str, tuple[Callable[[dict[str, object]], object], str]] = {
    "list": (lambda i: [i], "the index must be an object"),
    "format": (lambda i: i.update(format="int9"), "format must be one of int8, ternary, trits, nested, residual"),
    "format type": (lambda i: i.update(format=8), "format must be text, not 8"),
    "no model": (lambda i: i.pop("model"), "must have the field 'model'"),
    "extra": (lambda i: i.update(more=1), "must not have the field 'more'"),
    "no layers": (lambda i: i.update(layers=[]), "layers must not be empty"),
    "twice": (lambda i: i.update(layers=[layer0(i), layer0(i)]), "layers must have distinct names"),
    "other format": (lambda i: i.update(format="int8"), "sets must be 1, not 3"),
    "float": (lambda i: layer0(i).update(hidden=3.0), "hidden must be an integer in 0..8192, not 3.0"),
    "bool": (lambda i: layer0(i).update(hidden=True), "hidden must be an integer in 0..8192, not True"),
    "negative": (lambda i: layer0(i).update(hidden=-3), "hidden must be an integer in 0..8192, not -3"),
    "zero": (lambda i: layer0(i).update(hidden=0), "hidden of layer layer0.experts must be in"),
    "huge": (lambda i: layer0(i).update(hidden=1 << 40), "hidden must be an integer in 0..8192"),
    "larger": (lambda i: layer0(i).update(hidden=70), "must be"),
    "experts": (lambda i: layer0(i).update(num_experts=3), "must be"),
    "top_k": (lambda i: layer0(i).update(top_k=3), "top_k of layer layer0.experts must be at most num_experts"),
    "activation": (lambda i: layer0(i).update(activation="relu"), "activation must be one of gelu, silu_gated"),
    "gated": (lambda i: layer0(i).update(activation="silu_gated"), "must be"),
    "shift": (lambda i: layer0(i).update(hidden_shift=0), "shift must be in 1..62"),
    "sets": (lambda i: layer0(i).update(sets=2), "sets must be 1 or 3, not 2"),
    "sets less": (lambda i: layer0(i).update(sets=1), "must be"),
    "constants": (lambda i: layer0(i).update(constants=[4096, 1, 2]), r"constants must be 336 bytes at 4096, not 1"),
    "constants size": (lambda i: layer0(i).update(constants=[4096, 336]), "constants must be a list of 3"),
    "crc": (lambda i: layer0(i).update(constants=[4096, 336, 1 << 32]), "must have a checksum of 32 bits"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_indices_are_refused(name: str, tmp_path: Path) -> None:
    change, message = WRONG[name]
    forge(tmp_path / "a.experts", lambda index: change(index) if name == "list" else (change(index), None)[1])
    text = refused(tmp_path / "a.experts")
    assert message in text
    assert "(offset 24)" in text


def blocks_of(index: dict[str, object]) -> list[list[list[int]]]:
    found = layer0(index)["blocks"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b[0].reverse(),  # out of order
        lambda b: b.reverse(),
        lambda b: b[1][0].__setitem__(0, b[0][0][0]),  # one over the other
        lambda b: b[1][0].__setitem__(0, b[1][0][0] + 1),  # not aligned
        lambda b: b[2][1].__setitem__(0, 1 << 60),  # outside
        lambda b: b[2][1].__setitem__(1, 1 << 60),
        lambda b: b[0].append(b[0][0]),
        lambda b: b[0].pop(),
        lambda b: b.__setitem__(0, None),
        lambda b: b[0].__setitem__(0, {}),
        lambda b: b[0].__setitem__(0, [1, "2", 3]),
    ],
)
def test_misplaced_blocks_are_refused(change: Callable[[list[list[list[int]]]], object], tmp_path: Path) -> None:
    def apply(index: dict[str, object]) -> None:
        change(blocks_of(index))

    forge(tmp_path / "a.experts", apply)
    text = refused(tmp_path / "a.experts")
    assert re.search(r"must have a sound index: layers\[0\]\.blocks.* must be .*\(offset 24\)", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"format":"int8","format":"int8","model":"","layers":[]}', "must not name a key twice"),
        (b'{"format":NaN}', "must not be NaN"),
        (b'{"format":', "must have an index of JSON"),
        (b"\xff\xfe", "must have an index of JSON"),
        (b"[" * 300, "must have an index of JSON"),
        (b"", "must have an index of JSON"),
        (b'{"a":' + b"9" * 300 + b"}", "the index must not have the field 'a'"),
    ],
)
def test_texts_that_are_no_index(text: bytes, message: str, tmp_path: Path) -> None:
    forge_text(tmp_path / "a.experts", text)
    assert message in refused(tmp_path / "a.experts")


def test_another_version(tmp_path: Path) -> None:
    forge_text(tmp_path / "a.experts", b"{}", version=2)
    assert "must be of version 1, not 2 (offset 8)" in refused(tmp_path / "a.experts")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 32) - 1])
def test_a_claimed_size_of_the_index(size: int, tmp_path: Path) -> None:
    header = struct.pack("<8sIII", b"CDGNEXPT", 1, size, 0)
    content = header + struct.pack("<I", crc_by_bits(header)) + b"\0" * 5000
    (tmp_path / "a.experts").write_bytes(content)
    assert f"not claim {size} bytes of it in a file of 5024 (offset 12)" in refused(tmp_path / "a.experts")


def test_shifts_and_biases_of_constants_are_checked(tmp_path: Path) -> None:
    for column, value, message in ((slice(-1, None), b"\0", "shifts"), (slice(0, 4), b"\xff\xff\xff\x7f", "biases")):
        store = make_store(tmp_path / "a.experts", ExpertFormat.NESTED, SMALL).store

        def change(block: np.ndarray, column: slice = column, value: bytes = value) -> None:
            block[column] = np.frombuffer(value, dtype=np.uint8)

        forge_block(store.path, (0, -1, 0), change)
        again = Store.open(store.path)
        with pytest.raises(InputError, match=rf"must have sound constants: {message} of layer .*\(offset 4096\)"):
            again.constants(0)
