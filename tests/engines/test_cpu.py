# SPDX-License-Identifier: Apache-2.0
"""The cpu engine: whole graphs against the reference, and what it says when it cannot run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.engines import Engine, simulate
from codesign.engines.cpu_build import fuse
from codesign.engines.cpu_operators import OPERATORS
from codesign.engines.cpu_plan import CpuPlan, plan_task
from codesign.engines.cpu_weights import Packed
from codesign.errors import InputError
from codesign.kernels import native as loader
from codesign.kernels.native import Variant, choose_variant, variants
from codesign.passes.slices import slice_experts
from codesign.reference import run_task
from codesign.spec import Graph, OpKind
from tests.graphs import GraphShape, random_graph, random_input

SHAPES = (
    GraphShape(),
    GraphShape(tokens=37, dim=40, heads=3, head_dim=12, hidden=70, expert_hidden=50, experts=5, ternary=False),
    GraphShape(tokens=130, dim=64, heads=1, head_dim=64, hidden=65, expert_hidden=33, experts=3, top_k=1, depth=4),
    GraphShape(tokens=4, dim=24, heads=2, head_dim=20, experts=2, class_token=False),
)


def graph_of(index: int) -> Graph:
    return random_graph(np.random.default_rng(index), SHAPES[index])


@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_every_tensor_is_the_references(variant: Variant, shape: int) -> None:
    graph, packed = graph_of(shape), Packed(variant)
    images = [random_input(np.random.default_rng(seed), graph) for seed in (1, 2)]
    for task in graph.tasks:
        expected = [run_task(graph, task, x) for x in images]
        result = graph.output_of(task).tensor
        for threads in (1, 2):
            traced = plan_task(graph, task, packed, threads, traced=True)
            fused = plan_task(graph, task, packed, threads)
            for x, tensors in zip(images, expected, strict=True):
                found = traced.run({"image": x})
                assert found.keys() | {"image"} == tensors.keys()
                for name, values in found.items():
                    np.testing.assert_array_equal(values, tensors[name], err_msg=name)
                np.testing.assert_array_equal(fused.run({"image": x})[result], tensors[result])


@pytest.mark.parametrize("variant", variants())
def test_slices_of_experts(variant: Variant) -> None:
    graph = graph_of(1)
    x = random_input(np.random.default_rng(3), graph)
    packed = Packed(variant)
    for bits in (2, 4):
        sliced = slice_experts(graph, bits)
        expected = run_task(sliced, "semseg", x)["semseg"]
        np.testing.assert_array_equal(plan_task(sliced, "semseg", packed).run({"image": x})["semseg"], expected)


def test_a_part_of_a_graph() -> None:
    """A plan of some nodes takes what they read and gives what is asked for."""
    graph = graph_of(0)
    tensors = run_task(graph, "semseg", random_input(np.random.default_rng(4), graph))
    nodes = graph.nodes_of("semseg")[8:14]
    made = {node.output.name for node in nodes}
    constants = {c.spec.name: c for c in graph.constants}
    reads = dict.fromkeys(n for node in nodes for n in node.inputs if n not in made and n not in constants)
    plan = CpuPlan(nodes, [graph.spec_of(n) for n in reads], constants, sorted(made), Packed(choose_variant()))
    for name, values in plan.run({n: tensors[n] for n in reads}).items():
        np.testing.assert_array_equal(values, tensors[name])


def test_what_is_fused() -> None:
    graph = graph_of(0)
    nodes = graph.nodes_of("semseg")
    joined = [step for step in fuse(nodes, ["semseg"]) if step.linear is not None]
    assert {step.node.kind for step in joined} == {OpKind.GELU, OpKind.ADD}
    assert len(joined) == sum(node.kind in (OpKind.GELU, OpKind.ADD) for node in nodes)
    every = [node.output.name for node in nodes]
    assert all(step.linear is None for step in fuse(nodes, every))
    assert set(OPERATORS) == set(OpKind)


@pytest.mark.parametrize("traced", [False, True])
def test_simulate(bundle: Path, traced: bool) -> None:
    result = simulate(bundle, Engine.CPU, trace_tensors=traced, threads=2, variant="portable")
    assert result.bit_exact
    assert result.cycles is None
    assert simulate(bundle, Engine.CPU, limit=1).bit_exact


def test_what_it_refuses(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"variant must be one of portable.* on this processor, not 'sse9'; choose"):
        simulate(bundle, Engine.CPU, variant="sse9")
    with pytest.raises(InputError, match=r"threads must be in 1\.\.1024, not 0"):
        simulate(bundle, Engine.CPU, threads=0)
    with pytest.raises(InputError, match="engine must be cpu for threads or a variant, not csim"):
        simulate(bundle, Engine.CSIM, threads=2)
    plan = plan_task(graph_of(0), "semseg", Packed(choose_variant()))
    with pytest.raises(InputError, match=r"input image must be integers of shape \(8, 48\), not float64 \(8, 48\)"):
        plan.run({"image": np.zeros((8, 48))})

    def gone(name: str) -> None:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(loader.importlib, "import_module", gone)
    with pytest.raises(InputError, match="native kernels must be compiled for this Python, and it is missing"):
        simulate(bundle, Engine.CPU)
