# SPDX-License-Identifier: Apache-2.0
"""The exact mixture layer: equal to EXPERTS where that says the same, and to a plain loop where it does not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.experts.file.codec import stored_experts
from codesign.experts.file.store import Store
from codesign.experts.pack.fit import FormatChoice
from codesign.experts.pack.mixtures import mixtures
from codesign.experts.pack.pack import pack_graph
from codesign.kernels.layout import OFFSET_INT8, OFFSET_TERNARY
from codesign.reference import OPERATORS, run_graph
from codesign.reference import functions as f
from codesign.reference.functions import Ints
from codesign.reference.moe import choose_widths, dot, integers, matrix_of, moe, silu_fixed
from codesign.reference.tables import SILU_DELTA
from codesign.spec import ExpertsParams, Graph, Node, OpKind
from codesign.spec.moe import Activation, ExpertFormat, WidthPolicy
from codesign.spec.patches import to_patches
from tests.experts.stores import Shape, make_store, random_matrix
from tests.graphs import GraphShape, random_graph

T = 7


def graph_of(ternary: bool) -> tuple[Graph, dict[str, Ints]]:
    """A random graph, and its tensors for one random image."""
    graph = random_graph(np.random.default_rng(5), GraphShape(ternary=ternary, tokens=13, dim=24, expert_hidden=40))
    spec = graph.image
    pixels = np.random.default_rng(6).integers(0, 256, (1, spec.height, spec.width, spec.channels), dtype=np.uint8)
    return graph, run_graph(graph, to_patches(pixels, spec)[0])


def expert_nodes(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.kind is OpKind.EXPERTS]


def inputs_of(graph: Graph, node: Node, values: dict[str, Ints]) -> list[Ints]:
    return [values[n] if n in values else graph.constant(n).values for n in node.inputs]


def random_batch(rng: np.random.Generator, shape: Shape, kind: ExpertFormat) -> tuple[Ints, Ints, Ints, Ints]:
    """x, gates, residual, widths."""
    gates = np.zeros((T, shape.experts), dtype=np.int64)
    for row in gates:
        row[rng.permutation(shape.experts)[: shape.top_k]] = rng.integers(1, 32768, shape.top_k, endpoint=True)
    gates[0] = 0
    x = rng.integers(-128, 127, (T, shape.embed_dim), endpoint=True)
    residual = rng.integers(-32768, 32767, (T, shape.embed_dim), endpoint=True)
    return x, gates, residual, rng.choice(kind.widths, (T, shape.experts)).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "ternary"),
    [
        (ExpertFormat.INT8, False),
        (ExpertFormat.INT8, True),
        (ExpertFormat.TERNARY, True),
        (ExpertFormat.TRITS, True),
        (ExpertFormat.NESTED, False),
    ],
)
def test_equals_experts_of_the_spec(kind: ExpertFormat, ternary: bool, tmp_path: Path) -> None:
    """At every uniform width, with the slices that the width stands for; from a store that was packed of the graph."""
    graph, values = graph_of(ternary)
    pack_graph(graph, FormatChoice(kind), tmp_path / "a.experts")
    store = Store.open(tmp_path / "a.experts")
    found = mixtures(graph)
    assert [m.layer for m in found] == list(store.layers)
    for node in expert_nodes(graph):
        number = next(i for i, m in enumerate(found) if node.name in m.nodes)
        x, gates, residual, *_ = inputs = inputs_of(graph, node, values)
        for width in kind.widths:
            assert isinstance(node.params, ExpertsParams)
            slices = (width,) * gates.shape[1] if kind is ExpertFormat.NESTED else ()
            sliced = replace(node, params=replace(node.params, slices=slices))
            wanted = OPERATORS[OpKind.EXPERTS](sliced, inputs)
            widths = np.full(gates.shape, width, dtype=np.uint8)
            y = moe(
                store.layers[number], kind, store.constants(number), stored_experts(store, number),
                x, gates, residual, widths,
            )  # fmt: skip
            np.testing.assert_array_equal(y, wanted)
            assert not np.array_equal(y, residual)


@pytest.mark.parametrize("activation", Activation)
@pytest.mark.parametrize("kind", ExpertFormat)
def test_equals_a_plain_loop(kind: ExpertFormat, activation: Activation, tmp_path: Path) -> None:
    """Token by token in Python's integers, mixed widths, a rescaling for each width, saturating residual."""
    shape = Shape(embed_dim=135, hidden=10, experts=3, top_k=2, activation=activation)
    made = make_store(tmp_path / "a.experts", kind, (shape,))
    x, gates, residual, widths = random_batch(np.random.default_rng(1), shape, kind)
    store, layer = made.store, made.store.layers[0]
    constants = store.constants(0)
    y = moe(layer, kind, constants, stored_experts(store, 0), x, gates, residual, widths)
    wanted = residual.copy()
    for t in range(T):
        for e in range(shape.experts):
            if gates[t, e] == 0:
                continue
            w = kind.widths.index(int(widths[t, e]))
            first, second = made.matrices[0][e]
            u = [
                plain_rescale(plain_dot(x[t], first, kind, w + 1, n), constants.fc1, w, e, n, 16)
                for n in range(layer.rows1)
            ]
            h = np.array([plain_hidden(u, j, layer.hidden, activation, layer.hidden_requant) for j in range(10)])
            for n in range(shape.embed_dim):
                o = plain_rescale(plain_dot(h, second, kind, w + 1, n), constants.fc2, w, e, n, 16)
                part = clamp((o * int(gates[t, e]) + (1 << 14)) >> 15, 16)
                wanted[t, n] = clamp(int(wanted[t, n]) + part, 16)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(y[0], residual[0])
    assert len(np.unique(y - residual)) > 100


