# SPDX-License-Identifier: Apache-2.0
"""D2MoE's residual format: an asymmetric base of 2 bits and +-1 planes, one scale a group.

Each level is fitted to what the levels before it left over, with the error of each column moved into the columns that
follow (GPTQ, Frantar et al. 2022), so that the sums are right at every width, not the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codesign.reference.functions import Ints
from codesign.reference.moe import Matrix
from codesign.spec.moe import GROUP, RESIDUAL_MULTIPLIER_MAX, ExpertFormat

Floats = npt.NDArray[np.float64]

_DAMPING = 0.2
"""Added to the Hessian's diagonal, relative to its mean. GPTQ takes 0.01; here an error that is moved where no input
sees it comes back as a larger rest for the planes, and 0.1 to 0.3 is best at every width."""
_SHRINK = np.linspace(0.4, 1.0, 13)
"""Ranges that a group's base is tried with, relative to its largest and smallest weight."""
_REFINEMENTS = 3
"""Steps of regression from each of them."""
_SHRUNK = (1.0, 0.85, 0.7, 0.55, 0.4)
"""Grids that each row is tried with under compensation."""


@dataclass(frozen=True)
class _Grid:
    """What a group's weights are rounded to: `low + scale * digit`, digits 0..last; scale, low [N]."""

    scale: Floats
    low: Floats
    last: int

    def digits(self, column: Floats) -> Floats:
        """The nearest digits of values [N, ...]."""
        shape = (-1,) + (1,) * (column.ndim - 1)
        scale = np.where(self.scale > 0, self.scale, 1.0).reshape(shape)
        return np.clip(np.rint((column - self.low.reshape(shape)) / scale), 0, self.last)

    def values(self, digits: Floats) -> Floats:
        """What digits [N, ...] stand for."""
        shape = (-1,) + (1,) * (digits.ndim - 1)
        return self.low.reshape(shape) + self.scale.reshape(shape) * digits


_BIAS_BITS = 26
"""Largest bias, in units of the sums."""

_Choose = Callable[[Floats, Floats], _Grid]
"""(a group's weights [N, k], how much each column counts [k]) to its grid."""


def hessian_of(x: Ints, weights: Floats | None = None) -> Floats:
    """The Hessian of a layer's squared error for inputs [rows, K], up to a factor. `weights` [rows] count."""
    rows = x.astype(np.float64)
    product: Floats = rows.T @ (rows if weights is None else rows * weights[:, None])
    return product


def fit_residual(weight: Ints, hessian: Floats | None, bias: Ints | None = None) -> tuple[Matrix, Floats]:
    """Integer weights [N, K] in the residual format, and the worth [N] of one unit of its sums.

    `hessian` [K, K]: how inputs go together; None fits each weight by itself. `bias` [N], in the weights' units, must
    fit int32 in the new ones, with room for a fitted gain.
    """
    target = weight.astype(np.float64)
    levels = ExpertFormat.RESIDUAL.levels
    digits, grids = [], []
    for number in range(len(levels)):
        found, chosen, target = _fit_level(target, hessian, _base_grid if number == 0 else _plane_grid)
        digits.append(found.astype(np.int64))
        grids.append(chosen)
    scales = np.stack([np.stack([g.scale for g in level], axis=1) for level in grids])  # [levels, N, groups]
    scales[1:] /= 2.0  # a plane's digits 0 and 1 stand for -s and s
    zeros = -np.stack([g.low for g in grids[0]], axis=1)
    unit = scales.max(axis=(0, 2)) / RESIDUAL_MULTIPLIER_MAX
    unit = np.where(unit > 0, unit, 1.0)
    if bias is not None:
        unit = np.maximum(unit, np.abs(bias) * 2.0**-_BIAS_BITS)
    multipliers = np.rint(scales / unit[:, None]).astype(np.int64)
    limit = 3 * RESIDUAL_MULTIPLIER_MAX
    return Matrix(tuple(digits), multipliers, np.clip(np.rint(zeros / unit[:, None]), 0, limit).astype(np.int64)), unit


