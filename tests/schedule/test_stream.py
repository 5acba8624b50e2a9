# SPDX-License-Identifier: Apache-2.0
"""Blocks: bit planes, records, stripes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.schedule import MachineSize, striped, unstriped
from codesign.schedule.isa import PLANES, WeightFormat
from codesign.schedule.stream import MemoryImage, dense, pack_tile, weight_format
from codesign.spec import INT16, Requant

SIZES = (
    MachineSize(16, 16, 1, 64, 64, 9, 1, 4, 24, 32, 64, 32),
    MachineSize(32, 16, 4, 64, 64, 9, 1, 4, 24, 32, 64, 32),
    MachineSize(64, 48, 4, 64, 64, 9, 1, 4, 24, 48, 64, 32),
)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s.simd}x{s.pe}")
@pytest.mark.parametrize("form", list(WeightFormat))
def test_planes_rebuild_the_weights(size: MachineSize, form: WeightFormat) -> None:
    planes = PLANES[form]
    limit = 1 << (planes - 1)
    tile = np.random.default_rng(3).integers(-limit, limit, (size.pe, size.simd))
    data = pack_tile(tile, planes)
    assert len(data) == planes * size.block_bytes
    bits = np.unpackbits(np.frombuffer(data, np.uint8).reshape(planes, -1), axis=1, bitorder="little").astype(np.int64)
    weights = -bits[0] * limit + sum(bits[i] << (planes - 1 - i) for i in range(1, planes))
    assert np.array_equal(weights.reshape(tile.shape), tile)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s.simd}x{s.pe}")
def test_a_dense_stream_has_the_blocks_that_a_machine_expects(size: MachineSize) -> None:
    weight = np.random.default_rng(4).integers(-127, 128, (50, 70))
    bias = np.arange(50, dtype=np.int64) - 25
    data = dense(weight, bias, Requant((40000,), (20,), INT16), WeightFormat.INT8, size)
    n_tiles, k_words = -(-50 // size.pe), -(-70 // size.simd)
    assert len(data) == size.dense_blocks(n_tiles, k_words, 8) * size.block_bytes
    first = np.frombuffer(data, "<u8", size.pe)
    assert np.array_equal((first & 0xFFFFFFFF).astype(np.uint32).astype(np.int32), bias[: size.pe])
    assert set(first >> 48) == {20}


@pytest.mark.parametrize(
    ("low", "high", "form"),
    [
        (-1, 1, WeightFormat.INT2),
        (-2, 1, WeightFormat.INT2),
        (-1, 2, WeightFormat.INT4),
        (-8, 7, WeightFormat.INT4),
        (-9, 0, WeightFormat.INT8),
        (0, 127, WeightFormat.INT8),
    ],
)
def test_weights_rest_in_the_fewest_planes(low: int, high: int, form: WeightFormat) -> None:
    assert weight_format(np.array([0, low]), np.array([high, 0])) is form


@given(st.integers(1, 5), st.sampled_from([1, 2, 4]))
def test_stripes_are_undone(lines: int, ports: int) -> None:
    data = np.random.default_rng(lines).bytes(lines * ports * 16)
    dram = striped(data, ports)
    assert unstriped(dram, ports) == data
    stripe = len(data) // ports
    for line in range(lines):
        for port in range(ports):
            beat = (line * ports + port) * 16
            assert dram[port * stripe + line * 16 :][:16] == data[beat : beat + 16]


def test_equal_streams_are_stored_once() -> None:
    image = MemoryImage(64, 1)
    assert [image.add(b"a" * 65), image.add(b"b"), image.add(b"a" * 65)] == [0, 2, 0]
    assert len(image.to_bytes()) == 3 * 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"simd": 48}, r"simd must be 16, 32 or 64 and pe a multiple of 16 up to simd, not simd=48 pe=16"),
        ({"pe": 24}, r"pe a multiple of 16 up to simd, not simd=32 pe=24"),
        ({"ports": 3}, r"ports must be 1, 2 or 4 and divide the 4 beats of a block, not 3"),
        ({"fifo_blocks": 48}, r"fifo_blocks must be a power of two from 32, not 48"),
        ({"act_words": 70000}, r"act_words must fit 16 address bits, not 70000 words"),
        ({"max_rows": 20000}, r"expert queues must fit 16 address bits, not 80004 words; tile over fewer tokens"),
    ],
)
def test_impossible_machines_are_refused(change: dict[str, int], message: str) -> None:
    good = MachineSize(32, 16, 4, 64, 64, 9, 1, 4, 24, 32, 64, 32)
    with pytest.raises(InputError, match=message):
        replace(good, **change)
