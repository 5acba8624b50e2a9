# SPDX-License-Identifier: Apache-2.0
"""Models without training: integer M3ViT graphs of any shape whose random weights have a trained model's statistics.

In: a `Recipe` and a seed. Out: a `Graph`, calibrated on photographs with the integer reference, and such photographs.
Same recipe, seed and libraries: same bits.
"""

from codesign.synthesis.model import Synthesis, synthesise
from codesign.synthesis.pictures import photographs
from codesign.synthesis.recipe import (
    ExpertWeights,
    ImageRecipe,
    ModelRecipe,
    Recipe,
    TaskRecipe,
    parse_recipe,
    read_recipe,
)
from codesign.synthesis.shapes import RandomCase, random_case, random_recipe
from codesign.synthesis.statistics import Macs, Statistics, count_macs, measure

__all__ = [
    "ExpertWeights",
    "ImageRecipe",
    "Macs",
    "ModelRecipe",
    "RandomCase",
    "Recipe",
    "Statistics",
    "Synthesis",
    "TaskRecipe",
    "count_macs",
    "measure",
    "parse_recipe",
    "photographs",
    "random_case",
    "random_recipe",
    "read_recipe",
    "synthesise",
]
