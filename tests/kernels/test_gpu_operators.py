# SPDX-License-Identifier: Apache-2.0
"""Every operator of the GPU's kernels, bit for bit against the reference; without a GPU in Triton's interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.engines.cuda_plan import DeviceWeights, run_node
from codesign.errors import InputError
from codesign.kernels.gpu import device as gpu
from codesign.kernels.gpu.ops import MAX_TOKENS
from codesign.spec import INT8, INT16, AttentionParams, IntType, LinearParams, Node, OpKind, Requant, TensorSpec
from tests.gpu import TILES, ops_of
from tests.kernels import operator_cases as cases
from tests.kernels.operator_cases import Case

seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=8)
tiles = st.sampled_from(sorted(TILES))


def check(case: Case, size: str = "large") -> None:
    node, expected = case.expected()
    np.testing.assert_array_equal(run_node(node, case.inputs, DeviceWeights(ops_of(TILES[size]))), expected)


class TestLinear:
    @given(
        st.integers(1, 70), st.integers(1, 200), st.integers(1, 70), st.sampled_from([INT8, INT16]),
        st.sampled_from([1, 2, 8, 128]), tiles, seeds,
    )  # fmt: skip
    @settings(deadline=None, max_examples=20)
    def test_any_shape(
        self, rows: int, inputs: int, outputs: int, out: IntType, limit: int, size: str, seed: int
    ) -> None:
        check(cases.linear(np.random.default_rng(seed), rows, inputs, outputs, out, limit), size)

    @pytest.mark.parametrize("out", [INT8, INT16])
    @pytest.mark.parametrize("shift", [1, 2, 16, 30, 53, 62])
    @pytest.mark.parametrize("multiplier", [0, 1, 32768, 65535])
    def test_ties_and_extremes_of_rounding(self, out: IntType, shift: int, multiplier: int) -> None:
        check(cases.linear_ties(out, shift, multiplier))

    def test_ties_of_small_sums(self) -> None:
        check(cases.linear_small_ties())

    @pytest.mark.parametrize(("low", "high"), [(-128, 127), (-8, 7), (-2, 1)])
    def test_largest_sums_do_not_wrap(self, low: int, high: int) -> None:
        check(cases.linear_extremes(8192, 18, low, high, INT16), "small")

    @pytest.mark.parametrize("outputs", [16, 200])
    def test_many_tiles(self, outputs: int) -> None:
        check(cases.linear(np.random.default_rng(3), 129, 192, outputs, INT8), "small")


class TestElementwise:
    @pytest.mark.parametrize("scale", cases.GELU_SCALES)
    def test_gelu_of_every_word(self, scale: float) -> None:
        check(cases.gelu(cases.EVERY_WORD, scale))

    @given(st.integers(1, 40), st.integers(1, 100), tiles, seeds)
    @few
    def test_gelu_of_any_shape(self, rows: int, columns: int, size: str, seed: int) -> None:
        check(cases.gelu_of_any_shape(np.random.default_rng(seed), rows, columns), size)

    @given(st.integers(1, 40), st.integers(1, 100), st.integers(0, 39), tiles, seeds)
    @few
    def test_add(self, rows: int, columns: int, offset: int, size: str, seed: int) -> None:
        check(cases.add(np.random.default_rng(seed), rows, columns, offset % rows), size)


class TestNorm:
    @given(st.integers(1, 40), st.integers(1, 1023), st.integers(0, 15), st.integers(1, 30), tiles, seeds)
    @few
    def test_any_shape(self, rows: int, dim: int, bits: int, shift: int, size: str, seed: int) -> None:
        check(cases.norm(np.random.default_rng(seed), rows, dim, bits, shift), size)

    @pytest.mark.parametrize("dim", [1, 2, 192, 257, 1023])
    def test_extreme_rows(self, dim: int) -> None:
        for case in cases.norm_extremes(dim):
            check(case)


class TestAttention:
    @given(st.integers(1, 80), st.integers(1, 4), st.integers(1, 80), st.integers(0, 12), tiles, seeds)
    @few
    def test_any_shape(self, tokens: int, heads: int, dim: int, sharp: int, size: str, seed: int) -> None:
        check(cases.attention(np.random.default_rng(seed), tokens, heads, dim, sharp), size)

    def test_every_distance(self) -> None:
        check(cases.attention_distances(1))

    @pytest.mark.parametrize("x", [-128, 127])
    def test_extremes(self, x: int) -> None:
        for case in cases.attention_extremes(x):
            check(case)


class TestRoute:
    @given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 70), st.integers(1, 9), st.booleans(), tiles, seeds)
    @few
    def test_any_shape(
        self, rows: int, dim: int, experts: int, top_k: int, ties: bool, size: str, seed: int
    ) -> None:  # fmt: skip
        check(cases.route(np.random.default_rng(seed), rows, dim, experts, top_k, ties), size)

    def test_far_and_near_logits(self) -> None:
        check(cases.route_far_and_near())


class TestExperts:
    @given(
        st.integers(1, 90), st.integers(1, 70), st.integers(1, 70), st.integers(1, 6), st.sampled_from([1, 7, 127]),
        tiles, seeds,
    )  # fmt: skip
    @settings(deadline=None, max_examples=15)
    def test_any_shape(
        self, rows: int, dim: int, hidden: int, experts: int, limit: int, size: str, seed: int
    ) -> None:  # fmt: skip
        check(cases.experts(np.random.default_rng(seed), rows, dim, hidden, experts, limit), size)

    @pytest.mark.parametrize("slices", [(2, 8, 2), (4, 8, 2), (2, 2, 2), (8, 8, 8), (3, 8, 6)])
    def test_slices(self, slices: tuple[int, ...]) -> None:
        check(cases.experts(np.random.default_rng(slices[0]), 30, 20, 24, 3, 127, slices), "small")

    def test_gates_beyond_one_and_empty_experts(self) -> None:
        check(cases.experts_gates_beyond_one())
        check(cases.experts_unused())

    def test_largest_sums_do_not_wrap(self) -> None:
        """Rows of all ends against weights of all ends, 8,192 inputs in both layers of an expert."""
        inputs = 8192
        case = cases.experts(np.random.default_rng(0), 3, inputs, 2, 2, 127)
        x, gates, w1 = case.inputs[0], case.inputs[1], case.inputs[3]
        x[:], gates[:] = [[-128], [127], [-128]], 32768
        w1[:] = np.array([-128, 127])[None, :, None]
        check(case)


def test_what_the_kernels_cannot_do() -> None:
    weights = DeviceWeights(ops_of())
    x = np.zeros((1, 8193), dtype=np.int64)
    node = Node("node", OpKind.LINEAR, ("x", "w", "b"), TensorSpec("node", (1, 1), INT8, 1.0), LinearParams(
        Requant.of_scale(1.0, INT8)))  # fmt: skip
    with pytest.raises(InputError, match=r"inputs of w must be in 1\.\.8192, not 8193; split the layer"):
        run_node(node, [x, x, np.zeros(1, dtype=np.int64)], weights)
    one = np.full((1, 1), 128)
    with pytest.raises(InputError, match=r"input x must fit int8, not the range 0\.\.128"):
        run_node(node, [one, one - 1, np.zeros(1, dtype=np.int64)], weights)
    with pytest.raises(InputError, match=r"input x must be integers of shape \(1, 1\), not float64"):
        run_node(node, [one * 1.0, one - 1, np.zeros(1, dtype=np.int64)], weights)
    long = weights.ops.device.tensor(np.zeros((MAX_TOKENS + 1, 1), dtype=np.int8))
    params = AttentionParams(1, 1, Requant.of_scale(1.0, INT16), Requant.of_scale(1.0, INT8))
    with pytest.raises(InputError, match="attention must have at most 131072 tokens on a GPU, not 131073; divide"):
        weights.ops.attention(long, long, long, params)


class TestDevice:
    def test_neither_a_device_nor_the_interpreter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(gpu.INTERPRET, raising=False)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        with pytest.raises(InputError) as caught:
            gpu.open_device()
        assert "must have a CUDA device, and torch 2" in str(caught.value)
        assert "run on a machine with an NVIDIA GPU" in str(caught.value)
        assert "or set TRITON_INTERPRET=1" in str(caught.value)

    @pytest.mark.parametrize("package", ["torch", "triton"])
    def test_missing_packages(self, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
        found = gpu.importlib.util.find_spec
        monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None if name == package else found(name))
        with pytest.raises(InputError, match=rf"torch and triton, and {package} is missing; pip install codesign\[gpu"):
            gpu.open_device()

    def test_a_setting_that_changes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.get_device_name", lambda: "some device")
        monkeypatch.setenv(gpu.INTERPRET, "0" if ops_of().device.interpreted else "1")
        with pytest.raises(InputError, match="TRITON_INTERPRET must be set before Triton is imported, and stay"):
            gpu.open_device()