def clamp(value: int, bits: int) -> int:
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, value))


def plain_dot(x: Ints, matrix, kind: ExpertFormat, count: int, n: int) -> int:  # type: ignore[no-untyped-def]
    total = 0
    for k, value in enumerate(int(v) for v in x):
        if kind is ExpertFormat.RESIDUAL:
            g = k // 128
            total += int(matrix.multipliers[0, n, g]) * int(matrix.digits[0][n, k]) * value
            total -= int(matrix.zeros[n, g]) * value
            for p in range(1, count):
                total += int(matrix.multipliers[p, n, g]) * (2 * int(matrix.digits[p][n, k]) - 1) * value
            continue
        code = sum(int(matrix.digits[i][n, k]) << kind.levels[i].position for i in range(count))
        if kind is ExpertFormat.NESTED:
            weight = code + {1: 32, 2: 8, 3: 0}[count] - 128
        else:
            weight = code - {ExpertFormat.INT8: 128}.get(kind, 1)
        total += weight * value
    return total


def plain_rescale(acc: int, by, w: int, e: int, n: int, bits: int) -> int:  # type: ignore[no-untyped-def]
    m, s, b = (int(array[w, e, n]) for array in (by.multiplier, by.shift, by.bias))
    return clamp(((acc + b) * m + (1 << (s - 1))) >> s, bits)


def plain_hidden(u: list[int], j: int, hidden: int, activation: Activation, requant) -> int:  # type: ignore[no-untyped-def]
    if activation is Activation.GELU:
        value = int(f.gelu_fixed(np.array([u[j]]))[0])
    else:
        value = int(silu_fixed(np.array([u[j]]))[0]) * u[hidden + j]
    m, s = requant.multiplier[0], requant.shift[0]
    return clamp((value * m + (1 << (s - 1))) >> s, 8)


# -- SiLU -------------------------------------------------------------------------------------------------------------


def test_silu_follows_its_formula_and_the_real_function() -> None:
    g = np.arange(-(1 << 15), 1 << 15, dtype=np.int64)
    y = silu_fixed(g)
    table = SILU_DELTA.values
    for value in (-32768, -16385, -16384, -16383, -5000, -1309, -1, 0, 1, 64, 1023, 1309, 16383, 16384, 32767):
        a = abs(value)
        i, part = a >> 6, a & 63
        delta = 0 if a >= 16384 else (table[i] * 64 + (table[i + 1] - table[i]) * part + (1 << 9)) >> 10
        assert y[value + 32768] == max(value, 0) - delta
    exact = g / 1024 / (1 + np.exp(-g / 1024)) * 1024
    assert float(np.abs(y - exact).max()) < 0.8  # in units of 2**-10


def test_silu_table() -> None:
    values = SILU_DELTA.values
    assert len(values) == 257
    assert values[-1] == 0
    assert max(values) < 1 << SILU_DELTA.bit_width
    assert values[20] == math.floor(1.25 / (1 + math.exp(1.25)) * 2**14 + 0.5)


