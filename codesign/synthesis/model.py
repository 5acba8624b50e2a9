# SPDX-License-Identifier: Apache-2.0
"""From a recipe and a seed to a model that can be shipped: graph and photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.errors import InputError
from codesign.passes import verify
from codesign.spec import Graph
from codesign.spec.patches import Pixels
from codesign.synthesis.network import Network
from codesign.synthesis.pictures import SOURCES, photographs
from codesign.synthesis.recipe import Recipe, read_recipe
from codesign.synthesis.weights import generator

TEST_IMAGES = 2
_CALIBRATION_TOKENS, _FEWEST_IMAGES, _MOST_IMAGES = 1024, 4, 16
"""Calibrate on about so many tokens, but with at least and at most so many images."""


@dataclass(frozen=True)
class Synthesis:
    """A model, and photographs uint8 [n, height, width, channels]: those it was calibrated on, and others."""

    graph: Graph
    calibration: Pixels
    test: Pixels


def synthesise(recipe: Recipe | Path, seed: int = 0, images: int = TEST_IMAGES) -> Synthesis:
    """The model of a recipe (or of a recipe's file), verified, with `images` test photographs.

    Trunk and experts draw their weights by seed and name alone, so another top-k or expert format leaves the others as
    they are; and of models of at most twelve blocks the shallow one is the start of the deep one, bit for bit. Raises
    InputError for a bad recipe, a negative seed, or no images.
    """
    if seed < 0:
        raise InputError(f"seed must be 0 or more, not {seed!r}; choose another")
    if images < 1:
        raise InputError(f"images must be 1 or more, not {images!r}; ask for one at least")
    shape = read_recipe(recipe) if isinstance(recipe, Path) else recipe
    spec = shape.image.spec
    wanted = -(-_CALIBRATION_TOKENS // shape.num_tokens)
    count = min(max(wanted, _FEWEST_IMAGES), _MOST_IMAGES)
    calibration = photographs(spec, count, generator(seed, "calibration images"))
    crops = photographs(spec, max(images, SOURCES), generator(seed, "test images"))
    test = np.concatenate([photographs(spec, SOURCES), crops[SOURCES:]])[:images]
    graph = Network(shape, seed, calibration).build()
    verify(graph)
    return Synthesis(graph, calibration, test)
