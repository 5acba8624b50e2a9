# SPDX-License-Identifier: Apache-2.0
"""Buffers to tensors and back, and the first difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.emit.manifest import BufferTensor, TensorKind
from codesign.engines.compare import decode, decode_queues, encode, first_difference, queues_of
from codesign.errors import CheckError


def matrix(
    offset: int = 0, rows: int = 3, columns: int = 5, row_elements: int = 8, dtype: str = "int16"
) -> BufferTensor:
    return BufferTensor(
        tensor="y", kind=TensorKind.MATRIX, offset=offset,
        first_row=0, rows=rows, columns=columns, row_elements=row_elements,
        dtype=dtype, scale=1.0, instruction=0,
    )  # fmt: skip


def queue(rows: int, columns: int) -> BufferTensor:
    return BufferTensor(
        tensor="gates", kind=TensorKind.QUEUE, offset=16, first_row=0, rows=rows, columns=columns,
        row_elements=rows + 1, dtype="uint16", scale=1.0, instruction=0,
    )  # fmt: skip


@given(st.integers(0, 2**32 - 1), st.sampled_from(["int8", "int16"]), st.integers(0, 40))
def test_matrix_round_trip(seed: int, dtype: str, offset: int) -> None:
    at = matrix(offset=offset, dtype=dtype)
    info = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(info.min, info.max, (3, 5), endpoint=True)
    assert np.array_equal(decode(encode((at,), {"y": values}, 200), at), values)


def test_decode_is_little_endian_and_skips_padding() -> None:
    raw = bytes([1, 0, 255, 255, 9, 9, 9, 9, 0, 128, 255, 127, 9, 9, 9, 9])
    assert decode(raw, matrix(rows=2, columns=2, row_elements=4)).tolist() == [[1, -1], [-32768, 32767]]


def test_queues_hold_counts_then_tokens_with_gates() -> None:
    gates = np.array([[0, 700], [5, 0], [32768, 1]])
    assert queues_of(gates, 4).tolist() == [[2, 1 | 5 << 16, 2 | 32768 << 16, 0], [2, 0 | 700 << 16, 2 | 1 << 16, 0]]


def test_what_lies_beyond_a_queue_may_be_anything() -> None:
    gates = np.array([[0, 700], [5, 0], [3, 1]])
    at = queue(3, 2)
    buffer = bytearray(encode((at,), {"gates": gates}, 64))
    assert first_difference("t", 0, bytes(buffer), (at,), {"gates": gates}) is None
    buffer[16 + 3 * 4] = 77  # expert 0 holds two entries; this is where a third would be
    assert first_difference("t", 0, bytes(buffer), (at,), {"gates": gates}) is None
    buffer[16 + 2 * 4] ^= 1
    found = first_difference("t", 0, bytes(buffer), (at,), {"gates": gates})
    assert found is not None
    assert (found.tensor, found.index) == ("gates", (0, 2))
    assert decode_queues(bytes(buffer), at)[0, 2] == found.found


def test_first_difference_names_tensor_index_and_values() -> None:
    at, values = matrix(), np.arange(15).reshape(3, 5)
    buffer = bytearray(encode((at,), {"y": values}, 48))
    buffer[(1 * 8 + 3) * 2] ^= 4
    buffer[(2 * 8 + 0) * 2] ^= 4
    found = first_difference("semseg", 6, bytes(buffer), (at,), {"y": values})
    assert str(found) == "task semseg, image 6: y[1, 3] must be 8, not 12"


def test_every_element_counts() -> None:
    at, values = matrix(), np.zeros((3, 5), dtype=np.int64)
    clean = encode((at,), {"y": values}, 48)
    for byte in range(48):
        buffer = bytearray(clean)
        buffer[byte] ^= 1
        meaningful = (byte // 2) % 8 < 5
        assert (first_difference("t", 0, bytes(buffer), (at,), {"y": values}) is not None) == meaningful


def test_short_buffer() -> None:
    with pytest.raises(CheckError, match=r"output buffer must hold y up to byte 48, not end at 40"):
        decode(bytes(40), matrix())
