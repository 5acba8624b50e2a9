# SPDX-License-Identifier: Apache-2.0
"""The whole reference on a tiny graph with every operator: seconds, and no torch, onnx or HDL tool."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codesign.passes import accumulator_bits, verify
from codesign.reference import TABLES, run_graph
from codesign.reference import functions as f
from codesign.spec import INT8, INT16, Constant, Graph, OpKind, Requant
from codesign.spec.serialize import load_graph, save_graph
from tests.graphs import GraphShape, random_graph, random_input

GOLDEN = "fab389415dd156ab"


def tiny() -> tuple[Graph, np.ndarray]:
    rng = np.random.default_rng(2024)
    graph = random_graph(rng, GraphShape(tokens=7, experts=5, depth=3))
    return graph, random_input(rng, graph)


def digest(values: dict[str, np.ndarray]) -> str:
    """One hash over every tensor's integers, in order of name."""
    state = hashlib.sha256()
    for name in sorted(values):
        state.update(values[name].astype("<i8").tobytes())
    return state.hexdigest()[:16]


def test_every_operator_runs_and_every_tensor_lives() -> None:
    graph, x = tiny()
    verify(graph)
    assert {n.kind for n in graph.nodes} == set(OpKind)
    assert accumulator_bits(graph) <= 32
    values = run_graph(graph, x)
    for node in graph.nodes:
        y = values[node.output.name]
        assert y.shape == node.output.shape
        assert y.min() >= node.output.type.min
        assert y.max() <= node.output.type.max
        assert len(np.unique(y)) > 8, node.name
        saturated = np.mean((y == node.output.type.min) | (y == node.output.type.max))
        assert saturated < 0.1 or node.kind is OpKind.ROUTE, node.name


def test_the_integers_are_pinned() -> None:
    """Any change of a formula, a table or a rounding in the reference changes this hash; no float decides an input."""
    n = np.arange(1 << 16, dtype=np.int64)
    noise = (n * 40503 + 12345) % 65521  # the same on every machine
    x = noise[:64].reshape(4, 16) * 97 % 60001 - 30000
    q, k, v = (noise[i * 64 : i * 64 + 64].reshape(8, 8) % 256 - 128 for i in range(1, 4))
    score, out = Requant((40000,), (19,), INT16), Requant((50000,), (24,), INT8)
    r, e = f.reciprocal(n + 1)
    rr, re = f.rsqrt((n + 1) * (n + 1))
    values = {
        "tables": np.concatenate([t.array for t in TABLES]),
        "gelu": f.gelu_fixed(n - (1 << 15)),
        "exp2": f.exp2_fixed(n),
        "probability": f.probability(n),
        "reciprocal": np.stack([r, e]),
        "rsqrt": np.stack([rr, re]),
        "norm": f.affine(f.normalise(x), x[0] // 7, x[1] * 31, 12),
        "attention": f.attention_head(q, k, v, score, out),
        "gates": f.gates(x // 40, 3),
        "gated": f.gated_add(x, x[::-1].copy(), np.array([0, 1, 20000, 32768])),
    }
    assert digest(values) == GOLDEN


@pytest.mark.parametrize("seed", range(5))
def test_one_weight_bit_is_seen(seed: int) -> None:
    """Flipping the lowest bit of any one int8 weight of the first layer changes its output."""
    graph, x = tiny()
    at = next(i for i, c in enumerate(graph.constants) if c.spec.name == "embed.patch.weight")
    values = graph.constants[at].values.copy()
    rng = np.random.default_rng(seed)
    row, column = rng.integers(values.shape[0]), rng.integers(values.shape[1])
    values[row, column] ^= 1
    new = Constant(graph.constants[at].spec, values)
    constants = (*graph.constants[:at], new, *graph.constants[at + 1 :])
    changed = run_graph(replace(graph, constants=constants), x)
    assert not np.array_equal(changed["embed.patch"][:, row], run_graph(graph, x)["embed.patch"][:, row])


def test_files_give_the_same_integers(tmp_path: Path) -> None:
    graph, x = tiny()
    paths = tmp_path / "graph.json", tmp_path / "graph.safetensors"
    save_graph(graph, *paths)
    assert digest(run_graph(load_graph(*paths), x)) == digest(run_graph(graph, x))


def test_needs_no_heavy_package() -> None:
    """What a board installs: importing spec, reference and passes pulls in none of these."""
    heavy = ("torch", "onnx", "qonnx", "brevitas", "jinja2", "cocotb", "scipy", "pydantic")
    code = (
        "import sys, codesign.spec.serialize, codesign.reference, codesign.passes;"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
