# SPDX-License-Identifier: Apache-2.0
"""The cuda engine: whole graphs against the reference, and what it says when it cannot run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from codesign.assets import asset
from codesign.engines import Bundle, Engine, load_result, simulate
from codesign.engines.cuda_plan import OPERATORS, CudaPlan, DeviceWeights, plan_task
from codesign.errors import InputError
from codesign.kernels.gpu.device import INTERPRET
from codesign.passes.slices import slice_experts
from codesign.reference import run_task
from codesign.spec import OpKind
from tests.engines.test_cpu import SHAPES, graph_of
from tests.gpu import TILES, ops_of
from tests.graphs import random_input


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_every_tensor_is_the_references(shape: int) -> None:
    graph = graph_of(shape)
    weights = DeviceWeights(ops_of(TILES["small" if shape < 2 else "large"]))
    x = random_input(np.random.default_rng(1), graph)
    for task in graph.tasks:
        expected = run_task(graph, task, x)
        found = plan_task(graph, task, weights, traced=True).run({"image": x})
        assert found.keys() | {"image"} == expected.keys()
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[name], err_msg=name)
        result = graph.output_of(task).tensor
        np.testing.assert_array_equal(plan_task(graph, task, weights).run({"image": x})[result], expected[result])


@pytest.mark.parametrize("bits", [2, 4])
def test_slices_of_experts(bits: int) -> None:
    graph = graph_of(1)
    x = random_input(np.random.default_rng(3), graph)
    sliced = slice_experts(graph, bits)
    found = plan_task(sliced, "semseg", DeviceWeights(ops_of())).run({"image": x})
    np.testing.assert_array_equal(found["semseg"], run_task(sliced, "semseg", x)["semseg"])


def test_a_part_of_a_graph() -> None:
    """A plan of some nodes takes what they read, gates among it, and gives what is asked for."""
    graph = graph_of(0)
    tensors = run_task(graph, "semseg", random_input(np.random.default_rng(4), graph))
    nodes = graph.nodes_of("semseg")
    last = next(i for i, node in enumerate(nodes) if node.kind is OpKind.EXPERTS)
    nodes = (*nodes[8:14], nodes[last])
    made = {node.output.name for node in nodes}
    constants = {c.spec.name: c for c in graph.constants}
    reads = dict.fromkeys(n for node in nodes for n in node.inputs if n not in made and n not in constants)
    plan = CudaPlan(nodes, [graph.spec_of(n) for n in reads], constants, sorted(made), DeviceWeights(ops_of()))
    for name, values in plan.run({n: tensors[n] for n in reads}).items():
        np.testing.assert_array_equal(values, tensors[name], err_msg=name)


def test_every_operator_has_kernels() -> None:
    assert set(OPERATORS) == set(OpKind)


@pytest.mark.parametrize("traced", [False, True])
def test_simulate_names_the_device(bundle: Path, traced: bool) -> None:
    result = simulate(bundle, Engine.CUDA, trace_tensors=traced, limit=1)
    assert result.bit_exact
    assert result.cycles is None
    assert result.device == ops_of().device.name
    assert json.loads(result.to_json())["device"] == result.device
    kept = load_result(Bundle.load(bundle), Engine.CUDA)
    assert kept is not None
    assert kept.device == result.device


def test_the_shipped_model(tmp_path: Path) -> None:
    """One image through both tasks of the digits model."""
    from codesign.frontend import import_qonnx
    from codesign.train.export import export

    graph = import_qonnx(export(asset("models") / "digits.safetensors", tmp_path / "digits.onnx"))
    x = random_input(np.random.default_rng(5), graph)
    weights = DeviceWeights(ops_of())
    for task in graph.tasks:
        result = graph.output_of(task).tensor
        found = plan_task(graph, task, weights).run({graph.input.name: x})[result]
        np.testing.assert_array_equal(found, run_task(graph, task, x)[result])


def test_what_it_refuses(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="engine must be cpu for threads or a variant, not cuda"):
        simulate(bundle, Engine.CUDA, threads=2)
    monkeypatch.delenv(INTERPRET, raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"must have a CUDA device, and torch .* finds none; run .*TRITON_INTER"):
        simulate(bundle, Engine.CUDA)
