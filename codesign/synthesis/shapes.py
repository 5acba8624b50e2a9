# SPDX-License-Identifier: Apache-2.0
"""Random shapes, for tests that must not depend on one: sizes that divide nothing included."""

from __future__ import annotations

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
