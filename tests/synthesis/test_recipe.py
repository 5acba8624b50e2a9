# SPDX-License-Identifier: Apache-2.0
"""Recipes: the shipped ones have the published shapes, and what is wrong is named in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from codesign.assets import asset
from codesign.errors import InputError
from codesign.synthesis import ExpertWeights, Recipe, parse_recipe, read_recipe
from tests.synthesis.conftest import TEXT


def replaced(key: str, value: str) -> str:
    """The recipe's text with every line of that key given another value."""
    text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", TEXT)
    assert count
    return text


def test_m3vit_tiny_is_edge_moe() -> None:
    recipe = read_recipe(asset("models") / "m3vit_tiny.toml")
    m = recipe.model
    assert (recipe.image.height, recipe.image.width, recipe.image.patch, recipe.num_tokens) == (128, 256, 16, 129)
    assert (m.embed_dim, m.depth, m.num_heads, m.head_dim, m.mlp_hidden) == (192, 12, 3, 64, 768)
    assert (m.num_experts, m.expert_hidden, m.top_k, m.moe_blocks) == (16, 384, 2, (1, 3, 5, 7, 9, 11))
    assert m.expert_weights is ExpertWeights.TERNARY
    assert [(t.name, t.outputs) for t in recipe.tasks] == [("semseg", 19), ("depth", 1)]


def test_m3vit_small() -> None:
    recipe = read_recipe(asset("models") / "m3vit_small.toml")
    m = recipe.model
    assert (recipe.image.height, recipe.image.width, recipe.num_tokens) == (480, 640, 1200)
    assert (m.embed_dim, m.num_heads, m.attention_width, m.mlp_hidden, m.expert_hidden) == (384, 12, 384, 1536, 768)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("patch", "10", r"image: patch must divide 64 and 128, not be 10"),
        ("channels", "4", r"image.channels: .*1 or 3 \(found 4\)"),
        ("embed_dim", "1024", r"model.embed_dim: .*1023 \(found 1024\)"),
        ("embed_dim", "64.0", r"model.embed_dim: .*integer \(found 64.0\)"),
        ("depth", "0", r"model.depth: .*1 \(found 0\)"),
        ("depth", "3", r"model: moe_blocks must be below depth \(3\), not 3"),
        ("moe_blocks", "[3, 1]", r"model: moe_blocks must ascend, not be \[3, 1\]"),
        ("top_k", "9", r"model: top_k must be at most num_experts \(8\), not 9"),
        ("expert_weights", '"int3"', r"model.expert_weights: .*'int8', 'int4' or 'ternary' \(found 'int3'\)"),
        ("cells", "3", r"cells of semseg must divide patch \(8\), not be 3"),
        ("classes", "1", r"tasks.0: classes must be above 1 for readout 'class' and 1 for any other, not 1"),
        ("readout", '"value"', r"tasks.0: classes must be above 1 for readout 'class' and 1 for any other, not 5"),
        ("name", '"depth"', r"tasks must have distinct names, not \['depth', 'depth'\]"),
        ("name", '"a b"', r"name: .*pattern"),
        ("height", "65536", r"image must have at most 32768 tokens, not 131073"),
    ],
)
def test_bad_value(key: str, value: str, message: str) -> None:
    with pytest.raises(
        InputError, match=rf"^recipe little: {message}.*; see models/m3vit_tiny.toml for a com"
    ) as caught:
        parse_recipe(replaced(key, value), "little")
    assert "\n" not in str(caught.value)


def test_unknown_and_missing_key() -> None:
    with pytest.raises(InputError, match=r"recipe x: tasks.1.speed: is not a known key; see models/m3vit_tiny.toml"):
        parse_recipe(TEXT + "speed = 3\n", "x")
    with pytest.raises(InputError, match=r"recipe x: model.top_k: is missing; see"):
        parse_recipe(TEXT.replace("top_k = 2\n", ""), "x")


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    with pytest.raises(
        InputError, match=r"recipe .*r.toml must be a readable text file: .*; give the path of a recipe"
    ):
        read_recipe(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="must be a readable text file"):
        read_recipe(path)
    path.write_text("name =\n")
    with pytest.raises(InputError, match=r"recipe .*r.toml must be TOML: .*; correct that line"):
        read_recipe(path)


def test_changed(recipe: Recipe) -> None:
    other = recipe.changed(layers=2, top_k=4, expert_weights=ExpertWeights.INT4)
    assert (other.model.depth, other.model.moe_blocks, other.model.top_k) == (2, (1,), 4)
    assert other.model.expert_weights is ExpertWeights.INT4
    assert Recipe.model_validate(other.model_dump()) == other
    assert recipe.changed() == recipe
    with pytest.raises(InputError, match=r"layers must be in 1..4 for little, not 5; ask for fewer, or enlarge"):
        recipe.changed(layers=5)
    with pytest.raises(InputError, match=r"top_k must be in 1..8 for little, not 0; choose as many experts or fewer"):
        recipe.changed(top_k=0)


def test_a_recipe_is_frozen(recipe: Recipe) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe.model.depth = 2  # type: ignore[misc]
