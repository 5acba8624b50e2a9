# SPDX-License-Identifier: Apache-2.0
"""Random shapes, for tests that must not depend on one: sizes that divide nothing included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.spec import Readout
from codesign.synthesis.recipe import ExpertWeights, ImageRecipe, ModelRecipe, Recipe, TaskRecipe

_DIMS = (16, 24, 40, 48, 64, 72, 96, 110)
_HEAD_DIMS = (8, 12, 16, 20, 24, 32, 48)
_HIDDEN = (16, 40, 56, 96, 130, 192)


def random_recipe(rng: np.random.Generator, name: str, class_token: bool | None = None) -> Recipe:
    """A small recipe with at least one MLP block and one mixture; every size is drawn."""
    rows, columns = int(rng.integers(1, 7)), int(rng.integers(2, 11))
    patch = int(rng.choice((2, 4)))
    depth = int(rng.integers(2, 4))
    experts = int(rng.integers(2, 17))
    model = ModelRecipe(
        class_token=bool(rng.integers(2)) if class_token is None else class_token,
        embed_dim=int(rng.choice(_DIMS)),
        depth=depth,
        num_heads=int(rng.integers(1, 5)),
        head_dim=int(rng.choice(_HEAD_DIMS)),
        mlp_hidden=int(rng.choice(_HIDDEN)),
        moe_blocks=(int(rng.integers(0, depth)),),
        num_experts=experts,
        expert_hidden=int(rng.choice(_HIDDEN)),
        top_k=int(rng.integers(1, min(4, experts) + 1)),
        expert_weights=ExpertWeights(str(rng.choice([w.value for w in ExpertWeights]))),
    )
    tasks = (
        TaskRecipe(
            name="semseg", classes=int(rng.integers(2, 6)), cells=int(rng.choice((1, 2))), readout=Readout.CLASS
        ),
        TaskRecipe(name="depth", classes=1, cells=1, readout=Readout.LOG),
    )
    image = ImageRecipe(height=rows * patch, width=columns * patch, patch=patch, channels=3)
    return Recipe(name=name, image=image, model=model, tasks=tasks[: int(rng.integers(1, 3))])


@dataclass(frozen=True)
class RandomCase:
    """A random model for an array, and how it is to be scheduled."""

    recipe: Recipe
    seed: int
    sliced: bool
    """Also with slices of its experts: they are int8, in whole words of the array."""
    block_rows: int | None
    """Rows of a tile, if it is tiled over tokens."""


def random_case(simd: int, pe: int, number: int) -> RandomCase:
    """The `number`-th model for an array of `simd` x `pe`, always the same; every third one is tiled over tokens."""
    tiled = number % 3 == 2
    rng = np.random.default_rng([simd, pe, number])
    recipe = random_recipe(rng, f"random-{simd}x{pe}-{number}", class_token=False if tiled else None)
    whole_words = recipe.model.embed_dim % simd == recipe.model.expert_hidden % simd == 0
    sliced = recipe.model.expert_weights is ExpertWeights.INT8 and whole_words
    return RandomCase(recipe, number, sliced, 16 if tiled and recipe.num_tokens > 16 else None)
