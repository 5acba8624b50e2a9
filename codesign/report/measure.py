# SPDX-License-Identifier: Apache-2.0
"""What the report measures itself: the integer model on labelled test scenes, and how it loads its experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.engines import Bundle
from codesign.reference import run_graph
from codesign.spec import Graph, OpKind, Readout, TaskOutput
from codesign.spec.patches import Pixels, to_patches
from codesign.train import heads, metrics
from codesign.train.digitscenes import HEIGHT, NUM_CLASSES, WIDTH, Scenes, Split, scenes

Maps = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Prediction:
    """A task's maps for all images: classes or values, [n, height, width]."""

    output: TaskOutput
    maps: Maps


@dataclass(frozen=True)
class ExpertLoad:
    """Tokens that each expert of one mixture received, [images, experts]."""

    task: str
    layer: str
    tokens: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measurement:
    """The integer model on `images`: the bundle's own, or all test scenes when the bundle's are the first of these."""

    images: Pixels
    predictions: tuple[Prediction, ...]
    loads: tuple[ExpertLoad, ...]
    truth: Scenes | None
    """Labels of `images`, None when nobody knows them."""
    scores: metrics.Scores | None


def measure(bundle: Bundle, test_images: int, progress: Progress) -> Measurement:
    """Run the reference on the bundle's images, extended to `test_images` scenes where they are DigitScenes' own."""
    graph, truth = bundle.graph, _truth(bundle, test_images)
    images = bundle.images if truth is None else truth.images
    results: dict[str, list[npt.NDArray[np.int64]]] = {out.task: [] for out in graph.outputs}
    gates: dict[str, list[npt.NDArray[np.int64]]] = {}
    for done, x in enumerate(to_patches(images, graph.image)):
        progress(done, len(images))
        values = run_graph(graph, x)
        for out in graph.outputs:
            results[out.task].append(values[out.tensor])
        for node in graph.nodes:
            if node.kind is OpKind.ROUTE:
                gates.setdefault(node.output.name, []).append((values[node.output.name] > 0).sum(axis=0))
    progress(len(images), len(images))
    predictions = tuple(Prediction(out, to_map(graph, out, np.stack(results[out.task]))) for out in graph.outputs)
    scores = None if truth is None else _scores(predictions, truth)
    return Measurement(images, predictions, _loads(graph, gates), truth, scores)


def to_map(graph: Graph, out: TaskOutput, heads_out: npt.NDArray[np.int64]) -> Maps:
    """Head outputs [n, rows, columns] as maps [n, height, width]: the class by argmax, or the value in its unit."""
    image = graph.image
    grid = (image.height // image.patch, image.width // image.patch)
    kept = heads_out[:, out.first_row : out.first_row + image.num_patches]
    rows = np.concatenate([np.zeros_like(kept[:, :1]), kept], axis=1)  # `heads` drops one row, the class token's
    geometry = (*grid, out.cells, image.patch // out.cells)
    rows = rows[:, :, : out.cells * out.cells * out.classes]
    if out.readout is Readout.CLASS:
        return heads.class_map(rows, *geometry).astype(np.float64)
    values: Maps = heads.value_map(rows, *geometry) * graph.spec_of(out.tensor).scale
    return np.exp(values) if out.readout is Readout.LOG else values


def _loads(graph: Graph, gates: dict[str, list[npt.NDArray[np.int64]]]) -> tuple[ExpertLoad, ...]:
    return tuple(
        ExpertLoad(task, node.name, np.stack(gates[node.output.name]))
        for task in graph.tasks
        for node in graph.nodes_of(task)
        if node.kind is OpKind.ROUTE
    )


def _truth(bundle: Bundle, test_images: int) -> Scenes | None:
    """The test scenes of DigitScenes with their labels, when the bundle's images are the first of them."""
    images = bundle.images
    if images.shape[1:] != (HEIGHT, WIDTH, 3):
        return None
    known = scenes(Split.TEST, max(len(images), test_images))
    return known if np.array_equal(known.images[: len(images)], images) else None


def _scores(predictions: tuple[Prediction, ...], truth: Scenes) -> metrics.Scores | None:
    by_task = {one.output.task: one.maps for one in predictions}
    if not {"semseg", "depth"} <= by_task.keys():
        return None
    classes = by_task["semseg"].astype(np.uint8)
    return metrics.scores(truth.semseg, classes, truth.depth, by_task["depth"], NUM_CLASSES)
