# SPDX-License-Identifier: Apache-2.0
"""DigitScenes: the same scenes for ever, honest splits, labels that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.train.digitscenes import (
    HEIGHT,
    NEAREST_DEPTH,
    NUM_CLASSES,
    WIDTH,
    Split,
    batches,
    digit_indices,
    scene,
    scenes,
)


def test_shapes_and_ranges() -> None:
    data = scenes(Split.VALIDATION, 12)
    assert data.images.shape == (12, HEIGHT, WIDTH, 3)
    assert data.images.dtype == np.uint8
    assert data.semseg.dtype == np.uint8
    assert data.depth.dtype == np.float32
    assert set(np.unique(data.semseg)) <= set(range(NUM_CLASSES))
    assert data.depth.min() >= NEAREST_DEPTH
    assert data.depth.max() == 1.0
    assert len(data) == 12


def test_scene_depends_on_its_index_only() -> None:
    few, many = scenes(Split.TRAIN, 2), scenes(Split.TRAIN, 5)
    assert np.array_equal(few.images, many.images[:2])
    assert np.array_equal(scenes(Split.TRAIN, 1, first=4).images[0], many.images[4])
    assert np.array_equal(scene(Split.TRAIN, 4)[1], many.semseg[4])
    assert np.array_equal(np.concatenate([b.depth for b in batches(Split.TRAIN, 5, 2)]), many.depth)


def test_seed_and_split_change_everything() -> None:
    base = scenes(Split.TRAIN, 1).images
    assert not np.array_equal(base, scenes(Split.TRAIN, 1, seed=1).images)
    assert not np.array_equal(base, scenes(Split.TEST, 1).images)


def test_no_digit_is_in_two_splits() -> None:
    parts = [digit_indices(split) for split in Split]
    assert sum(len(p) for p in parts) == len(set().union(*parts)) == 1797
    assert [len(p) for p in parts] == [1197, 300, 300]


def test_every_class_and_several_digits_occur() -> None:
    data = scenes(Split.TEST, 24)
    assert len(np.unique(data.semseg)) == NUM_CLASSES
    assert min(len(np.unique(d[s > 0])) for s, d in zip(data.semseg, data.depth, strict=True)) >= 2


def test_nearer_digits_cover_farther_ones() -> None:
    """Where digits are, depth is one of few values, and never more than that of the ground in the same row."""
    data = scenes(Split.TRAIN, 8)
    for semseg, depth in zip(data.semseg, data.depth, strict=True):
        ground = np.where(semseg == 0, depth, 0).max(axis=1)
        rows = np.flatnonzero((semseg > 0).any(axis=1) & (ground > 0))
        for row in rows:
            assert depth[row][semseg[row] > 0].max() <= ground[row] * 1.1


def test_negative_count_is_refused() -> None:
    with pytest.raises(InputError, match=r"count and first must be 0 or more, not -1 and 0; ask for at least one"):
        scenes(Split.TEST, -1)
