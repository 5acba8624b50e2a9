# SPDX-License-Identifier: Apache-2.0
"""The trained model that ships with the project loses nothing that counts on its way to integers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from codesign.assets import asset
from codesign.frontend import import_qonnx
from codesign.passes import accumulator_bits, graph_bounds, verify
from codesign.reference import run_graph
from codesign.spec import Graph, IntType
from codesign.train import heads, metrics
from codesign.train.checkpoint import Checkpoint, read_checkpoint
from codesign.train.digitscenes import NUM_CLASSES, Scenes, Split, scenes
from codesign.train.evaluate import evaluate
from codesign.train.export import write_qonnx

from .test_import import patches

IMAGES = 24


@dataclass(frozen=True)
class Shipped:
    """The checkpoint and its integer graph."""

    checkpoint: Checkpoint
    graph: Graph


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    checkpoint = read_checkpoint(asset("models") / "digits.safetensors")
    path: Path = tmp_path_factory.mktemp("shipped") / "digits.onnx"
    return Shipped(checkpoint, import_qonnx(write_qonnx(checkpoint, path)))


def integer_scores(shipped: Shipped, truth: Scenes) -> metrics.Scores:
    shape, graph = shipped.checkpoint.recipe.model, shipped.graph
    geometry = (shape.grid_height, shape.grid_width, shape.cells, shape.cell_size)
    values = [run_graph(graph, patches(graph, image)) for image in truth.images]
    semseg, depth = (np.stack([v[graph.output_of(task).tensor] for v in values]) for task in ("semseg", "depth"))
    depth_map = np.exp(heads.value_map(depth, *geometry) * graph.spec_of("depth").scale)
    classes = heads.class_map(semseg, *geometry)
    return metrics.scores(truth.semseg, classes, truth.depth, depth_map.astype(np.float32), NUM_CLASSES)


def test_accuracy(shipped: Shipped) -> None:
    """At most 1.0 point of mIoU and 2 % of relative depth error lost against the fake-quantized model."""
    truth = scenes(Split.TEST, IMAGES)
    quantized, integer = evaluate(shipped.checkpoint.model, truth), integer_scores(shipped, truth)
    assert integer.miou >= quantized.miou - 0.010
    assert integer.depth_rel <= quantized.depth_rel * 1.02


def test_graph(shipped: Shipped) -> None:
    """It obeys the contract, its experts are ternary, and its accumulators leave room in 32 bits."""
    verify(shipped.graph)
    assert shipped.graph.constant("block1.experts.w1").spec.type == IntType(2)
    assert accumulator_bits(shipped.graph) <= 24
    assert len(graph_bounds(shipped.graph)) == len(shipped.graph.nodes) == 118


@pytest.mark.parametrize(("variant", "miou", "depth"), [("ternary", 0.030, 0.06), ("int8", 0.015, 0.03)])
def test_cost_against_float(shipped: Shipped, variant: str, miou: float, depth: float) -> None:
    """The recorded scores of the models trained alike, in points of mIoU and of relative depth error."""
    scores = shipped.checkpoint.metrics["compared"]
    assert scores["float"]["miou"] - scores[variant]["miou"] <= miou
    assert scores[variant]["depth_rel"] - scores["float"]["depth_rel"] <= depth
