# SPDX-License-Identifier: Apache-2.0
"""Operators on whole nodes, each against an evaluation written another way, and what the runner refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.reference import OPERATORS, run_graph, run_task
from codesign.spec import Graph, Node, OpKind
from tests.graphs import GraphShape, random_graph, random_input

RNG = np.random.default_rng(11)
GRAPH = random_graph(RNG, GraphShape(tokens=13, experts=6, top_k=2))
INPUT = random_input(RNG, GRAPH)
VALUES = run_graph(GRAPH, INPUT)


def first(kind: OpKind, graph: Graph = GRAPH) -> Node:
    return next(n for n in graph.nodes if n.kind is kind)


def operands(node: Node) -> list[np.ndarray]:
    every = VALUES | {c.spec.name: c.values for c in GRAPH.constants}
    return [every[name] for name in node.inputs]


def rq(acc: int, requant: object, channel: int) -> int:
    """Requantization in Python's integers."""
    c = channel if len(requant.multiplier) > 1 else 0
    m, s, out = requant.multiplier[c], requant.shift[c], requant.out_type
    return max(out.min, min(out.max, (acc * m + (1 << (s - 1))) >> s))


def test_linear_element_by_element() -> None:
    node = first(OpKind.LINEAR)
    x, w, b = operands(node)
    for t in range(len(x)):
        for n in range(len(w)):
            acc = sum(int(w[n, k]) * int(x[t, k]) for k in range(x.shape[1])) + int(b[n])
            assert VALUES[node.output.name][t, n] == rq(acc, node.params.requant, n)


def test_norm_element_by_element() -> None:
    node = first(OpKind.NORM)
    x, gain, bias = operands(node)
    from codesign.reference.functions import normalise

    n = normalise(x)
    for t in range(len(x)):
        for c in range(x.shape[1]):
            y = (int(n[t, c]) * int(gain[c]) + int(bias[c]) + (1 << (node.params.shift - 1))) >> node.params.shift
            assert VALUES[node.output.name][t, c] == max(-128, min(127, y))


def test_attention_heads_are_independent() -> None:
    """Changing head 1's values leaves head 0's output alone, and changes its own."""
    node = first(OpKind.ATTENTION)
    q, k, v = operands(node)
    hd = node.params.head_dim
    other = v.copy()
    other[:, hd:] = -other[:, hd:]
    a, b = (OPERATORS[OpKind.ATTENTION](node, [q, k, x]) for x in (v, other))
    assert np.array_equal(a[:, :hd], b[:, :hd])
    assert not np.array_equal(a[:, hd:], b[:, hd:])


def test_attention_does_not_depend_on_the_order_of_keys() -> None:
    node = first(OpKind.ATTENTION)
    q, k, v = operands(node)
    order = np.random.default_rng(0).permutation(len(k))
    assert np.array_equal(
        OPERATORS[OpKind.ATTENTION](node, [q, k, v]), OPERATORS[OpKind.ATTENTION](node, [q, k[order], v[order]])
    )


def test_add_with_offset_leaves_the_first_rows() -> None:
    node = first(OpKind.ADD)
    a, b = operands(node)
    y = VALUES[node.output.name]
    assert np.array_equal(y[0], a[0])
    assert np.array_equal(y[1:], np.clip(a[1:] + b, -(1 << 15), (1 << 15) - 1))


def test_experts_token_by_token() -> None:
    """Expert after expert on queues equals token after token on its own experts, in Python's integers."""
    node = first(OpKind.EXPERTS)
    x, gates, residual, w1, b1, w2, b2 = operands(node)
    from codesign.reference.functions import gelu_fixed

    p = node.params
    for t in range(len(x)):
        row = [int(v) for v in residual[t]]
        for e in np.nonzero(gates[t])[0]:
            u = [rq(int(w1[e, h] @ x[t]) + int(b1[e, h]), p.fc1[e], h) for h in range(w1.shape[1])]
            h = np.array([rq(int(g), p.gelu, 0) for g in gelu_fixed(np.array(u))])
            for d in range(len(row)):
                o = rq(int(w2[e, d] @ h) + int(b2[e, d]), p.fc2[e], d)
                part = (o * int(gates[t, e]) + (1 << 14)) >> 15
                row[d] = max(-(1 << 15), min((1 << 15) - 1, row[d] + max(-(1 << 15), min((1 << 15) - 1, part))))
        assert VALUES[node.output.name][t].tolist() == row


def test_experts_without_tokens_change_nothing() -> None:
    node = first(OpKind.EXPERTS)
    inputs = operands(node)
    assert np.array_equal(OPERATORS[OpKind.EXPERTS](node, [inputs[0], inputs[1] * 0, *inputs[2:]]), inputs[2])


def test_run_task_computes_what_run_graph_does() -> None:
    for task in GRAPH.tasks:
        values = run_task(GRAPH, task, INPUT)
        assert set(values) == {n.output.name for n in GRAPH.nodes_of(task)} | {"image"}
        assert all(np.array_equal(v, VALUES[name]) for name, v in values.items())


def test_inputs_are_not_changed() -> None:
    before = INPUT.copy()
    run_graph(GRAPH, INPUT)
    assert np.array_equal(INPUT, before)


def test_refuses() -> None:
    with pytest.raises(InputError, match=r"input image must be integers of shape \(12, 48\), not float64 \(12, 48\)"):
        run_graph(GRAPH, INPUT.astype(np.float64))
    with pytest.raises(InputError, match=r"input image must be integers of shape \(12, 48\), not int64 \(12, 47\)"):
        run_graph(GRAPH, INPUT[:, :-1])
    with pytest.raises(InputError, match=r"input image must fit int8, not the range -?\d+\.\.200"):
        run_graph(GRAPH, np.where(INPUT.max() == INPUT, 200, INPUT))
    with pytest.raises(InputError, match="task must be one of semseg, depth, not 'x'"):
        run_task(GRAPH, "x", INPUT)
    node = GRAPH.nodes[0]
    wrong = replace(node, output=replace(node.output, shape=(1, 1)))
    with pytest.raises(InputError, match=r"node embed\.patch must compute shape \(1, 1\), not \(12, 16\)"):
        run_graph(replace(GRAPH, nodes=(wrong, *GRAPH.nodes[1:])), INPUT)
