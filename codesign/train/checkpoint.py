# SPDX-License-Identifier: Apache-2.0
"""A trained model in one safetensors file: float32 weights and scales, with the recipe and the metrics as metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from codesign.errors import InputError, reason
from codesign.train.model import MultiTaskViT
from codesign.train.quantizers import Mode
from codesign.train.recipe import Recipe, parse_recipe

FORMAT = "codesign-checkpoint-1"
Metrics = Mapping[str, object]


@dataclass(frozen=True)
class Checkpoint:
    """A model in quantized evaluation mode, the recipe that made it and what it scored."""

    model: MultiTaskViT
    recipe: Recipe
    recipe_text: str
    metrics: Metrics


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, then rename. Raises InputError if that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} must be writable: {reason(error)}; choose another output path") from None


def write_checkpoint(path: Path, model: MultiTaskViT, recipe_text: str, metrics: Metrics) -> None:
    """Save a model. Raises InputError if the file cannot be written."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"format": FORMAT, "recipe": recipe_text, "metrics": json.dumps(metrics, sort_keys=True)}
    write_atomically(path, serialize(tensors, metadata))


def read_checkpoint(path: Path) -> Checkpoint:
    """Load and check a checkpoint. Raises InputError naming the file and what is wrong with it."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT or not {"recipe", "metrics"} <= metadata.keys():
        raise InputError(f"{path} must be a codesign checkpoint, not another safetensors file; run codesign train")
    recipe = parse_recipe(metadata["recipe"], f"inside {path}")
    model = MultiTaskViT(recipe)
    load_tensors(model, tensors, path)
    model.set_mode(Mode.QUANTIZED, Mode.QUANTIZED)
    model.eval()
    try:
        metrics = json.loads(metadata["metrics"])
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: the metrics must be JSON: {error}; train again") from None
    return Checkpoint(model, recipe, metadata["recipe"], metrics)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file. Raises InputError if it is missing or damaged."""
    if not path.is_file():
        raise InputError(f"checkpoint {path} must be a file, and there is none; run codesign train")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"checkpoint {path} must be a whole safetensors file: {error}; copy or train it again"
        ) from None


def load_tensors(model: MultiTaskViT, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a model after checking names, shapes and values; InputError names the first bad tensor."""
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise InputError(f"checkpoint {path} must hold tensor {name!r}, which is missing; train it again")
        if name not in expected:
            raise InputError(f"checkpoint {path} must not hold tensor {name!r}, unknown to its recipe; train it again")
        found, wanted = tensors[name], expected[name]
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            raise InputError(
                f"checkpoint {path}: tensor {name!r} must be {wanted.dtype} {list(wanted.shape)}, "
                f"not {found.dtype} {list(found.shape)}; train it again"
            )
        if not torch.isfinite(found).all():
            raise InputError(f"checkpoint {path}: tensor {name!r} must be finite, not NaN or Inf; train it again")
    model.load_state_dict(dict(tensors))
