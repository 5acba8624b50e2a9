# SPDX-License-Identifier: Apache-2.0
"""What is written is read; whatever else a file may hold is refused, with its offset."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.experts.file import writer
from codesign.experts.file.blocks import PAGE
from codesign.experts.file.checksum import crc32c
from codesign.experts.file.codec import stored_experts
from codesign.experts.file.store import Store
from codesign.kernels.native import native
from codesign.spec.moe import Activation, ExpertFormat
from tests.experts.stores import SMALL, Shape, crc_by_bits, make_store, refused, whole

SHAPES = (Shape(), Shape(embed_dim=70, hidden=130, experts=2, activation=Activation.SILU_GATED))


# -- the checksum -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.binary(max_size=100), st.integers(0, 100))
def test_checksum_is_its_definition(data: bytes, cut: int) -> None:
    array, module = np.frombuffer(data, dtype=np.uint8), native()
    wanted = crc_by_bits(data)
    assert crc32c(array) == wanted
    assert module.crc32c_portable(array) == wanted
    assert module.crc32c(array[cut:], module.crc32c(array[:cut])) == wanted


@pytest.mark.parametrize("size", [1359, 1360, 4079, 4080, 4081, 4087, 8160, 8167, 12345])
def test_streams_are_joined(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size + 3, dtype=np.uint8)[3:]
    assert crc32c(data) == crc_by_bits(data.tobytes()) == native().crc32c_portable(data)


def test_published_checksums() -> None:
    """RFC 3720, appendix B.4."""
    for data, wanted in ((b"\0" * 32, 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        assert crc32c(np.frombuffer(data, dtype=np.uint8)) == wanted


# -- what is written is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fitted", [True, False])
@pytest.mark.parametrize("kind", ExpertFormat)
def test_round_trip(kind: ExpertFormat, fitted: bool, tmp_path: Path) -> None:
    made = make_store(tmp_path / "a.experts", kind, SHAPES, fitted=fitted)
    store = made.store
    store.verify()
    assert [layer.name for layer in store.layers] == ["layer0.experts", "layer1.experts"]
    assert store.layer_number("layer1.experts") == 1
    for number, matrices in enumerate(made.matrices):
        experts = stored_experts(store, number)
        for e, pair in enumerate(matrices):
            for found, wanted in zip(experts(e), pair, strict=True):
                np.testing.assert_equal(found.digits, wanted.digits)
                np.testing.assert_equal(found.multipliers, wanted.multipliers)
                np.testing.assert_equal(found.zeros, wanted.zeros)
        constants = store.constants(number)
        assert constants.fc1.bias.shape == (
            len(kind.widths) if fitted else 1,
            store.layers[number].num_experts,
            store.layers[number].rows1,
        )


def test_places(tmp_path: Path) -> None:
    """Blocks are aligned, in the order of levels and experts, without gaps; the file ends with the last one."""
    store = make_store(tmp_path / "a.experts", ExpertFormat.NESTED, SHAPES).store
    at = store.index.layers[0].constants.offset
    for entry in store.index.layers:
        for block in (entry.constants, *(b for level in entry.blocks for b in level)):
            assert block.offset == at
            assert at % PAGE == 0
            at += block.padded_bytes
    assert at == (tmp_path / "a.experts").stat().st_size
    assert store.expert_bytes == sum(
        b.padded_bytes for entry in store.index.layers for level in entry.blocks for b in level
    )


def test_first_bytes_are_as_documented(tmp_path: Path) -> None:
    content = (make_store(tmp_path / "a.experts", ExpertFormat.INT8, SMALL).store.path).read_bytes()
    magic, version, size, index_crc, header_crc = struct.unpack("<8sIIII", content[:24])
    assert (magic, version) == (b"CDGNEXPT", 1)
    assert header_crc == crc_by_bits(content[:20])
    assert index_crc == crc_by_bits(content[24 : 24 + size])
    index = json.loads(content[24 : 24 + size])
    assert index["format"] == "int8"
    offset, count, crc = index["layers"][0]["blocks"][0][1]
    assert crc == crc_by_bits(content[offset : offset + count])


# -- damage -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(ExpertFormat)), st.data())
def test_every_flipped_bit_is_found(kind: ExpertFormat, data: st.DataObject) -> None:
    content = bytearray(whole(kind))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "bad.experts"
        path.write_bytes(content)
        assert "(offset " in refused(path)


def test_every_byte_of_the_index_is_guarded(tmp_path: Path) -> None:
    content = whole(ExpertFormat.NESTED)
    path = tmp_path / "bad.experts"
    for at in range(0, 2 * PAGE, 7):
        bad = bytearray(content)
        bad[at] ^= 0x10
        path.write_bytes(bad)
        refused(path)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(ExpertFormat)), st.data())
def test_every_truncation_is_found(kind: ExpertFormat, data: st.DataObject) -> None:
    content = whole(kind)
    cut = data.draw(st.integers(0, len(content) - 1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "short.experts"
        path.write_bytes(content[:cut])
        assert "(offset " in refused(path)


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.experts"
    path.write_bytes(whole(ExpertFormat.INT8) + b"\0")
    size = len(whole(ExpertFormat.INT8))
    assert f"must have {size} bytes, not {size + 1} (offset {size})" in refused(path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_foreign_files_are_refused(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "foreign.experts"
        path.write_bytes(content)
        assert "(offset " in refused(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a file, and there is none; run codesign experts pack"):
        Store.open(tmp_path / "none.experts")
    with pytest.raises(InputError, match=r"must be a file"):
        Store.open(tmp_path)


def test_a_file_that_vanishes_or_shrinks_afterwards(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.experts", ExpertFormat.INT8, SMALL).store
    block = store.block(0, 0, 1)
    os.truncate(store.path, block.offset + 10)
    with pytest.raises(InputError, match=rf"\(offset {block.offset + 10}\)"):
        store.read_block(0, 0, 1)
    store.path.unlink()
    with pytest.raises(InputError, match="must be a file"):
        store.read_block(0, 0, 0)


def test_the_damaged_block_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.experts", ExpertFormat.NESTED, SMALL).store
    block = store.block(0, 2, 1)
    content = bytearray(store.path.read_bytes())
    content[block.offset + 5] ^= 1
    store.path.write_bytes(content)
    store.read_block(0, 2, 0)
    text = refused(store.path)
    assert re.search(rf"must have the checksum [0-9a-f]{{8}} .* \(offset {block.offset}\); pack it again", text)


# -- writing ----------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    def broken() -> object:
        raise KeyboardInterrupt
        yield

    made = make_store(tmp_path / "a.experts", ExpertFormat.INT8, SMALL)
    before = (tmp_path / "a.experts").read_bytes()
    source = writer.LayerSource(made.store.layers[0], 1, broken)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        writer.write_store(tmp_path / "a.experts", ExpertFormat.INT8, "m", [source])
    assert [p.name for p in tmp_path.iterdir()] == ["a.experts"]
    assert (tmp_path / "a.experts").read_bytes() == before


@pytest.mark.parametrize("step", ["posix_fallocate", "pwrite", "fsync"])
def test_a_full_disk_is_one_line(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(InputError, match=r"a.experts must fit the disk: [0-9,]+ bytes are needed; free space"):
        make_store(tmp_path / "a.experts", ExpertFormat.INT8, SMALL)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be writable: No such file or directory; choose another --out"):
        make_store(tmp_path / "no" / "a.experts", ExpertFormat.INT8, SMALL)
