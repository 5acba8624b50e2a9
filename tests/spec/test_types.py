# SPDX-License-Identifier: Apache-2.0
"""Integer types, requantization parameters, and what a graph refuses."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.errors import InputError
from codesign.spec import INT8, INT16, Constant, ImageSpec, IntType, OpKind, Requant, TensorSpec
from codesign.spec.types import MAX_SHIFT, MULTIPLIER_BITS
from tests.graphs import random_graph

GRAPH = random_graph(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("kind", "low", "high", "text"),
    [
        (INT8, -128, 127, "int8"),
        (IntType(2), -2, 1, "int2"),
        (IntType(16, signed=False), 0, 65535, "uint16"),
        (IntType(64), -(2**63), 2**63 - 1, "int64"),
        (IntType(1, signed=False), 0, 1, "uint1"),
    ],
)
def test_int_type(kind: IntType, low: int, high: int, text: str) -> None:
    assert (kind.min, kind.max, str(kind)) == (low, high, text)


@pytest.mark.parametrize("bits", [0, -1, 65])
def test_int_type_out_of_range(bits: int) -> None:
    with pytest.raises(InputError, match=r"bit_width must be in 1\.\.64"):
        IntType(bits)


@given(st.floats(2.0**-40, 2.0**14))
def test_of_scale_is_close_and_normalised(scale: float) -> None:
    rq = Requant.of_scale(scale, INT8)
    ((m,), (s,)) = rq.multiplier, rq.shift
    assert 1 << (MULTIPLIER_BITS - 1) <= m < 1 << MULTIPLIER_BITS
    assert abs(m * 2.0**-s / scale - 1) <= 2.0**-MULTIPLIER_BITS


def test_of_scale_rounds_up_to_the_next_power_of_two() -> None:
    assert Requant.of_scale(math.nextafter(1.0, 0.0), INT8) == Requant.of_scale(1.0, INT8)


@pytest.mark.parametrize("scale", [0.0, 2.0**-60])
def test_of_scale_of_nothing_is_zero(scale: float) -> None:
    assert Requant.of_scale(scale, INT8).multiplier == (0,)


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, 2.0**15])
def test_of_scale_refuses(scale: float) -> None:
    with pytest.raises(InputError, match="scale must be"):
        Requant.of_scale(scale, INT8)


@pytest.mark.parametrize(
    ("multiplier", "shift", "message"),
    [
        ((), (), "requant must have as many multipliers as shifts, not 0 and 0"),
        ((1, 2), (3,), "requant must have as many multipliers as shifts, not 2 and 1"),
        ((1 << MULTIPLIER_BITS,), (1,), "multiplier must"),
        ((-1,), (1,), "multiplier must"),
        ((1,), (0,), r"shift must be in 1\.\.62, not 0"),
        ((1,), (MAX_SHIFT + 1,), r"shift must be in 1\.\.62, not 63"),
    ],
)
def test_requant_refuses(multiplier: tuple[int, ...], shift: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Requant(multiplier, shift, INT8)


def test_constant_refuses_wrong_shape_and_range() -> None:
    spec = TensorSpec("c", (2,), INT8, 1.0)
    with pytest.raises(InputError, match=r"constant c must have shape \(2,\), not \(3,\)"):
        Constant(spec, np.zeros(3, dtype=np.int64))
    with pytest.raises(InputError, match=r"constant c must fit int8, not the range 0\.\.128"):
        Constant(spec, np.array([0, 128]))


def test_constant_is_read_only() -> None:
    values = Constant(TensorSpec("c", (2,), INT8, 1.0), np.array([1, 2])).values
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 3


def test_image_geometry() -> None:
    image = ImageSpec(64, 128, 3, 8)
    assert (image.num_patches, image.patch_elements) == (128, 192)


def test_graph_refuses() -> None:
    node = GRAPH.nodes[0]
    with pytest.raises(InputError, match="must carry the parameters of"):
        replace(node, kind=OpKind.ADD)
    with pytest.raises(InputError, match=r"node embed\.add must read tensors computed before it, not 'embed\.patch'"):
        replace(GRAPH, nodes=GRAPH.nodes[1:])
    with pytest.raises(InputError, match=r"must write a new tensor, not 'embed\.patch'"):
        replace(GRAPH, nodes=(node, node))
    with pytest.raises(InputError, match="constants must have distinct names"):
        replace(GRAPH, constants=(*GRAPH.constants, GRAPH.constants[0]))
    with pytest.raises(InputError, match=r"task semseg must end in a tensor of the graph, not 'nowhere'"):
        replace(GRAPH, outputs=(replace(GRAPH.outputs[0], tensor="nowhere"),))


def test_graph_looks_up() -> None:
    assert GRAPH.tasks == ("semseg", "depth")
    assert GRAPH.spec_of("image") is GRAPH.input
    assert GRAPH.spec_of("embed.patch").type == INT16
    assert GRAPH.spec_of("embed.patch.weight") is GRAPH.constant("embed.patch.weight").spec
    with pytest.raises(
        InputError, match=re.escape("task must be one of semseg, depth, not 'edges'; choose one of those")
    ):
        GRAPH.output_of("edges")
    with pytest.raises(InputError, match="constant must be one of the graph's, not 'x'"):
        GRAPH.spec_of("x")


def test_nodes_of_a_task_share_the_trunk() -> None:
    semseg, depth = (GRAPH.nodes_of(t) for t in GRAPH.tasks)
    shared = [n.name for n in semseg if n in depth]
    assert shared[0] == "embed.patch"
    assert shared[-1] == "block1.norm2"
    assert {n.name for n in (*semseg, *depth)} == {n.name for n in GRAPH.nodes}
