# SPDX-License-Identifier: Apache-2.0
"""Scores against hand-made cases, and the decoding of head outputs."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.train import heads, metrics


def test_miou_by_hand() -> None:
    truth = np.array([[0, 0, 1, 2]], np.uint8)
    guess = np.array([[0, 1, 1, 1]], np.uint8)
    # class 0: 1 of 2; class 1: 1 of 3; class 2: 0 of 1; class 3 occurs nowhere and does not count
    assert metrics.miou(truth, guess, 4) == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert metrics.confusion(truth, guess, 4)[0].tolist() == [1, 1, 0, 0]
    assert np.isnan(metrics.iou_per_class(metrics.confusion(truth, guess, 4))[3])
    assert metrics.miou(truth, truth, 4) == 1.0


def test_depth_errors_by_hand() -> None:
    truth, guess = np.array([0.5, 1.0]), np.array([0.25, 1.5])
    assert metrics.relative_depth_error(truth, guess) == pytest.approx(0.5)
    assert metrics.rmse(truth, guess) == pytest.approx(np.sqrt((0.0625 + 0.25) / 2))


def test_baseline_is_majority_and_mean() -> None:
    semseg = np.array([[0, 0, 0, 1]], np.uint8)
    depth = np.array([[1.0, 1.0, 0.5, 0.5]], np.float32)
    scores = metrics.baseline(semseg, depth, 2)
    assert scores.miou == pytest.approx(0.75 / 2)
    assert scores.depth_rel == pytest.approx((0.25 + 0.5) / 2)
    assert scores.depth_rmse == pytest.approx(0.25)


def test_cells_land_where_their_patch_is() -> None:
    grid_height, grid_width, cells, channels = 2, 3, 2, 4
    rows, cols = grid_height * cells, grid_width * cells
    wanted = np.arange(rows * cols * channels).reshape(1, rows, cols, channels)
    head = np.full((1, 1 + grid_height * grid_width, cells * cells * channels), -1)
    for r in range(grid_height):
        for c in range(grid_width):
            block = wanted[0, r * cells : (r + 1) * cells, c * cells : (c + 1) * cells]
            head[0, 1 + r * grid_width + c] = block.reshape(-1)
    assert np.array_equal(heads.cell_map(head, grid_height, grid_width, cells), wanted)
    classes = heads.class_map(head, grid_height, grid_width, cells, 3)
    assert classes.shape == (1, rows * 3, cols * 3)
    assert (classes == channels - 1).all()
    one = heads.value_map(head[:, :, : cells * cells], grid_height, grid_width, cells, 2)
    assert one.shape == (1, rows * 2, cols * 2)
    assert one[0, 0, 0] == one[0, 1, 1] == head[0, 1, 0]
