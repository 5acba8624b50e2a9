# SPDX-License-Identifier: Apache-2.0
"""Export: what qonnx computes from the file is what Brevitas computes from the checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_node, execute_onnx
from torch import Tensor

from codesign.assets import asset
from codesign.errors import InputError
from codesign.train import metrics
from codesign.train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from codesign.train.digitscenes import NUM_CLASSES, Split, scenes
from codesign.train.evaluate import evaluate, to_input
from codesign.train.export import export, write_qonnx
from codesign.train.fit import train
from codesign.train.model import MultiTaskViT
from codesign.train.quantizers import ActQuant
from codesign.train.recipe import Task, parse_recipe, read_recipe
from tests.train.tiny import RECIPE, write_recipe

Floats = npt.NDArray[np.float32]


TASKS = tuple(Task)


def run_brevitas(checkpoint: Checkpoint, image: Tensor, task: Task) -> dict[str, Floats]:
    """Every activation quantizer's output for one task, under the name that the exported graph gives it."""
    seen: list[tuple[str, Floats]] = []
    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: seen.append((name, o.numpy())))  # type: ignore[misc]
        for name, module in checkpoint.model.named_modules()
        if isinstance(module, ActQuant)
    ]
    with torch.no_grad():
        checkpoint.model(image, (task,))
    for handle in handles:
        handle.remove()
    stream = iter(["pos_embed.quant", "residual_quant", *_residual_names(checkpoint.recipe.model.depth, task)])
    named = {}
    for name, value in seen:
        if name.startswith("head_quants."):
            name = task.value
        elif name == "residual_quant":
            name = next(stream)
        elif name == "norm_quant" or (name.startswith("blocks.") and name.split(".")[1] not in ("0", "1")):
            name = f"{task.value}.{name}"
        if not name.endswith("moe.hidden_quant"):  # inside the node Experts
            named[name] = value
    return named


def _residual_names(depth: int, task: Task) -> list[str]:
    """Tasks part at block 1's experts; the second sum of a block is the second tensor of its name."""
    shared = ["blocks.0.residual_quant", "blocks.0.residual_quant.2", "blocks.1.residual_quant"]
    own = [f"{task.value}.blocks.1.residual_quant"]
    for block in range(2, depth):
        own += [f"{task.value}.blocks.{block}.residual_quant", f"{task.value}.blocks.{block}.residual_quant.2"]
    return shared + own


@dataclass(frozen=True)
class Comparison:
    """Differences in steps of the tensors' own scales: the largest, and the fraction of values that differ at all."""

    largest: float
    differing: float
    tensors: int


def compare_step_by_step(checkpoint: Checkpoint, path: Path, image: Tensor) -> Comparison:
    """Execute the graph with qonnx, compare every activation, and go on with Brevitas' value.

    Float rounding differs between the two (1e-7), which now and then moves a value across a rounding threshold; over
    many layers such steps spread. Going on with the other's value judges every piece of the graph on equal inputs.
    """
    model = ModelWrapper(str(path))
    wanted: dict[str, Floats] = {}
    for task in TASKS:
        wanted.update(run_brevitas(checkpoint, image, task))
    context = model.make_empty_exec_context()
    context["image"] = image.numpy()
    opset = model.get_opset_imports()
    largest, differing, values, tensors = 0.0, 0, 0, 0
    for node in model.graph.node:
        execute_node(node, context, model.graph, opset[node.domain])
        name = node.output[0]
        if node.op_type == "Quant" and name in wanted:
            ours = wanted.pop(name).reshape(context[name].shape)
            steps = np.abs(context[name] - ours) / context[node.input[1]]
            largest, tensors = max(largest, float(steps.max())), tensors + 1
            differing, values = differing + int((steps > 0.5).sum()), values + steps.size
            context[name] = ours
    assert not wanted, f"not in the graph: {sorted(wanted)}"
    return Comparison(largest, differing / values, tensors)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    train(write_recipe(folder), folder / "tiny.safetensors", quiet=True)
    return export(folder / "tiny.safetensors", folder / "tiny.onnx")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(asset("models") / "digits.safetensors", tmp_path_factory.mktemp("shipped") / "digits.onnx")


def test_tiny_model_equals_brevitas_step_by_step(tiny: Path) -> None:
    checkpoint = read_checkpoint(tiny.with_suffix(".safetensors"))
    result = compare_step_by_step(checkpoint, tiny, to_input(scenes(Split.TEST, 1).images))
    assert result.tensors == 27
    assert result.largest < 1.01
    assert result.differing < 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_tiny_model_equals_brevitas_end_to_end(tiny: Path, task: Task) -> None:
    checkpoint = read_checkpoint(tiny.with_suffix(".safetensors"))
    image = to_input(scenes(Split.TEST, 1).images)
    wanted = run_brevitas(checkpoint, image, task)[task.value]
    found = execute_onnx(ModelWrapper(str(tiny)), {"image": image.numpy()})[task.value]
    assert np.abs(wanted).max() > 0.1
    assert np.abs(wanted - found).max() < 0.02 * np.abs(wanted).max()


