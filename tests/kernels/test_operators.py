# SPDX-License-Identifier: Apache-2.0
"""Every operator of every variant that this processor runs, bit for bit against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.engines.cpu_plan import run_node
from codesign.errors import InputError
from codesign.kernels.native import Variant, variants
from codesign.spec import INT8, INT16, IntType, LinearParams, Node, OpKind, Requant, TensorSpec
from tests.kernels import operator_cases as cases
from tests.kernels.operator_cases import Case

VARIANTS = variants()
seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=25)


def check(case: Case, variant: Variant, threads: int = 1) -> None:
    node, expected = case.expected()
    np.testing.assert_array_equal(run_node(node, case.inputs, variant, threads), expected)


@pytest.mark.parametrize("variant", VARIANTS)
class TestLinear:
    @given(st.integers(1, 70), st.integers(1, 200), st.integers(1, 70), st.sampled_from([INT8, INT16]), seeds)
    @few
    def test_any_shape(self, variant: Variant, rows: int, inputs: int, outputs: int, out: IntType, seed: int) -> None:
        case = cases.linear(np.random.default_rng(seed), rows, inputs, outputs, out)
        check(case, variant, threads=1 + seed % 3)

    @pytest.mark.parametrize("out", [INT8, INT16])
    @pytest.mark.parametrize("shift", [1, 2, 15, 16, 30, 45, 53, 54, 62])
    @pytest.mark.parametrize("multiplier", [0, 1, 32768, 65535])
    def test_ties_and_extremes_of_rounding(self, variant: Variant, out: IntType, shift: int, multiplier: int) -> None:
        check(cases.linear_ties(out, shift, multiplier), variant)

    def test_ties_of_small_sums(self, variant: Variant) -> None:
        check(cases.linear_small_ties(), variant)

    @pytest.mark.parametrize("threads", [1, 2, 3])
    @pytest.mark.parametrize("outputs", [16, 48, 200])
    def test_threads(self, variant: Variant, threads: int, outputs: int) -> None:
        check(cases.linear(np.random.default_rng(threads), 129, 192, outputs, INT8), variant, threads)


@pytest.mark.parametrize("variant", VARIANTS)
class TestElementwise:
    @pytest.mark.parametrize("scale", cases.GELU_SCALES)
    def test_gelu_of_every_word(self, variant: Variant, scale: float) -> None:
        check(cases.gelu(cases.EVERY_WORD, scale), variant)

    @given(st.integers(1, 40), st.integers(1, 100), seeds)
    @few
    def test_gelu_of_any_shape(self, variant: Variant, rows: int, columns: int, seed: int) -> None:
        check(cases.gelu_of_any_shape(np.random.default_rng(seed), rows, columns), variant, threads=1 + seed % 2)

    @given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 39), seeds)
    @few
    def test_add(self, variant: Variant, rows: int, columns: int, offset: int, seed: int) -> None:
        check(cases.add(np.random.default_rng(seed), rows, columns, offset % rows), variant, threads=1 + seed % 2)


@pytest.mark.parametrize("variant", VARIANTS)
class TestNorm:
    @given(st.integers(1, 40), st.integers(1, 1023), st.integers(0, 15), st.integers(1, 30), seeds)
    @few
    def test_any_shape(self, variant: Variant, rows: int, dim: int, bits: int, shift: int, seed: int) -> None:
        check(cases.norm(np.random.default_rng(seed), rows, dim, bits, shift), variant, threads=1 + seed % 2)

    @pytest.mark.parametrize("dim", [1, 2, 64, 192, 256, 257, 512, 1023])
    def test_extreme_rows(self, variant: Variant, dim: int) -> None:
        for case in cases.norm_extremes(dim):
            check(case, variant)


@pytest.mark.parametrize("variant", VARIANTS)
class TestAttention:
    @given(st.integers(1, 80), st.integers(1, 4), st.integers(1, 80), st.integers(0, 12), seeds)
    @few
    def test_any_shape(self, variant: Variant, tokens: int, heads: int, dim: int, sharp: int, seed: int) -> None:
        case = cases.attention(np.random.default_rng(seed), tokens, heads, dim, sharp)
        check(case, variant, threads=1 + seed % 3)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_every_distance(self, variant: Variant, sign: int) -> None:
        check(cases.attention_distances(sign), variant)

    @pytest.mark.parametrize("x", [-128, 127])
    def test_extremes(self, variant: Variant, x: int) -> None:
        for case in cases.attention_extremes(x):
            check(case, variant)


@pytest.mark.parametrize("variant", VARIANTS)
class TestRoute:
    @given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 70), st.integers(1, 9), st.booleans(), seeds)
    @few
    def test_any_shape(
        self, variant: Variant, rows: int, dim: int, experts: int, top_k: int, ties: bool, seed: int
    ) -> None:
        case = cases.route(np.random.default_rng(seed), rows, dim, experts, top_k, ties)
        check(case, variant, threads=1 + seed % 2)

    def test_far_and_near_logits(self, variant: Variant) -> None:
        check(cases.route_far_and_near(), variant)


@pytest.mark.parametrize("variant", VARIANTS)
class TestExperts:
    @given(
        st.integers(1, 90),
        st.integers(1, 70),
        st.integers(1, 70),
        st.integers(1, 6),
        st.sampled_from([1, 7, 127]),
        seeds,
    )
    @few
    def test_any_shape(
        self, variant: Variant, rows: int, dim: int, hidden: int, experts: int, limit: int, seed: int
    ) -> None:
        case = cases.experts(np.random.default_rng(seed), rows, dim, hidden, experts, limit)
        check(case, variant, threads=1 + seed % 3)

    @pytest.mark.parametrize("bits", [2, 4, 8])
    def test_slices(self, variant: Variant, bits: int) -> None:
        check(cases.experts(np.random.default_rng(bits), 30, 20, 24, 3, 127, (bits, 8, bits)), variant)

    def test_gates_beyond_one_and_empty_experts(self, variant: Variant) -> None:
        check(cases.experts_gates_beyond_one(), variant)
        check(cases.experts_unused(), variant, threads=2)


def test_what_the_kernels_cannot_do() -> None:
    x = np.zeros((1, 8193), dtype=np.int64)
    params = LinearParams(Requant.of_scale(1.0, INT8))
    node = Node("node", OpKind.LINEAR, ("x", "w", "b"), TensorSpec("node", (1, 1), INT8, 1.0), params)
    with pytest.raises(InputError, match=r"inputs of w must be in 1\.\.8192, not 8193; split the layer"):
        run_node(node, [x, x, np.zeros(1, dtype=np.int64)])
    one = np.full((1, 1), 127)
    with pytest.raises(InputError, match="sums of w must fit 32 bits, not reach 2147499903; use smaller weights"):
        run_node(node, [one, one, np.array([2**31 - 1])])
    with pytest.raises(InputError, match=r"threads must be in 1\.\.1024, not 0"):
        run_node(node, [one, one, np.zeros(1, dtype=np.int64)], threads=0)
    with pytest.raises(InputError, match=r"input x must fit int8, not the range 128\.\.128"):
        run_node(node, [one + 1, one, np.zeros(1, dtype=np.int64)])
