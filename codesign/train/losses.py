# SPDX-License-Identifier: Apache-2.0
"""Training losses. Labels are per pixel, predictions per cell; a cell is compared with each of its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from codesign.train.recipe import ModelRecipe, Task


def head_to_cells(head: Tensor, shape: ModelRecipe, task: Task) -> Tensor:
    """[batch, tokens, outputs] to [batch, rows, cols, channels] as `heads.cell_map` does."""
    c, gh, gw = shape.cells, shape.grid_height, shape.grid_width
    patches = head[:, 1:].reshape(len(head), gh, gw, c, c, task.channels)
    return patches.permute(0, 1, 3, 2, 4, 5).reshape(len(head), gh * c, gw * c, task.channels)


def pixels_of_cells(labels: Tensor, size: int) -> Tensor:
    """[batch, height, width] to [batch, rows, cols, size * size]."""
    n, height, width = labels.shape
    blocks = labels.reshape(n, height // size, size, width // size, size)
    return blocks.permute(0, 1, 3, 2, 4).reshape(n, height // size, width // size, size * size)


def semseg_loss(scores: Tensor, labels: Tensor, background_weight: float) -> Tensor:
    """Weighted cross entropy; scores [batch, rows, cols, classes], labels int64 [batch, rows, cols, pixels]."""
    weight = torch.where(labels == 0, background_weight, 1.0)
    log_probability = scores.log_softmax(dim=-1).gather(-1, labels)
    return -(weight * log_probability).sum() / weight.sum()


def depth_loss(values: Tensor, depth: Tensor) -> Tensor:
    """Mean relative error of exp(values) [batch, rows, cols, 1] against depth [batch, rows, cols, pixels] > 0."""
    return (values - depth.log()).expm1().abs().mean()