def test_shipped_model_equals_brevitas(shipped: Path) -> None:
    """The numbers that docs/training.md states."""
    checkpoint = read_checkpoint(asset("models") / "digits.safetensors")
    result = compare_step_by_step(checkpoint, shipped, to_input(scenes(Split.TEST, 1).images))
    assert result.largest < 1.01
    assert result.differing < 1e-3


@pytest.mark.parametrize(("task", "bound"), [(Task.SEMSEG, 1.0), (Task.DEPTH, 0.2)])
def test_shipped_model_end_to_end(shipped: Path, task: Task, bound: float) -> None:
    """docs/training.md has what was measured; other processors' float sums may flip other roundings, hence the room."""
    checkpoint = read_checkpoint(asset("models") / "digits.safetensors")
    image = to_input(scenes(Split.TEST, 1).images)
    wanted = run_brevitas(checkpoint, image, task)[task.value]
    found = execute_onnx(ModelWrapper(str(shipped)), {"image": image.numpy()})[task.value]
    assert np.abs(wanted - found).max() <= bound


def test_shipped_checkpoint() -> None:
    path = asset("models") / "digits.safetensors"
    assert path.stat().st_size < 2_000_000
    checkpoint = read_checkpoint(path)
    assert checkpoint.recipe == read_recipe(asset("models") / "digits.toml")[0]
    test = scenes(Split.TEST, 32)
    scores = evaluate(checkpoint.model, test)
    baseline = metrics.baseline(test.semseg, test.depth, NUM_CLASSES)
    assert scores.miou > 3 * baseline.miou
    assert scores.depth_rel < baseline.depth_rel / 5


def test_file_is_static_and_named(tiny: Path) -> None:
    model = onnx.load(tiny)
    graph = model.graph
    assert [(i.name, [d.dim_value for d in i.type.tensor_type.shape.dim]) for i in graph.input] == [
        ("image", [1, 3, 64, 128])
    ]
    assert [(o.name, [d.dim_value for d in o.type.tensor_type.shape.dim]) for o in graph.output] == [
        ("semseg", [1, 33, 176]),
        ("depth", [1, 33, 16]),
    ]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    names = [name for node in graph.node for name in node.output]
    assert len(set(names)) == len(names)
    assert all(shapes[name] and all(size > 0 for size in shapes[name]) for name in names)
    assert {node.op_type for node in graph.node} == {
        "Add", "Concat", "Conv", "Div", "Exp", "Experts", "Gelu", "LayerNormalization", "MatMul", "Quant", "ReduceMax",
        "ReduceSum", "Reshape", "Router", "Sub", "Transpose",
    }  # fmt: skip
    assert {"blocks.0.attn.q.weight.quant", "blocks.0.residual_quant", "semseg.blocks.1.moe.Router"} <= set(names)


def test_weights_keep_floats_and_scales(tiny: Path) -> None:
    checkpoint = read_checkpoint(tiny.with_suffix(".safetensors"))
    model = onnx.load(tiny)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    expert = checkpoint.model.blocks[1].moe.w2
    assert np.array_equal(arrays["blocks.1.moe.w2.weight"], expert.weight.detach().numpy())
    assert np.array_equal(arrays["blocks.1.moe.w2.weight.scale"], expert.quant_weight().scale.detach().numpy())
    dense = checkpoint.model.blocks[0].attn.q
    assert np.array_equal(arrays["blocks.0.attn.q.weight"], dense.weight.detach().numpy().T)
    assert arrays["blocks.0.attn.q.weight.scale"].shape == (1, 32)
    users = [n for n in model.graph.node if "blocks.1.moe.w1.weight.quant" in n.input]
    assert len(users) == 2  # both tasks use the one quantized weight


def test_metadata(tiny: Path) -> None:
    facts = {p.key: p.value for p in onnx.load(tiny).metadata_props}
    about = json.loads(facts["codesign.model"])
    assert about["tasks"] == [
        {"name": "semseg", "channels": 11, "outputs": 176, "readout": "class"},
        {"name": "depth", "channels": 1, "outputs": 16, "readout": "log"},
    ]
    assert about["image"] == {
        "height": 64, "width": 128, "channels": 3, "layout": "NCHW", "mean": 128, "scale": 1 / 128,
    }  # fmt: skip
    assert json.loads(facts["codesign.metrics"])["test_images"] == 2
    assert parse_recipe(facts["codesign.recipe"], "x") == parse_recipe(RECIPE, "y")


def test_nothing_half_written(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be writable: .*; choose another output path"):
        write_qonnx(read_checkpoint(tiny.with_suffix(".safetensors")), tmp_path / "no" / "model.onnx")
    broken = tmp_path / "broken.safetensors"
    model = MultiTaskViT(parse_recipe(RECIPE, "x"))
    with torch.no_grad():
        model.pos_embed[0, 0, 0] = float("nan")
    write_checkpoint(broken, model, RECIPE, {})
    with pytest.raises(InputError, match=r"tensor 'pos_embed' must be finite"):
        export(broken, tmp_path / "model.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["broken.safetensors"]