def _fit_level(target: Floats, hessian: Floats | None, choose: _Choose) -> tuple[Floats, list[_Grid], Floats]:
    """Digits [N, K] of one level, its grids, and what it leaves over of `target` [N, K].

    With a Hessian each row takes the shrinkage of its grids at which the error of its sums is least: weights that were
    compensated are larger than what matters of them.
    """
    if hessian is None:
        return _round(target, None, choose, 1.0)
    best: tuple[Floats, list[_Grid], Floats] | None = None
    least = np.zeros(0)
    for shrink in _SHRUNK:
        digits, grids, rest = _round(target, hessian, choose, shrink)
        error = np.einsum("nk,nk->n", rest @ hessian, rest)
        if best is None:
            best, least = (digits, grids, rest), error
            continue
        better = error < least
        least = np.minimum(error, least)
        rows = better[:, None]
        kept = [
            _Grid(np.where(better, a.scale, b.scale), np.where(better, a.low, b.low), a.last)
            for a, b in zip(grids, best[1], strict=True)
        ]
        best = np.where(rows, digits, best[0]), kept, np.where(rows, rest, best[2])
    assert best is not None
    return best


def _round(
    target: Floats, hessian: Floats | None, choose: _Choose, shrink: float
) -> tuple[Floats, list[_Grid], Floats]:
    """As `_fit_level`, with grids `shrink` times as wide as they would be."""
    left = target.copy()
    digits, values, grids = np.zeros_like(target), np.zeros_like(target), []
    inputs = target.shape[1]
    factor = None if hessian is None else _factor(hessian)
    counts = np.ones(inputs) if hessian is None else np.maximum(np.diag(hessian), 1e-9)
    for start in range(0, inputs, GROUP):
        columns = slice(start, min(start + GROUP, inputs))
        wide = choose(left[:, columns], counts[columns])
        grid = _Grid(wide.scale * shrink, wide.low * shrink, wide.last)
        grids.append(grid)
        if factor is None:
            digits[:, columns] = grid.digits(left[:, columns])
            values[:, columns] = grid.values(digits[:, columns])
            continue
        errors = np.zeros((len(target), columns.stop - start))
        for j in range(start, columns.stop):
            digits[:, j] = grid.digits(left[:, j])
            values[:, j] = grid.values(digits[:, j])
            errors[:, j - start] = (left[:, j] - values[:, j]) / factor[j, j]
            left[:, j + 1 : columns.stop] -= np.outer(errors[:, j - start], factor[j, j + 1 : columns.stop])
        left[:, columns.stop :] -= errors @ factor[columns, columns.stop :]
    return digits, grids, target - values


def _factor(hessian: Floats) -> Floats:
    """The upper Cholesky factor of the inverse Hessian: its row j moves column j's error into those that follow."""
    damped = hessian + np.eye(len(hessian)) * max(_DAMPING * float(np.diag(hessian).mean()), 1e-6)
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T, dtype=np.float64)


def _base_grid(weights: Floats, counts: Floats) -> _Grid:
    """Four steps over a group, with the range of least squared error, then refined by regression on its digits."""
    low, high = np.minimum(weights.min(axis=1), 0.0), np.maximum(weights.max(axis=1), 0.0)
    best: tuple[Floats, Floats, Floats] | None = None
    for shrink in _SHRINK:
        grid = _Grid(shrink * (high - low) / 3, shrink * low, 3)
        for _ in range(_REFINEMENTS):
            error = _error(grid, weights, counts)
            if best is None:
                best = (error, grid.scale, grid.low)
            else:
                better = error < best[0]
                best = (
                    np.where(better, error, best[0]),
                    np.where(better, grid.scale, best[1]),
                    np.where(better, grid.low, best[2]),
                )
            grid = _regressed(grid, weights, counts)
    assert best is not None
    return _Grid(best[1], best[2], 3)


def _error(grid: _Grid, weights: Floats, counts: Floats) -> Floats:
    return np.asarray(np.square(weights - grid.values(grid.digits(weights))) @ counts)


def _regressed(grid: _Grid, weights: Floats, counts: Floats) -> _Grid:
    """The grid that fits its own digits best; 0 stays within it."""
    digits, share = grid.digits(weights), counts / counts.sum()
    middle, centre = digits @ share, weights @ share
    spread = np.square(digits - middle[:, None]) @ share
    together = ((digits - middle[:, None]) * (weights - centre[:, None])) @ share
    scale = np.where(spread > 1e-9, together / np.maximum(spread, 1e-9), grid.scale)
    scale = np.maximum(scale, 0.0)
    return _Grid(scale, np.clip(centre - scale * middle, -3 * scale, 0.0), 3)


def _plane_grid(left: Floats, counts: Floats) -> _Grid:
    """Plus or minus the mean magnitude."""
    size = np.abs(left) @ (counts / counts.sum())
    return _Grid(2 * size, -size, 1)
