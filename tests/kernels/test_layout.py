# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.kernels.layout import CELL_BITS, codes_of, pack_codes, unpack_codes


@given(st.sampled_from(CELL_BITS), st.integers(1, 40), st.integers(1, 140), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_packing_and_unpacking(bits: int, outputs: int, inputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 1 << bits, (outputs, inputs), dtype=np.uint8)
    cells = pack_codes(codes, bits, 0)
    assert cells.shape == (-(-outputs // 16), -(-inputs // 64) * 16, 8 * bits)
    np.testing.assert_array_equal(unpack_codes(cells, bits, outputs, inputs), codes)


@pytest.mark.parametrize("bits", CELL_BITS)
def test_where_each_code_lies(bits: int) -> None:
    """Byte j of a cell holds, from its low end, codes j, j + 8b, ...; code 4n + k is of output n and input k."""
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 1 << bits, (33, 70), dtype=np.uint8)
    cells = pack_codes(codes, bits, 1)
    assert cells.shape == (3, 32, 8 * bits)
    for n in range(48):
        for k in range(128):
            position = 4 * (n % 16) + k % 4
            byte = int(cells[n // 16, k // 4, position % (8 * bits)])
            found = byte >> (position // (8 * bits) * bits) & ((1 << bits) - 1)
            assert found == (codes[n, k] if n < 33 and k < 70 else 1)


def test_a_ternary_cell_is_sixteen_bytes() -> None:
    weight = np.array([[-1, 0, 1, 0]], dtype=np.int8)
    cells = pack_codes(codes_of(weight, 1), 2, 1)
    assert cells.shape == (1, 16, 16)
    assert cells[0, 0].tolist() == [0b01010100, 0b01010101, 0b01010110, *[0b01010101] * 13]
    assert unpack_codes(cells, 2, 1, 4).tolist() == [[0, 1, 2, 1]]


def test_codes_of_int8() -> None:
    assert codes_of(np.array([[-128, 0, 127]], dtype=np.int8)).tolist() == [[0, 128, 255]]
    with pytest.raises(InputError, match=r"weights must lie in -1\.\.254 for codes of offset 1, not -2\.\.0"):
        codes_of(np.array([[-2, 0]], dtype=np.int8), 1)


def test_what_cannot_be_packed() -> None:
    codes = np.full((2, 3), 3, dtype=np.uint8)
    with pytest.raises(InputError, match="bits must be one of 1, 2, 4, 8, not 3"):
        pack_codes(codes, 3, 0)
    with pytest.raises(InputError, match="codes and padding must fit 1 bits, not 3 and 0"):
        pack_codes(codes, 1, 0)
    with pytest.raises(InputError, match="codes and padding must fit 2 bits, not 3 and -1"):
        pack_codes(codes, 2, -1)
    with pytest.raises(InputError, match=r"weights must have outputs and 1\.\.8192 inputs, not \[2, 8193\]"):
        pack_codes(np.zeros((2, 8193), dtype=np.uint8), 8, 0)
    with pytest.raises(InputError, match="codes must be a uint8 matrix, not int64"):
        pack_codes(codes.astype(np.int64), 8, 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"cells must be uint8 \[1, 16, 8 \* bits\]"):
        unpack_codes(np.zeros((1, 16, 32), dtype=np.uint8), 2, 2, 3)
