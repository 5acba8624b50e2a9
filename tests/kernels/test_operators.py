# SPDX-License-Identifier: Apache-2.0
"""Every operator of every variant that this processor runs, bit for bit against the reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.engines.cpu_plan import run_node
from codesign.errors import InputError
from codesign.kernels.native import Variant, variants
from codesign.reference import OPERATORS
from codesign.spec import (
    INT8,
    INT16,
    UINT16,
    AddParams,
    AttentionParams,
    ExpertsParams,
    GeluParams,
    IntType,
    LinearParams,
    Node,
    NormParams,
    OpKind,
    OpParams,
    Requant,
    RouteParams,
    TensorSpec,
)

VARIANTS = variants()
Ints = npt.NDArray[np.int64]
seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=25)


def check(kind: OpKind, params: OpParams, out: IntType, inputs: list[Ints], variant: Variant, threads: int = 1) -> None:
    names = tuple(f"input{i}" for i in range(len(inputs)))
    probe = Node("node", kind, names, TensorSpec("node", (0,), out, 1.0), params)
    expected = OPERATORS[kind](probe, inputs)
    node = Node("node", kind, names, TensorSpec("node", expected.shape, out, 1.0), params)
    np.testing.assert_array_equal(run_node(node, inputs, variant, threads), expected)


def requant(rng: np.random.Generator, channels: int, peak: float, out: IntType) -> Requant:
    """Factors that take `peak` to about the ends of the type, each its own."""
    factors = out.max / max(peak, 1.0) * rng.uniform(0.3, 3.0, channels)
    return Requant.of_scale([float(v) for v in factors], out)


@pytest.mark.parametrize("variant", VARIANTS)
class TestLinear:
    @given(st.integers(1, 70), st.integers(1, 200), st.integers(1, 70), st.sampled_from([INT8, INT16]), seeds)
    @few
    def test_any_shape(self, variant: Variant, rows: int, inputs: int, outputs: int, out: IntType, seed: int) -> None:
        rng = np.random.default_rng(seed)
        x, w = rng.integers(-128, 128, (rows, inputs)), rng.integers(-128, 128, (outputs, inputs))
        bias = rng.integers(-9999, 9999, outputs)
        rq = requant(rng, int(rng.choice([1, outputs])), inputs**0.5 * 5500, out)
        check(OpKind.LINEAR, LinearParams(rq), out, [x, w, bias], variant, threads=1 + seed % 3)

    @pytest.mark.parametrize("out", [INT8, INT16])
    @pytest.mark.parametrize("shift", [1, 2, 15, 16, 30, 45, 53, 54, 62])
    @pytest.mark.parametrize("multiplier", [0, 1, 32768, 65535])
    def test_ties_and_extremes_of_rounding(self, variant: Variant, out: IntType, shift: int, multiplier: int) -> None:
        """Sums around every tie of the rescaling that lies in the range, and around the ends of 24 and 32 bits."""
        half = 1 << (shift - 1)
        ties = [
            (k * (1 << shift) - half) // max(multiplier, 1) for k in (-32769, -129, -128, -1, 0, 1, 2, 127, 128, 32767)
        ]
        ends = [s * 2**b for b in (0, 15, 16, 22, 23, 24, 25, 30, 31) for s in (-1, 1)]
        near = {c + d for c in (*ties, *ends) for d in (-2, -1, 0, 1, 2)}
        reach = 2**31 - 1 - 128 * 2
        bias = np.array(sorted({int(np.clip(v, -reach, reach)) for v in near}), dtype=np.int64)
        x, w = np.array([[0], [1], [-1]]), np.ones((len(bias), 1), dtype=np.int64)
        rq = Requant((multiplier,), (shift,), out)
        check(OpKind.LINEAR, LinearParams(rq), out, [x, w, bias], variant)

    def test_ties_of_small_sums(self, variant: Variant) -> None:
        """Sums below 2^24, where single precision does: ties of many factors, and their neighbours."""
        rng = np.random.default_rng(5)
        bias, multipliers, shifts = [], [], []
        for _ in range(4000):
            m, s = int(rng.integers(2**15, 2**16)), int(rng.integers(17, 38))
            k = int(rng.integers(-130, 131))
            tie = (k * (1 << s) - (1 << (s - 1))) // m
            if abs(tie) < 2**24 - 300:
                bias.append(tie + int(rng.integers(-1, 3)))
                multipliers.append(m)
                shifts.append(s)
        x, w = np.array([[0], [1], [-1]]), np.ones((len(bias), 1), dtype=np.int64)
        rq = Requant(tuple(multipliers), tuple(shifts), INT8)
        check(OpKind.LINEAR, LinearParams(rq), INT8, [x, w, np.array(bias)], variant)

    @pytest.mark.parametrize("threads", [1, 2, 3])
    @pytest.mark.parametrize("outputs", [16, 48, 200])
    def test_threads(self, variant: Variant, threads: int, outputs: int) -> None:
        rng = np.random.default_rng(threads)
        x, w = rng.integers(-128, 128, (129, 192)), rng.integers(-128, 128, (outputs, 192))
        rq = requant(rng, outputs, 76000, INT8)
        check(OpKind.LINEAR, LinearParams(rq), INT8, [x, w, np.zeros(outputs, dtype=np.int64)], variant, threads)


@pytest.mark.parametrize("variant", VARIANTS)
class TestElementwise:
    @pytest.mark.parametrize("scale", [2.0**-8, 0.0312, 127 / 32767, 2.0**-20, 1.7, 30000.0])
    def test_gelu_of_every_word(self, variant: Variant, scale: float) -> None:
        u = np.arange(-(2**15), 2**15).reshape(256, 256)
        check(OpKind.GELU, GeluParams(Requant.of_scale(scale, INT8)), INT8, [u], variant)

    @given(st.integers(1, 40), st.integers(1, 100), seeds)
    @few
    def test_gelu_of_any_shape(self, variant: Variant, rows: int, columns: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        u = rng.integers(-5000, 5000, (rows, columns))
        rq = Requant.of_scale(float(rng.uniform(0.001, 0.1)), INT8)
        check(OpKind.GELU, GeluParams(rq), INT8, [u], variant, threads=1 + seed % 2)

    @given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 39), seeds)
    @few
    def test_add(self, variant: Variant, rows: int, columns: int, offset: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        offset %= rows
        a = rng.integers(-(2**15), 2**15, (rows, columns))
        b = rng.integers(-(2**15), 2**15, (rows - offset, columns))
        check(OpKind.ADD, AddParams(offset), INT16, [a, b], variant, threads=1 + seed % 2)


@pytest.mark.parametrize("variant", VARIANTS)
class TestNorm:
    @given(st.integers(1, 40), st.integers(1, 1023), st.integers(0, 15), st.integers(1, 30), seeds)
    @few
    def test_any_shape(self, variant: Variant, rows: int, dim: int, bits: int, shift: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        x = rng.integers(-(2**bits), 2**bits, (rows, dim)) + rng.integers(-(2**15), 2**15, (rows, 1))
        x = np.clip(x, -(2**15), 2**15 - 1)
        gain = rng.integers(-(2**15), 2**15, dim) >> rng.integers(0, 16)
        bias = rng.integers(-(2**30), 2**30, dim) >> rng.integers(0, 31)
        check(OpKind.NORM, NormParams(shift), INT8, [x, gain, bias], variant, threads=1 + seed % 2)

    @pytest.mark.parametrize("dim", [1, 2, 64, 192, 256, 257, 512, 1023])
    def test_extreme_rows(self, variant: Variant, dim: int) -> None:
        low, high = -(2**15), 2**15 - 1
        x = np.zeros((9, dim), dtype=np.int64)
        x[1], x[2] = low, high  # no variance
        x[3, ::2], x[3, 1::2] = low, high
        x[4], x[4, -1] = low, high
        x[5], x[5, 0] = high, low
        x[6, 0] = 1
        x[7] = np.arange(dim)
        x[8, : dim // 2] = low
        gain = np.where(np.arange(dim) % 2, high, low)
        for bias in (np.zeros(dim, dtype=np.int64), np.full(dim, 2**31 - 1), np.full(dim, -(2**31))):
            for shift in (1, 14, 31, 32, 62):
                check(OpKind.NORM, NormParams(shift), INT8, [x, gain, bias], variant)


@pytest.mark.parametrize("variant", VARIANTS)
class TestAttention:
    @given(st.integers(1, 80), st.integers(1, 4), st.integers(1, 80), st.integers(0, 12), seeds)
    @few
    def test_any_shape(self, variant: Variant, tokens: int, heads: int, dim: int, sharp: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        q, k, v = (rng.integers(-128, 128, (tokens, heads * dim)) for _ in range(3))
        params = AttentionParams(
            heads, dim, Requant.of_scale(2.0**-sharp, INT16), Requant.of_scale(float(rng.uniform(0.001, 0.02)), INT8)
        )
        check(OpKind.ATTENTION, params, INT8, [q, k, v], variant, threads=1 + seed % 3)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_every_distance(self, variant: Variant, sign: int) -> None:
        """Scores 0, 1, 2, ... of one query are all distances from the largest that PROB tells apart, and more."""
        tokens = 2500
        low = np.arange(tokens) % 100
        high = np.arange(tokens) // 100
        k = np.stack([low, high], axis=1)
        q = np.zeros((tokens, 2), dtype=np.int64)
        q[:], q[-1] = (sign, 100 * sign), (0, 0)
        v = np.stack([low - 50, 127 - 5 * high], axis=1)
        params = AttentionParams(1, 2, Requant((1 << 15,), (15,), INT16), Requant.of_scale(0.9 / 256, INT8))
        rows = [q[:40], k, v]
        expected = _attention(rows, params)
        found = _attention(rows, params, variant)
        np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("x", [-128, 127])
    def test_extremes(self, variant: Variant, x: int) -> None:
        q = np.full((70, 64), x)
        q[3:5] = -128
        for scale in (2.0**-12, 1.0, 30000.0):
            params = AttentionParams(1, 64, Requant.of_scale(scale, INT16), Requant.of_scale(1.0, INT8))
            check(OpKind.ATTENTION, params, INT8, [q, q[::-1].copy(), q], variant)


def _attention(rows: list[Ints], params: AttentionParams, variant: Variant | None = None) -> Ints:
    """Queries repeated to as many as there are keys: the operator has one number of tokens."""
    q, k, v = rows
    repeated = np.resize(q, k.shape)
    names = ("q", "k", "v")
    node = Node("node", OpKind.ATTENTION, names, TensorSpec("node", k.shape, INT8, 1.0), params)
    inputs = [repeated, k, v]
    return OPERATORS[OpKind.ATTENTION](node, inputs) if variant is None else run_node(node, inputs, variant)


@pytest.mark.parametrize("variant", VARIANTS)
class TestRoute:
    @given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 70), st.integers(1, 9), st.booleans(), seeds)
    @few
    def test_any_shape(
        self, variant: Variant, rows: int, dim: int, experts: int, top_k: int, ties: bool, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        x, w = rng.integers(-128, 128, (rows, dim)), rng.integers(-128, 128, (experts, dim))
        if ties:
            w = w[rng.integers(0, min(2, experts), experts)]
        bias = np.zeros(experts, dtype=np.int64) if ties else rng.integers(-999, 999, experts)
        rq = Requant.of_scale(float(rng.uniform(0.001, 0.5)), INT16)
        params = RouteParams(min(top_k, experts), rq)
        check(OpKind.ROUTE, params, UINT16, [x, w, bias], variant, threads=1 + seed % 2)

    def test_far_and_near_logits(self, variant: Variant) -> None:
        bias = np.array([32767, 32767, -32768, 32511, 32512, 28672, 28671, 0])
        params = RouteParams(8, Requant((1 << 15,), (15,), INT16))
        x = np.array([[0], [1], [-1]])
        check(OpKind.ROUTE, params, UINT16, [x, np.ones((8, 1), dtype=np.int64), bias], variant)


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
        rng = np.random.default_rng(seed)
        inputs = _expert_inputs(rng, rows, dim, hidden, experts, limit)
        check(OpKind.EXPERTS, _expert_params(rng, dim, hidden, experts, limit), INT16, inputs, variant, 1 + seed % 3)

    @pytest.mark.parametrize("bits", [2, 4, 8])
    def test_slices(self, variant: Variant, bits: int) -> None:
        rng = np.random.default_rng(bits)
        inputs = _expert_inputs(rng, 30, 20, 24, 3, 127)
        params = _expert_params(rng, 20, 24, 3, 127, (bits, 8, bits))
        check(OpKind.EXPERTS, params, INT16, inputs, variant)

    def test_gates_beyond_one_and_empty_experts(self, variant: Variant) -> None:
        rng = np.random.default_rng(1)
        inputs = _expert_inputs(rng, 70, 16, 16, 4, 127)
        gates = inputs[1]
        gates[:, 1] = 0
        gates[:, 2] = [65535, 32769, 32768, 32767, 1, 0, 40000] * 10
        inputs[2][:] = rng.choice([-32768, 32767, 0], inputs[2].shape)
        check(OpKind.EXPERTS, _expert_params(rng, 16, 16, 4, 127), INT16, inputs, variant)
        gates[:] = 0
        check(OpKind.EXPERTS, _expert_params(rng, 16, 16, 4, 127), INT16, inputs, variant, threads=2)


def _expert_inputs(rng: np.random.Generator, rows: int, dim: int, hidden: int, experts: int, limit: int) -> list[Ints]:
    gates = rng.integers(0, 32769, (rows, experts)) * (rng.random((rows, experts)) < 0.4)
    return [
        rng.integers(-128, 128, (rows, dim)),
        gates,
        rng.integers(-(2**15), 2**15, (rows, dim)),
        rng.integers(-limit, limit + 1, (experts, hidden, dim)),
        rng.integers(-500, 500, (experts, hidden)),
        rng.integers(-limit, limit + 1, (experts, dim, hidden)),
        rng.integers(-500, 500, (experts, dim)),
    ]


def _expert_params(
    rng: np.random.Generator, dim: int, hidden: int, experts: int, limit: int, slices: tuple[int, ...] = ()
) -> ExpertsParams:
    fc1 = tuple(
        Requant.of_scale([float(v) for v in rng.uniform(0.2, 1, hidden) * 9 / limit], INT16) for _ in range(experts)
    )
    fc2 = tuple(Requant.of_scale(float(rng.uniform(2, 60) / limit), INT16) for _ in range(experts))
    return ExpertsParams(fc1, Requant.of_scale(0.03, INT8), fc2, slices)


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
