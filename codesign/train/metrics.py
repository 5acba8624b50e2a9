# SPDX-License-Identifier: Apache-2.0
"""Scores of the two dense tasks, in NumPy, and the baselines that a model has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Scores:
    """Mean IoU over the classes that occur (0..1), mean |d - d^| / d, and the root of the mean squared depth error."""

    miou: float
    depth_rel: float
    depth_rmse: float


def confusion(truth: Labels, predicted: Labels, num_classes: int) -> npt.NDArray[np.int64]:
    """Counts [true class, predicted class] over all pixels; both arrays have the same shape."""
    pairs = truth.astype(np.int64).ravel() * num_classes + predicted.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def iou_per_class(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Intersection over union [classes] from a confusion matrix; NaN for a class neither present nor predicted."""
    hit = np.diag(counts).astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts)
    return np.where(union > 0, hit / np.maximum(union, 1), np.nan)


def miou(truth: Labels, predicted: Labels, num_classes: int) -> float:
    """Mean of the IoU over the classes that occur in the truth or the prediction."""
    return float(np.nanmean(iou_per_class(confusion(truth, predicted, num_classes))))


def relative_depth_error(truth: Floats, predicted: Floats) -> float:
    """Mean of |d - d^| / d over all pixels; the true depth is positive."""
    return float(np.mean(np.abs(truth.astype(np.float64) - predicted) / truth))


def rmse(truth: Floats, predicted: Floats) -> float:
    """Root of the mean squared error over all pixels."""
    return float(np.sqrt(np.mean((truth.astype(np.float64) - predicted) ** 2)))


def scores(semseg: Labels, semseg_hat: Labels, depth: Floats, depth_hat: Floats, num_classes: int) -> Scores:
    """All scores of one set of predictions, each array [n, height, width]."""
    return Scores(miou(semseg, semseg_hat, num_classes), relative_depth_error(depth, depth_hat), rmse(depth, depth_hat))


def baseline(semseg: Labels, depth: Floats, num_classes: int) -> Scores:
    """Scores of the best constant guesses: the majority class and the mean depth.

    Both depth scores are those of the mean depth of this very set.
    """
    majority = np.full_like(semseg, np.bincount(semseg.ravel(), minlength=num_classes).argmax())
    mean = np.full(depth.shape, depth.mean(dtype=np.float64))
    return scores(semseg, majority, depth, mean, num_classes)
