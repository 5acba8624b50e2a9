# SPDX-License-Identifier: Apache-2.0
"""Recipes: what is wrong is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from codesign.assets import asset
from codesign.errors import InputError
from codesign.train.recipe import Task, parse_recipe, read_recipe
from tests.train.tiny import RECIPE, write_recipe


def test_shipped_recipe() -> None:
    recipe, text = read_recipe(asset("models") / "digits.toml")
    assert recipe.tasks == (Task.SEMSEG, Task.DEPTH)
    assert recipe.model.num_tokens == 129
    assert recipe.model.cell_size == 2
    assert recipe.model.head_outputs(Task.SEMSEG) == 176
    assert parse_recipe(text, "again") == recipe


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("embed_dim", "48", "embed_dim must be num_heads x 32, not 48"),
        ("patch", "10", "patch must divide 64 and 128, not be 10"),
        ("cells", "3", r"cells must divide patch \(16\), not be 3"),
        ("top_k", "5", r"top_k must be at most num_experts \(4\), not 5"),
        ("num_experts", "17", r"model.num_experts: .* 16 \(found 17\)"),
        ("mlp_hidden", "40", "mlp_hidden must be a multiple of 32 up to 1024, not 40"),
        ("expert_weights", '"int3"', r"quant.expert_weights: .*'ternary' or 'int8' \(found 'int3'\)"),
        ("steps", '"many"', r"train.steps: .*integer.*\(found 'many'\)"),
        ("act_quant_step", "1", "weight_quant_step, act_quant_step, freeze_step and steps must not decrease"),
        ("batch", "13", r"batch must be at most train_images \(12\), not 13"),
        ("tasks", '["semseg", "normals"]', r"tasks.1: .*'semseg' or 'depth' \(found 'normals'\)"),
    ],
)
def test_bad_value(tmp_path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_recipe(write_recipe(tmp_path, **{key: value}))
    assert "\n" not in str(caught.value)


def test_unknown_and_missing_key() -> None:
    with pytest.raises(InputError, match=r"recipe x: train.speed: is not a known key; see models/digits.toml"):
        parse_recipe(RECIPE + "speed = 3\n", "x")
    with pytest.raises(InputError, match=r"recipe x: train.test_images: is missing"):
        parse_recipe(RECIPE.replace("test_images = 2\n", ""), "x")


def test_not_toml_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe x must be TOML: .*; correct that line"):
        parse_recipe("tasks = [", "x")
    with pytest.raises(InputError, match=r"recipe .*none.toml must be a readable text file: .*; give the path"):
        read_recipe(tmp_path / "none.toml")
