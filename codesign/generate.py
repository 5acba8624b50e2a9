# SPDX-License-Identifier: Apache-2.0
"""From a QONNX file, or the recipe of a model without weights, to a bundle: import or make, size, schedule, emit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.emit.bundle import BundleSource, write_bundle
from codesign.engines.images import load_images
from codesign.errors import InputError
from codesign.frontend import import_qonnx, read_metadata
from codesign.passes import verify
from codesign.schedule import Options, load_board, plan
from codesign.spec import ImageSpec
from codesign.spec.patches import Pixels
from codesign.synthesis import ExpertWeights, read_recipe, synthesise
from codesign.train.digitscenes import HEIGHT, WIDTH, Split, scenes

METRICS_KEY = "codesign.metrics"
DEFAULT_IMAGES = 16
SYNTHETIC_IMAGES = 2
DEFAULT_OPTIONS = Options()


@dataclass(frozen=True)
class Synthetic:
    """How a recipe without weights becomes a model: seed of its weights, and what to change in the recipe."""

    seed: int = 0
    layers: int | None = None
    top_k: int | None = None
    experts: ExpertWeights | None = None


def generate(
    model: Path,
    board: str,
    out: Path,
    images: Path | None = None,
    options: Options = DEFAULT_OPTIONS,
    synthetic: Synthetic | None = None,
) -> Path:
    """Write the bundle of a model for a board to folder `out`, all or nothing, and return that folder.

    `model`: a QONNX file, or the recipe of a model without weights (`models/m3vit_tiny.toml`), which gets random ones
    with the statistics of trained ones (`codesign.synthesis`) as `synthetic` says. `images`: the test images that
    go into the bundle, a .npy file or a folder of PNGs; when None, 16 scenes of DigitScenes, or a recipe's photographs.
    Raises InputError for a model, board or image that cannot be taken, and when the model does not fit.
    """
    target = load_board(board)
    if model.suffix == ".toml":
        s = synthetic or Synthetic()
        recipe = read_recipe(model).changed(layers=s.layers, top_k=s.top_k, expert_weights=s.experts)
        made = synthesise(recipe, s.seed, SYNTHETIC_IMAGES)
        graph, own, training = made.graph, made.test, "{}"
    elif synthetic is not None:
        raise InputError(f"seed, layers, top-k and experts must be left out for {model}, which has weights; drop them")
    else:
        graph, own, training = import_qonnx(model), None, read_metadata(model).get(METRICS_KEY, "{}")
    verify(graph)
    if images is not None:
        own = load_images(images, graph.image)
    pixels = _scenes(graph.image) if own is None else own
    return write_bundle(BundleSource(graph, plan(graph, target, options), pixels, training), out)


def _scenes(spec: ImageSpec) -> Pixels:
    if (spec.height, spec.width, spec.channels) != (HEIGHT, WIDTH, 3):
        size = f"{spec.height} x {spec.width} x {spec.channels}"
        raise InputError(f"test images must be given for a model that takes {size} images; name them with --images")
    return np.ascontiguousarray(scenes(Split.TEST, DEFAULT_IMAGES).images)
