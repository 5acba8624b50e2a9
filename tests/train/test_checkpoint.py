# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is saved comes back, what is damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from codesign.errors import InputError
from codesign.train.checkpoint import FORMAT, read_checkpoint, read_tensors, write_checkpoint
from codesign.train.model import MultiTaskViT
from codesign.train.recipe import parse_recipe
from tests.train.tiny import RECIPE

METADATA = {"format": FORMAT, "recipe": RECIPE, "metrics": "{}"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "tiny.safetensors"
    write_checkpoint(path, MultiTaskViT(parse_recipe(RECIPE, "tiny")), RECIPE, {"miou": 0.5})
    return path


def test_round_trip(saved: Path) -> None:
    first = read_checkpoint(saved)
    assert first.metrics == {"miou": 0.5}
    assert first.recipe_text == RECIPE
    write_checkpoint(saved.with_name("b"), first.model, first.recipe_text, first.metrics)
    second = read_checkpoint(saved.with_name("b")).model.state_dict()
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second[name]), name


def test_truncated_and_missing(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"checkpoint .* must be a whole safetensors file: .*; copy or train it again"):
        read_checkpoint(saved)
    with pytest.raises(InputError, match=r"checkpoint .*none must be a file, and there is none; run codesign train"):
        read_checkpoint(saved.with_name("none"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(saved: Path, value: float) -> None:
    tensors, metadata = read_tensors(saved)
    tensors["blocks.1.moe.w1.weight"][2, 3, 4] = value
    save_file(tensors, saved, metadata)
    with pytest.raises(InputError, match=r"tensor 'blocks.1.moe.w1.weight' must be finite, not NaN or Inf; train"):
        read_checkpoint(saved)


def test_wrong_tensors(saved: Path) -> None:
    tensors, metadata = read_tensors(saved)
    lacking = {k: v for k, v in tensors.items() if k != "pos_embed"}
    save_file(lacking, saved, metadata)
    with pytest.raises(InputError, match=r"must hold tensor 'pos_embed', which is missing; train it again"):
        read_checkpoint(saved)
    save_file({**tensors, "extra": torch.zeros(1)}, saved, metadata)
    with pytest.raises(InputError, match=r"must not hold tensor 'extra', unknown to its recipe; train it again"):
        read_checkpoint(saved)
    save_file({**tensors, "pos_embed": torch.zeros(1, 2, 3)}, saved, metadata)
    with pytest.raises(InputError, match=r"tensor 'pos_embed' must be torch.float32 \[1, 33, 32\], not .*\[1, 2, 3\]"):
        read_checkpoint(saved)


def test_foreign_file(saved: Path) -> None:
    tensors, _ = read_tensors(saved)
    save_file(tensors, saved)
    with pytest.raises(InputError, match=r"must be a codesign checkpoint, not another safetensors file"):
        read_checkpoint(saved)
    save_file(tensors, saved, {**METADATA, "metrics": "{"})
    with pytest.raises(InputError, match=r"the metrics must be JSON: .*; train again"):
        read_checkpoint(saved)
    save_file(tensors, saved, {**METADATA, "recipe": "tasks = 3"})
    with pytest.raises(InputError, match=r"recipe inside .*: tasks: "):
        read_checkpoint(saved)


def test_nowhere_to_write(saved: Path) -> None:
    model = read_checkpoint(saved).model
    with pytest.raises(InputError, match=r"must be writable: No such file or directory; choose another output path"):
        write_checkpoint(saved.parent / "no" / "where", model, RECIPE, {})
