# SPDX-License-Identifier: Apache-2.0
"""A small model, exported once a session by the real exporter: calibrated on real scenes, not trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from codesign.assets import asset
from codesign.train.checkpoint import Checkpoint
from codesign.train.digitscenes import Split, scenes
from codesign.train.export import to_qonnx
from codesign.train.model import MultiTaskViT
from codesign.train.quantizers import Mode
from codesign.train.recipe import ExpertWeights, read_recipe

SMALL = {
    "image_height": 64, "image_width": 128, "patch": 16, "embed_dim": 64, "num_heads": 2, "depth": 3,
    "mlp_hidden": 64, "num_experts": 4, "expert_hidden": 32, "top_k": 2, "cells": 2,
}  # fmt: skip


def small_model(kind: ExpertWeights) -> onnx.ModelProto:
    """The small model as QONNX. Random biases and norms, so that none of them can be lost without a difference."""
    recipe, text = read_recipe(asset("models") / "digits.toml")
    quant = recipe.quant.model_copy(update={"expert_weights": kind})
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=SMALL), "quant": quant})
    torch.manual_seed(0)
    model = MultiTaskViT(recipe)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "b1", "b2")):
                parameter.normal_(0.0, 0.1)
            elif "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
    model.eval()
    model.set_mode(Mode.QUANTIZED, Mode.OBSERVE)
    pixels = scenes(Split.VALIDATION, 2).images.astype(np.float32)
    with torch.no_grad():
        model(torch.from_numpy(((pixels - 128) / 128).transpose(0, 3, 1, 2).copy()), recipe.tasks)
    for quantizer in model.act_quants():
        quantizer.set_threshold(float(quantizer.seen) * (2 if quantizer.bit_width == 16 else 1))
    model.set_mode(Mode.QUANTIZED, Mode.QUANTIZED)
    return to_qonnx(Checkpoint(model, recipe, text, {}))


@pytest.fixture(scope="session")
def exported() -> onnx.ModelProto:
    """The exported model with ternary experts. Tests change copies of it."""
    return small_model(ExpertWeights.TERNARY)


@pytest.fixture
def model(exported: onnx.ModelProto) -> onnx.ModelProto:
    """A fresh copy of the exported model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(exported)
    return copy


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test puts its model."""
    return tmp_path / "model.onnx"
