# SPDX-License-Identifier: Apache-2.0
"""Synthetic models are valid, deterministic, multi-gate, and behave as trained models do."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from codesign.assets import asset
from codesign.errors import InputError
from codesign.passes import accumulator_bits, graph_bounds, slice_experts, verify
from codesign.reference import run_graph
from codesign.spec import INT8, INT16, Graph, IntType, OpKind, RouteParams
from codesign.spec.patches import to_patches
from codesign.synthesis import (
    ExpertWeights,
    ImageRecipe,
    ModelRecipe,
    Recipe,
    Statistics,
    Synthesis,
    TaskRecipe,
    count_macs,
    measure,
    synthesise,
)


def same(a: Graph, b: Graph) -> bool:
    constants = len(a.constants) == len(b.constants) and all(
        x.spec == y.spec and np.array_equal(x.values, y.values) for x, y in zip(a.constants, b.constants, strict=True)
    )
    return constants and replace(a, constants=b.constants) == b


def lively(statistics: Statistics) -> None:
    """Ranges are used and hardly exceeded, in each tensor and overall."""
    for use in statistics.tensors:
        assert use.saturated < 0.01, use
    int8 = [use for use in statistics.tensors if use.type == INT8]
    assert np.mean([use.saturated for use in int8]) < 0.001
    assert np.median([use.peak for use in int8]) >= 1.0
    assert min(use.peak for use in int8) > 0.6
    assert sum(use.saturated for use in statistics.tensors if use.type == INT16) == 0.0


def routed(statistics: Statistics) -> None:
    """Every expert works, none for as many tokens as another."""
    for load in statistics.loads:
        assert min(load.total) > 0, load
        assert 1.3 < max(load.total) / np.mean(load.total) < 6.0, load
        assert len(set(load.tokens)) == len(load.tokens), load  # it is the tokens that decide


def attentive(statistics: Statistics) -> None:
    """Softmax is neither uniform nor one-hot."""
    for attention in statistics.attentions:
        assert 0.05 * attention.keys < attention.effective_keys < 0.8 * attention.keys, attention
        assert attention.largest < 0.6, attention


def test_ranges(statistics: Statistics) -> None:
    lively(statistics)


def test_routers(statistics: Statistics, recipe: Recipe) -> None:
    assert len(statistics.loads) == 4
    routed(statistics)
    for load in statistics.loads:
        assert {sum(image) for image in load.tokens} == {recipe.num_tokens * recipe.model.top_k}


def test_attention(statistics: Statistics) -> None:
    attentive(statistics)


def test_the_residual_has_outlier_channels(statistics: Statistics) -> None:
    for stream in statistics.streams:
        assert 1.8 < stream.largest / stream.median < 12.0, stream
    for stream in statistics.streams[-2:]:
        assert stream.largest / stream.median > 4.0, stream
    medians = [s.median for s in statistics.streams if s.node.startswith(("embed", "block", "semseg"))]
    assert medians == sorted(medians)


def test_valid_and_narrow(model: Synthesis) -> None:
    verify(model.graph)
    assert accumulator_bits(model.graph) <= 27
    for extreme in (-128, 127):
        run_graph(model.graph, np.full(model.graph.input.shape, extreme, dtype=np.int64))


def test_one_trunk_and_a_gate_and_head_per_task(model: Synthesis) -> None:
    graph = model.graph
    own = {c.spec.name for c in graph.constants if c.spec.name.startswith(("semseg.", "depth."))}
    layers = ("block1.router", "block3.router", "head")
    assert own == {f"{t}.{n}.{p}" for t in graph.tasks for n in layers for p in ("weight", "bias")}
    semseg, depth = (graph.nodes_of(task) for task in graph.tasks)
    shared = set(semseg) & set(depth)
    assert shared == set(semseg[: len(shared)])
    assert semseg[len(shared)].name == "semseg.block1.router"
    assert [n.kind for n in semseg] == [n.kind for n in depth]
    assert Counter(n.kind for n in semseg)[OpKind.EXPERTS] == 2
    for a, b in zip(semseg, depth, strict=True):
        if a.kind not in (OpKind.ROUTE,) and a.name != "semseg":
            assert a.params == b.params


def test_scales_are_of_one_piece(model: Synthesis) -> None:
    streams = {n.output.scale for n in model.graph.nodes if n.kind in (OpKind.ADD, OpKind.EXPERTS)}
    assert streams == {2.0**-9}
    assert all(n.output.scale > 0 for n in model.graph.nodes)


def test_same_seed_same_model(recipe: Recipe, model: Synthesis) -> None:
    again, other = synthesise(recipe), synthesise(recipe, seed=1)
    assert same(again.graph, model.graph)
    assert np.array_equal(again.calibration, model.calibration)
    assert np.array_equal(again.test, model.test[:2])
    assert not same(other.graph, model.graph)


def test_a_shallow_model_is_the_start_of_a_deep_one(recipe: Recipe, model: Synthesis) -> None:
    shallow = synthesise(recipe.changed(layers=2)).graph
    blocks = [n for n in shallow.nodes if re.search(r"embed|block", n.name)]
    assert tuple(blocks) == model.graph.nodes[: len(blocks)]
    for constant in shallow.constants:
        if re.match(r"(block|embed)", constant.spec.name):
            assert np.array_equal(constant.values, model.graph.constant(constant.spec.name).values)


@pytest.mark.parametrize("kind", [ExpertWeights.INT4, ExpertWeights.INT8])
def test_other_formats_and_top_k(recipe: Recipe, model: Synthesis, kind: ExpertWeights) -> None:
    made = synthesise(recipe.changed(top_k=4, expert_weights=kind))
    verify(made.graph)
    routers = [n.params for n in made.graph.nodes if isinstance(n.params, RouteParams)]
    assert {p.top_k for p in routers} == {4}
    w1 = made.graph.constant("block1.experts.w1")
    assert w1.spec.type == INT8
    assert np.abs(w1.values).max() == (7 if kind is ExpertWeights.INT4 else 127)
    ternary = model.graph.constant("block1.experts.w1")
    assert ternary.spec.type == IntType(2)
    assert (np.sign(w1.values) * ternary.values >= 0).all()  # the same weights behind both
    assert np.array_equal(
        made.graph.constant("block0.fc1.weight").values, model.graph.constant("block0.fc1.weight").values
    )
    if kind is ExpertWeights.INT8:
        sliced = slice_experts(made.graph, 4)
        x = to_patches(made.test, sliced.image)[0]
        assert not np.array_equal(run_graph(sliced, x)["semseg"], run_graph(made.graph, x)["semseg"])
        lively(measure(sliced, made.test))
    lively(measure(made.graph, made.test))


def random_recipe(rng: np.random.Generator) -> Recipe:
    def upto(n: int) -> int:
        return int(rng.integers(1, n + 1))

    patch, depth, experts = upto(8), upto(4), upto(8)
    cells = int(rng.choice([c for c in range(1, patch + 1) if patch % c == 0]))
    classes = [upto(4) for _ in range(upto(3))]
    return Recipe(
        name="odd",
        image=ImageRecipe(height=patch * upto(5), width=patch * upto(5), patch=patch, channels=int(rng.choice([1, 3]))),
        model=ModelRecipe(
            class_token=bool(rng.integers(2)), embed_dim=1 + upto(48), depth=depth, num_heads=upto(3),
            head_dim=upto(20), mlp_hidden=upto(60), moe_blocks=tuple(b for b in range(depth) if rng.random() < 0.5),
            num_experts=experts, expert_hidden=upto(60), top_k=upto(experts),
            expert_weights=ExpertWeights(rng.choice([e.value for e in ExpertWeights])),
        ),
        tasks=tuple(
            TaskRecipe(name=f"t{i}", classes=c, cells=cells, readout="class" if c > 1 else "value")
            for i, c in enumerate(classes)
        ),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_odd_shapes(seed: int) -> None:
    recipe = random_recipe(np.random.default_rng(seed))
    made = synthesise(recipe, seed, images=1)
    assert len(made.test) == 1
    graph_bounds(made.graph)
    values = run_graph(made.graph, to_patches(made.test, made.graph.image)[0])
    assert set(made.graph.tasks) <= set(values)
    assert sum(n.kind is OpKind.ROUTE for n in made.graph.nodes) == len(recipe.model.moe_blocks) * len(recipe.tasks)
    if len(recipe.tasks) == 1:
        assert not any(name.startswith("t0.") for name in values)


def test_macs_by_hand(recipe: Recipe, model: Synthesis) -> None:
    m, t = recipe.model, recipe.num_tokens
    wide = m.attention_width
    linear = (t - 1) * 192 * m.embed_dim + m.depth * 4 * t * m.embed_dim * wide
    linear += 2 * 2 * t * m.embed_dim * m.mlp_hidden
    linear += 2 * (t * m.embed_dim * m.num_experts + m.top_k * 2 * t * m.embed_dim * m.expert_hidden)
    linear += t * m.embed_dim * 20
    macs = count_macs(model.graph, "semseg")
    assert (macs.linear, macs.attention) == (linear, m.depth * 2 * t * t * wide)
    assert macs.total == macs.linear + macs.attention
    with pytest.raises(InputError, match="task must be one of semseg, depth, not 'normals'"):
        count_macs(model.graph, "normals")


def test_bad_calls(recipe: Recipe, model: Synthesis) -> None:
    with pytest.raises(InputError, match="seed must be 0 or more, not -1; choose another"):
        synthesise(recipe, seed=-1)
    with pytest.raises(InputError, match="images must be 1 or more, not 0; ask for one at least"):
        synthesise(recipe, images=0)
    with pytest.raises(
        InputError, match=r"images must be uint8 of shape \[n, 64, 128, 3\], not uint8 \[4, 64, 64, 3\]"
    ):
        measure(model.graph, model.test[:, :, :64])


def test_m3vit_tiny() -> None:
    """The published size: work, widths and statistics (Edge-MoE's trained model: largest channel 39, median 5.6)."""
    made = synthesise(asset("models") / "m3vit_tiny.toml", images=4)
    macs = count_macs(made.graph, "semseg")
    assert (round(macs.total / 1e9, 3), round(macs.attention / 1e9, 3)) == (0.783, 0.077)
    assert accumulator_bits(made.graph) <= 27
    statistics = measure(made.graph, made.test)
    lively(statistics)
    routed(statistics)
    attentive(statistics)
    for stream in statistics.streams[-2:]:
        assert 30.0 < stream.largest < 50.0, stream
        assert 5.0 < stream.median < 6.2, stream
