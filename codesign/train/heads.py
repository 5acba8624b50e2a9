# SPDX-License-Identifier: Apache-2.0
"""From head outputs to maps, in NumPy: what the host does after the accelerator. Works on floats and on integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def cell_map(head: Array, grid_height: int, grid_width: int, cells: int) -> Array:
    """Head outputs [n, 1 + patches, cells * cells * channels] to [n, rows, cols, channels], without the class token."""
    count, _, outputs = head.shape
    channels = outputs // (cells * cells)
    patches = head[:, 1:].reshape(count, grid_height, grid_width, cells, cells, channels)
    return patches.transpose(0, 1, 3, 2, 4, 5).reshape(count, grid_height * cells, grid_width * cells, channels)


def upsample(cells: Array, factor: int) -> Array:
    """Nearest-neighbour upsampling of [n, rows, cols] by `factor`."""
    return cells.repeat(factor, axis=1).repeat(factor, axis=2)


def class_map(head: Array, grid_height: int, grid_width: int, cells: int, cell_size: int) -> npt.NDArray[np.uint8]:
    """Class of every pixel, u8 [n, height, width]; of equal scores the smaller class wins."""
    scores = cell_map(head, grid_height, grid_width, cells)
    return upsample(scores.argmax(axis=-1).astype(np.uint8), cell_size)


def value_map(head: Array, grid_height: int, grid_width: int, cells: int, cell_size: int) -> Array:
    """The one value of every pixel (depth), [n, height, width], in the head's type."""
    return upsample(cell_map(head, grid_height, grid_width, cells)[..., 0], cell_size)