# -- formats and widths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 4, 8])
def test_nested_integers_are_the_slices_of_the_spec(width: int) -> None:
    w = np.arange(-128, 128, dtype=np.int64).reshape(2, 128)
    found = integers(matrix_of(w, ExpertFormat.NESTED), ExpertFormat.NESTED, ExpertFormat.NESTED.level_count(width))
    np.testing.assert_array_equal(found, f.slice_planes(w, width))


def test_residual_sums_depend_on_the_width() -> None:
    rng = np.random.default_rng(0)
    matrix = random_matrix(rng, (5, 300), ExpertFormat.RESIDUAL)
    x = rng.integers(-128, 128, (3, 300))
    sums = [dot(x, matrix, ExpertFormat.RESIDUAL, count) for count in (1, 2, 3)]
    assert not np.array_equal(sums[0], sums[1])
    for p in (1, 2):
        assert matrix.multipliers is not None
        a = np.repeat(matrix.multipliers[p], 128, axis=1)[:, :300]
        np.testing.assert_array_equal(sums[p] - sums[p - 1], x @ (a * (2 * matrix.digits[p] - 1)).T)


def test_levels_of_formats() -> None:
    """What docs/edge.md says; the offsets are those of the kernels."""
    assert [kind.widths for kind in ExpertFormat] == [(8,), (2,), (2,), (2, 4, 8), (2, 3, 4)]
    assert ExpertFormat.INT8.offset == ExpertFormat.NESTED.offset == OFFSET_INT8
    assert ExpertFormat.TERNARY.offset == ExpertFormat.TRITS.offset == OFFSET_TERNARY


def test_a_width_that_the_format_has_not(tmp_path: Path) -> None:
    made = make_store(tmp_path / "a.experts", ExpertFormat.NESTED)
    x, gates, residual, widths = random_batch(np.random.default_rng(0), Shape(), ExpertFormat.NESTED)
    with pytest.raises(
        InputError, match=r"width must be one of 2, 4, 8 for nested experts, not 3; choose one of those"
    ):
        moe(
            made.store.layers[0], ExpertFormat.NESTED, made.store.constants(0), stored_experts(made.store, 0),
            x, gates, residual, np.where(widths == 4, 3, widths).astype(np.uint8),
        )  # fmt: skip


def test_weights_that_a_format_does_not_hold() -> None:
    with pytest.raises(InputError, match=r"weights must fit the format ternary, not span -2..1; pack them in another"):
        matrix_of(np.array([[-2, 1]]), ExpertFormat.TERNARY)


# -- the policy -------------------------------------------------------------------------------------------------------


def test_widths_follow_the_share_of_the_largest_gate() -> None:
    gates = np.array([[16000, 8000, 7999, 4000, 3999, 0], [1, 0, 0, 0, 0, 0], [0] * 6])
    found = choose_widths(gates, ExpertFormat.NESTED, WidthPolicy())
    np.testing.assert_array_equal(found, [[8, 8, 4, 4, 2, 0], [8, 0, 0, 0, 0, 0], [0] * 6])
    assert found.dtype == np.uint8
    residual = choose_widths(gates, ExpertFormat.RESIDUAL, WidthPolicy())
    np.testing.assert_array_equal(residual[0], [4, 4, 3, 3, 2, 0])
    for kind in (ExpertFormat.INT8, ExpertFormat.TERNARY):
        np.testing.assert_array_equal(choose_widths(gates, kind, WidthPolicy()), np.where(gates > 0, kind.widths[0], 0))


def test_thresholds_of_the_policy() -> None:
    gates = np.array([[32768, 32767, 1]])
    lowest = WidthPolicy(high=32769, low=32769)
    np.testing.assert_array_equal(choose_widths(gates, ExpertFormat.NESTED, lowest), [[2, 2, 2]])
    np.testing.assert_array_equal(choose_widths(gates, ExpertFormat.NESTED, WidthPolicy(0, 0)), [[8, 8, 8]])
    np.testing.assert_array_equal(choose_widths(gates, ExpertFormat.NESTED, WidthPolicy(32768, 0)), [[8, 4, 4]])
    with pytest.raises(InputError, match=r"thresholds must be 0 <= low <= high <= 1, not 0.5 and 0.25; correct them"):
        WidthPolicy(high=1 << 13, low=1 << 14)
