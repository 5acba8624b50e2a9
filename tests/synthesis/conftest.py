# SPDX-License-Identifier: Apache-2.0
"""A recipe small enough to build in a second or two."""

from __future__ import annotations

import pytest

from codesign.synthesis import Recipe, Statistics, Synthesis, measure, parse_recipe, synthesise

TEXT = """
name = "little"

[image]
height = 64
width = 128
channels = 3
patch = 8

[model]
class_token = true
embed_dim = 64
depth = 4
num_heads = 2
head_dim = 24
mlp_hidden = 96
moe_blocks = [1, 3]
num_experts = 8
expert_hidden = 48
top_k = 2
expert_weights = "ternary"

[[tasks]]
name = "semseg"
classes = 5
cells = 2
readout = "class"

[[tasks]]
name = "depth"
classes = 1
cells = 1
readout = "log"
"""


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return parse_recipe(TEXT, "little")


@pytest.fixture(scope="session")
def model(recipe: Recipe) -> Synthesis:
    return synthesise(recipe, images=4)


@pytest.fixture(scope="session")
def statistics(model: Synthesis) -> Statistics:
    return measure(model.graph, model.test)
