# SPDX-License-Identifier: Apache-2.0
"""Predictions and scores of a model on DigitScenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codesign.train import heads, metrics
from codesign.train.digitscenes import NUM_CLASSES, Scenes
from codesign.train.model import MultiTaskViT
from codesign.train.recipe import Task


@dataclass(frozen=True)
class Predictions:
    """Class map u8 [n, height, width] and depth map f32 [n, height, width]."""

    semseg: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]


def to_input(images: npt.NDArray[np.uint8]) -> Tensor:
    """u8 [n, height, width, 3] to float [n, 3, height, width]: (u8 - 128) / 128."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 128.0).div_(128.0).contiguous()


def predict(model: MultiTaskViT, images: npt.NDArray[np.uint8], batch: int = 32) -> Predictions:
    """Predictions of both tasks; the model is in evaluation mode afterwards."""
    model.eval()
    shape = model.recipe.model
    geometry = (shape.grid_height, shape.grid_width, shape.cells, shape.cell_size)
    classes, depths = [], []
    with torch.no_grad():
        for first in range(0, len(images), batch):
            out = model(to_input(images[first : first + batch]), (Task.SEMSEG, Task.DEPTH))
            classes.append(heads.class_map(out.heads[0].numpy(), *geometry))
            depths.append(np.exp(heads.value_map(out.heads[1].numpy(), *geometry)))
    return Predictions(np.concatenate(classes), np.concatenate(depths))


def evaluate(model: MultiTaskViT, scenes: Scenes) -> metrics.Scores:
    """Scores of the model as its quantizers are set."""
    out = predict(model, scenes.images)
    return metrics.scores(scenes.semseg, out.semseg, scenes.depth, out.depth, NUM_CLASSES)
